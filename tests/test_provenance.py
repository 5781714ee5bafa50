"""Every number records where it was made."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path

import pytest

from sweeps.store import provenance
from sweeps.store.provenance import Attempts, git_sha, source_digest, stale_package, versions

ROOT = Path(__file__).resolve().parent.parent


def test_the_recorded_git_sha_is_the_checkouts_and_marks_changed_files() -> None:
    git_sha.cache_clear()
    if not (ROOT / ".git").exists():
        assert git_sha() == ""
        return
    head = subprocess.run(
        ["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, encoding="utf-8", check=True
    )
    changed = subprocess.run(
        ["git", "-C", str(ROOT), "status", "--porcelain", "--untracked-files=no"],
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    assert git_sha() == head.stdout.strip() + "-dirty" * bool(changed.stdout.strip())


def test_a_package_inside_another_checkout_records_no_git_sha(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    monkeypatch.setattr(provenance, "ROOT", tmp_path / "site-packages")
    (tmp_path / "site-packages").mkdir()
    git_sha.cache_clear()
    assert git_sha() == ""
    git_sha.cache_clear()


def test_recorded_versions_include_python_and_torch() -> None:
    found = versions()
    assert found["python"] == platform.python_version()
    assert {"torch", "ray", "mlflow", "numpy"} <= found.keys()


def test_an_attempt_records_where_it_ran() -> None:
    (record,) = Attempts("abc", "cpu", None, started=1.0).for_checkpoint()["attempts"]
    assert (record["attempt"], record["from_epoch"], record["host"]) == ("abc", 0, platform.node())
    assert record["device_name"]


def test_a_changed_copy_of_a_pipeline_is_reported_and_other_scripts_are_not(tmp_path: Path) -> None:
    own = provenance.ROOT / "pipelines" / "k_sweep.py"
    copied = tmp_path / "k_sweep.py"
    copied.write_bytes(own.read_bytes())
    assert stale_package(own) == stale_package(copied) == stale_package(tmp_path / "mine.py") == ""
    copied.write_text(own.read_text(encoding="utf-8") + "\n# changed on the laptop\n", encoding="utf-8")
    assert stale_package(copied).startswith("Warning: k_sweep.py differs from the copy in the package at ")
    assert "ray up --no-restart" in stale_package(copied)


def test_the_source_digest_depends_on_every_file_but_not_on_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def digest(root: Path) -> str:
        for name, text in {"mvae/a.py": "1", "sweeps/store/provenance.py": "2", "pipelines/b/c.py": "3"}.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            if not (root / name).exists():
                (root / name).write_text(text, encoding="utf-8")
        monkeypatch.setattr(provenance, "ROOT", root)
        source_digest.cache_clear()
        return source_digest()

    one, other = digest(tmp_path / "one"), digest(tmp_path / "other")
    assert one == other
    (tmp_path / "other" / "pipelines" / "b" / "c.py").write_text("4", encoding="utf-8")
    assert digest(tmp_path / "other") != one
    source_digest.cache_clear()
