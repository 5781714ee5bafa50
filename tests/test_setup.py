"""The repository: allowed imports, module docstrings, forbidden contents, and the set-up by make."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]

# Written in parts, so that this file does not contain the forbidden text.
HOSTS = ["py" + "pi.org", "python" + "hosted.org", "download.py" + "torch.org", "registry.np" + "mjs.org"]
FOREIGN = re.compile(
    "|".join(
        [
            *(rf"\b{re.escape(host)}\b" for host in HOSTS),
            r"/opt/" + r"pypi",
            r"(?<![\w./~-])/" + r"(?:work|root)/",
            r"(?<![\w.])/tmp/" + r"dev\b",
            r"/(?:home|Users)/" + r"(?!ray\b|ubuntu\b|me\b|\$)[a-z]\w*/",
        ]
    )
)


def tracked() -> list[Path]:
    """Files that are in the repository or about to be added."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=REPOSITORY, capture_output=True, encoding="utf-8")
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    return [REPOSITORY / name for name in listed.stdout.split("\0") if name and (REPOSITORY / name).is_file()]


def python_files(*folders: str) -> list[Path]:
    files = [path for path in tracked() if path.suffix == ".py"]
    return [path for path in files if not folders or path.relative_to(REPOSITORY).parts[0] in folders]


def imported_by(path: Path) -> set[str]:
    """Top-level names of all modules that a file imports, also inside functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.partition(".")[0])
    return found


def test_importing_all_of_mvae_loads_neither_ray_nor_mlflow() -> None:
    modules = [
        ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")
        for path in python_files("mvae")
        if path.name != "__main__.py"
    ]
    script = (
        f"import importlib, sys\nfor name in {modules!r}: importlib.import_module(name)\n"
        "print(sorted({'ray', 'mlflow', 'sweeps', 'torchvision'} & sys.modules.keys()))"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    ran = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, encoding="utf-8", env=environment, timeout=300
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip() == "[]"


def test_every_python_file_opens_with_a_docstring() -> None:
    files = python_files()
    assert files
    assert [str(path) for path in files if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))] == []


@pytest.mark.parametrize("host", HOSTS)
def test_a_registry_host_is_found_anywhere_in_a_text(host: str) -> None:
    for line in (f"--index-url https://{host}/simple", f"https://files.{host}/packages", f'"{host}"'):
        assert FOREIGN.search(line)
    assert not FOREIGN.search(host.replace(".", " "))


def test_the_repository_holds_no_registry_host_and_no_machine_path() -> None:
    found: list[str] = []
    for path in tracked():
        content = path.read_bytes()
        if b"\0" in content:
            continue
        for number, line in enumerate(content.decode(errors="replace").splitlines(), start=1):
            if FOREIGN.search(line):
                found.append(f"{path.relative_to(REPOSITORY)}:{number}: {line.strip()[:100]}")
    assert found == []


@pytest.mark.parametrize(
    ("path", "ignored"),
    [
        ("mvae/data/arrow.py", False),
        ("cluster/data/notes.md", False),
        ("benchmarks/results/runs/one.json", False),
        ("runs/main/results/one.json", True),
        ("data/MNIST/raw/train", True),
        (".venv/made", True),
        ("mvae/__pycache__/trial.pyc", True),
    ],
)
def test_patterns_in_gitignore_are_anchored(path: str, ignored: bool) -> None:
    if not (REPOSITORY / ".git").exists():
        pytest.skip("not a git checkout")
    asked = subprocess.run(["git", "check-ignore", "--no-index", "-q", path], cwd=REPOSITORY)
    assert (asked.returncode == 0) is ignored


def make(target: str, *variables: str, folder: Path = REPOSITORY) -> subprocess.CompletedProcess[str]:
    outer = ("MAKEFLAGS", "MAKEOVERRIDES", "MAKELEVEL", "MFLAGS", "PYTEST_ARGS", "PIP_ARGS")  # of `make test` itself
    environment = {name: value for name, value in os.environ.items() if name not in outer}
    return subprocess.run(
        ["make", target, *variables], cwd=folder, env=environment, capture_output=True, encoding="utf-8", timeout=60
    )


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout of only the set-up files, with a Python that records its arguments."""
    for name in ("Makefile", "pyproject.toml"):
        (tmp_path / name).write_bytes((REPOSITORY / name).read_bytes())
    fake = tmp_path / "python"
    fake.write_text(
        "#!/bin/sh\n"
        f'echo "$@" >> "{tmp_path}/asked"\n'
        'case "$*" in\n'
        '  *version_info*) exit "${TOO_OLD:-0}" ;;\n'
        '  --version) echo "Python 3.9.6" ;;\n'
        '  "-m venv --clear .venv") mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;\n'
        '  *"--upgrade pip"*) exit "${PIP_STAYS:-0}" ;;\n'
        '  *"pip install"*"-e .") if [ -n "$PIP_FAILS" ]; then printf "$PIP_FAILS"; exit 1; fi ;;\n'
        '  *"pip install"*"-e .[dev]") exit "${TOOLS_FAIL:-0}" ;;\n'
        "esac\n",
        encoding="utf-8",
    )
    fake.chmod(0o755)
    return tmp_path


