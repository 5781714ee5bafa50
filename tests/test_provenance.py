"""Where a number was made is recorded as it is."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path

import pytest

from sweeps import provenance
from sweeps.provenance import attempt_record, git_sha, versions

ROOT = Path(__file__).resolve().parent.parent


def test_the_git_sha_is_that_of_the_checkout_and_says_when_files_differ() -> None:
    git_sha.cache_clear()
    if not (ROOT / ".git").exists():
        assert git_sha() == ""
        return
    head = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    changed = subprocess.run(
        ["git", "-C", str(ROOT), "status", "--porcelain", "--untracked-files=no"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert git_sha() == head.stdout.strip() + "-dirty" * bool(changed.stdout.strip())


def test_a_package_inside_another_checkout_claims_no_sha(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    inside = tmp_path / "site-packages" / "sweeps" / "provenance.py"
    monkeypatch.setattr(provenance, "__file__", str(inside))
    inside.parent.mkdir(parents=True)
    git_sha.cache_clear()
    assert git_sha() == ""
    git_sha.cache_clear()


def test_versions_name_python_and_torch() -> None:
    found = versions()
    assert found["python"] == platform.python_version()
    assert {"torch", "ray", "mlflow", "numpy"} <= found.keys()


def test_an_attempt_says_where_it_ran() -> None:
    record = attempt_record("abc", "cpu", 3, 1.0)
    assert (record["attempt"], record["from_epoch"], record["host"]) == ("abc", 3, platform.node())
    assert record["device_name"]
