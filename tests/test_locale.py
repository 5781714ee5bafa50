"""Locales: text files name their encoding, and commands run where the locale is not UTF-8."""

from __future__ import annotations

import ast

import pytest

from tests.test_setup import REPOSITORY, python_files

TEXT_METHODS = {"read_text", "write_text"}
NOT_FILES = {"Image", "Store", "browsed", "os"}
"""Objects whose `open` opens no text file."""


def without_encoding(code: str) -> list[int]:
    """Lines of the calls that read or write text in whatever encoding the locale has.

    ruff's PLW1514 finds only paths whose type it can infer, one call in eight of ours.
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
def test_a_call_that_leaves_the_encoding_to_the_locale_is_found(call: str) -> None:
    assert without_encoding(call) == [1]


@pytest.mark.parametrize(
    "call",
    ["path.read_text(encoding='utf-8')", "path.open('rb')", "open(name, mode='wb')", "Image.open(path)"],
)
def test_a_call_that_names_its_encoding_or_reads_bytes_is_left_alone(call: str) -> None:
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