def asked(checkout: Path) -> str:
    log = checkout / "asked"
    said = log.read_text(encoding="utf-8")
    log.write_text("", encoding="utf-8")
    return said


PIP = "-m pip install --no-compile"
DEMO = "pipelines/weak_supervision.py --preset demo"


def test_the_demo_installs_what_pipelines_need_and_no_test_tools(checkout: Path) -> None:
    made = make("demo", f"PYTHON={checkout}/python", "PIP_ARGS=--no-cache-dir", folder=checkout)
    assert made.returncode == 0, made.stderr
    commands = asked(checkout).splitlines()
    assert "-m venv --clear .venv" in commands
    assert [line for line in commands if "pip install" in line] == [
        f"{PIP} --no-cache-dir --upgrade pip",
        f"{PIP} --no-cache-dir -e .",
    ]
    assert commands[-1] == DEMO
    assert not (checkout / ".venv" / "made-dev").exists()


def test_an_installation_says_how_long_it_takes_how_large_it_is_and_how_to_avoid_cuda(
    checkout: Path,
) -> None:
    made = make("demo", f"PYTHON={checkout}/python", folder=checkout)
    lines = made.stdout.splitlines()
    assert len(lines) <= 5 and made.stderr == ""
    said = " ".join(lines)
    assert re.search(r"\d+ GB, \d+ to \d+ minutes", said) and "PyTorch's CPU index" in said
    assert any(line.strip() == 'make demo PIP_ARGS="--extra-index-url URL"' for line in lines)
    assert lines[-1].endswith(DEMO + " ")
    again = make("demo", f"PYTHON={checkout}/python", folder=checkout)
    assert again.stdout.splitlines() == lines[-1:]


@pytest.mark.parametrize("target", ["test", "lab", "docs", "lint", "format"])
def test_targets_for_developers_install_the_development_tools(checkout: Path, target: str) -> None:
    assert make(target, f"PYTHON={checkout}/python", folder=checkout).returncode == 0
    installed = [line for line in asked(checkout).splitlines() if line.startswith(f"{PIP} -e")]
    assert installed == [f"{PIP} -e .", f"{PIP} -e .[dev]"]


def test_make_report_does_not_need_the_development_tools(checkout: Path) -> None:
    assert make("report", f"PYTHON={checkout}/python", folder=checkout).returncode == 0
    assert ".[dev]" not in asked(checkout)


def test_the_environment_is_a_target_and_a_second_target_adds_the_tools(checkout: Path) -> None:
    python = f"PYTHON={checkout}/python"
    assert make(".venv/made", python, folder=checkout).returncode == 0
    assert "-m compileall" in asked(checkout).splitlines()[-1]
    assert make("test", python, folder=checkout).returncode == 0
    tools, compiled, tested = asked(checkout).splitlines()
    assert tools == f"{PIP} -e .[dev]"
    assert compiled.startswith("-m compileall ") and compiled.endswith(" .venv/lib")
    assert tested == "-m pytest -n 2 --dist loadfile --no-loadscope-reorder"


