"""Locales: text files name their encoding, and commands run in a locale other than UTF-8."""

from __future__ import annotations

import ast
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mvae.refusal import Refusal
from sweeps.cli.console import Console
from sweeps.cli.output import outliving_readers, print_every_character
from sweeps.cli.values import check_names
from sweeps.main import BAD_INPUT, COMPLETE
from tests.corpora import write_corpus
from tests.test_setup import REPOSITORY, python_files

NO_UTF_8 = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}

TEXT_METHODS = {"read_text", "write_text"}
NOT_FILES = {"lzma", "tarfile", "Image", "Store", "browsed", "os"}
"""Objects whose `open` does not open a text file."""


def without_encoding(code: str) -> list[int]:
    """Line numbers of calls that read or write text in the locale's encoding.

    ruff's PLW1514 finds only paths whose type it can infer: one in eight of our calls.
    """
    found = []
    for node in ast.walk(ast.parse(code)):
        if not isinstance(node, ast.Call) or any(keyword.arg == "encoding" for keyword in node.keywords):
            continue
        called, given = node.func, {keyword.arg: keyword.value for keyword in node.keywords}
        name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
        owner = getattr(called.value, "id", "") if isinstance(called, ast.Attribute) else ""
        if name in TEXT_METHODS or isinstance(given.get("text"), ast.Constant):
            found += [node.lineno] if name in {*TEXT_METHODS, "run", "Popen", "check_output"} else []
        elif name == "fdopen" or (name == "open" and owner not in NOT_FILES):
            modes = [*node.args[isinstance(called, ast.Name) or name == "fdopen" :], given.get("mode")]
            texts = [mode.value for mode in modes if isinstance(mode, ast.Constant) and isinstance(mode.value, str)]
            found += [node.lineno] if not any("b" in text for text in texts) else []
    return found


@pytest.mark.parametrize(
    "call",
    [
        "path.read_text()",
        "path.write_text(text)",
        "path.open(newline='')",
        "open(name)",
        "open(name, 'w')",
        "os.fdopen(number)",
        "subprocess.run(command, text=True)",
    ],
)
def test_a_call_without_an_encoding_is_found(call: str) -> None:
    assert without_encoding(call) == [1]


@pytest.mark.parametrize(
    "call",
    ["path.read_text(encoding='utf-8')", "path.open('rb')", "open(name, mode='wb')", "Image.open(path)"],
)
def test_a_call_with_an_encoding_or_for_bytes_is_accepted(call: str) -> None:
    assert without_encoding(call) == []


def test_every_text_file_is_opened_with_an_encoding() -> None:
    files = python_files()
    assert files
    found = [
        f"{path.relative_to(REPOSITORY)}:{line}"
        for path in files
        for line in without_encoding(path.read_text(encoding="utf-8"))
    ]
    assert found == []


TRAINS_AND_REPORTS = """
import sys
from mvae.data import fingerprint
from pipelines.translation import Options, sweep
from sweeps.cli.options import read
from sweeps.store.store import Store
from sweeps.main import main
from sweeps.trials.messages import Job
from sweeps.trials.run import run

options = read(Options, sys.argv[1:])
cells = sweep(options).cells
key = cells[0].trial.key(fingerprint("translation", options.data_root))
store = Store.open(options.storage, options.name, create=True)
measures = tuple(dict.fromkeys(cell.measure for cell in cells))
run(Job(key, cells[0].trial, measures=measures, store=store, data_root=options.data_root, cache=options.cache), print)
sys.exit(main(lambda: sweep(options), options))
"""


def test_vietnamese_sentences_are_trained_and_reported_in_a_locale_other_than_utf_8(
    tmp_path: Path, cache: Path
) -> None:
    pairs = [("the cat", "tiếng Việt"), ("a dog sees", "nhập từ"), ("the cat sees", "tiếng từ")]
    corpus = write_corpus(tmp_path / "corpus", pairs * 5, valid=pairs, test=pairs)
    typed = f"--storage {tmp_path} --corpus {corpus} --cache {cache} --targets all --epochs 1 --latents 3 --samples 2"
    ran = subprocess.run(
        [sys.executable, "-X", "warn_default_encoding", "-c", TRAINS_AND_REPORTS, *typed.split(), "--report"],
        capture_output=True,
        encoding="utf-8",
        env={**os.environ, **NO_UTF_8, "PYTHONPATH": str(REPOSITORY)},
        timeout=300,
    )
    assert ran.returncode == COMPLETE, ran.stderr
    assert "translation: test has 3 pairs, 0 left out" in ran.stdout and ran.stdout.isascii()
    ours = [line for line in ran.stderr.splitlines() if "EncodingWarning" in line and "site-packages" not in line]
    assert ours == []
    [examples] = (tmp_path / "main" / "reports").glob("*/translations.md")
    assert "| the cat | tiếng Việt |" in examples.read_text(encoding="utf-8")


def test_a_name_outside_ascii_is_refused_in_a_locale_other_than_utf_8() -> None:
    command = [sys.executable, str(REPOSITORY / "pipelines" / "weak_supervision.py"), "--storage", "Läufe", "--plan"]
    ran = subprocess.run(command, capture_output=True, encoding="utf-8", env={**os.environ, **NO_UTF_8}, timeout=60)
    said = r"'L\xe4ufe' has characters outside ASCII, but this locale encodes file names as ascii: set PYTHONUTF8=1"
    assert (ran.returncode, ran.stdout, ran.stderr) == (BAD_INPUT, "", f"{said}\n")


@pytest.mark.parametrize("variable", ["MVAE_STORAGE", "MVAE_DATA", "MLFLOW_TRACKING_URI", "HOME"])
def test_names_from_the_environment_are_checked_too_and_utf_8_accepts_all(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "/Läufe")
    check_names(["--name", "ö"])
    monkeypatch.setattr(sys, "getfilesystemencoding", lambda: "iso8859-1")
    with pytest.raises(
        Refusal, match="ufe' has characters outside ASCII, but this locale encodes file names as iso8859-1"
    ):
        check_names([])


def test_characters_that_stdout_cannot_encode_are_printed_as_question_marks() -> None:
    file = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    Console(file, live=False).say("Möwe: 0.5")
    file.flush()
    assert file.buffer.getvalue() == b"M?we: 0.5\n"


def test_a_stream_that_outlives_its_reader_replaces_characters_it_cannot_encode(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    with outliving_readers(""):
        print_every_character(sys.stdout)
        print("0.5 ±0.1")
    assert raw.getvalue() == b"0.5 ?0.1\n"