def test_the_environment_is_rebuilt_only_when_the_project_file_changes(checkout: Path) -> None:
    python = f"PYTHON={checkout}/python"
    assert make("test", python, folder=checkout).returncode == 0
    asked(checkout)

    make("test", python, folder=checkout)
    assert asked(checkout).splitlines() == ["-m pytest -n 2 --dist loadfile --no-loadscope-reorder"]

    made = checkout / ".venv" / "made-dev"
    os.utime(checkout / "pyproject.toml", (made.stat().st_mtime + 10,) * 2)
    said = make("lint", python, folder=checkout).stdout
    commands = asked(checkout)
    assert f"{PIP} -e .\n" in commands and f"{PIP} -e .[dev]\n" in commands
    assert "-m venv" not in commands
    assert "Updating .venv: pyproject.toml has changed" in said and " GB" not in said


@pytest.mark.parametrize(("fails", "target"), [("PIP_FAILS", "demo"), ("PIP_FAILS", "test"), ("TOOLS_FAIL", "test")])
def test_an_interrupted_installation_does_not_count_as_an_environment(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, fails: str, target: str
) -> None:
    python = f"PYTHON={checkout}/python"
    monkeypatch.setenv(fails, "1")
    failed = make(target, python, folder=checkout)
    assert failed.returncode != 0
    assert "Type the same command again to resume" in failed.stderr and ".venv/pip.log" in failed.stderr
    monkeypatch.delenv(fails)
    asked(checkout)
    assert make(target, python, folder=checkout).returncode == 0
    resumed = asked(checkout)
    assert f"{PIP} -e .{'[dev]' * (fails == 'TOOLS_FAIL')}\n" in resumed
    assert (f"{PIP} -e .\n" in resumed) is (fails == "PIP_FAILS")


def test_a_failing_pip_prints_its_output_from_the_first_error_on(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = "  error: subprocess-exited-with-error\n  | no compiler\nERROR: Failed to build it\n"
    monkeypatch.setenv("PIP_FAILS", f"Collecting torch\n{build}")
    failed = make("demo", f"PYTHON={checkout}/python", folder=checkout)
    assert build in failed.stderr and "Collecting" not in failed.stderr
    assert (checkout / ".venv" / "pip.log").read_text(encoding="utf-8") == f"Collecting torch\n{build}"


def test_installation_succeeds_even_if_pip_cannot_upgrade_itself(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_STAYS", "1")
    assert make("demo", f"PYTHON={checkout}/python", folder=checkout).returncode == 0
    installed, compiled, shown = asked(checkout).splitlines()[-3:]
    assert installed == f"{PIP} -e ."
    assert compiled.startswith("-m compileall ") and compiled.endswith(" .venv/lib")
    assert shown == DEMO


def test_a_python_that_is_too_old_is_refused_with_the_required_version(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOO_OLD", "1")
    refused = make("demo", f"PYTHON={checkout}/python", folder=checkout)
    assert refused.returncode != 0
    assert "Python 3.11 or newer is needed" in refused.stderr
    assert "Python 3.9.6" in refused.stderr
    assert "make PYTHON=python3.12" in refused.stderr


def test_no_pipeline_and_no_page_imports_test_dependencies() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    listed = {
        part: {re.split(r"[\[>=<]", line)[0].lower() for line in lines}
        for part, lines in {"always": project["dependencies"], **extras}.items()
    }
    tools = listed["dev"] - listed["always"] - listed["vision"]
    assert "pytest" in tools and "scikit-image" in listed["always"]
    come_from = packages_distributions()
    imported = set[str]().union(*map(imported_by, python_files("mvae", "sweeps", "pipelines", "docs")))
    found = {name: {each.lower() for each in come_from.get(name, ())} & tools for name in imported}
    assert {name: packages for name, packages in found.items() if packages} == {}
