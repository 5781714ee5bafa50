"""Parses Markdown documents: prose, blocks, commands, and numbers typed by hand."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from docs.report.__main__ import documents
from docs.report.spans import SPAN

REPOSITORY = Path(__file__).resolve().parents[1]
PAGES = [str(path.relative_to(REPOSITORY)) for path in documents(REPOSITORY)]
STATED = REPOSITORY / "tests" / "fixtures" / "stated-numbers.txt"

SHELL = ("", "bash", "sh", "shell", "console")
"""Languages of blocks with commands."""

DECIMAL = re.compile(r"(?<![\w./])[-±]?\d+\.\d+(?!\w|\.\d)")
WITH_UNIT = re.compile(r"(?<![\w.,/-])\d[\d,]*\s(?:s|ms|min|minutes?|hours?|h|nats|times|[KMG]i?B|%)(?!\w)")
"""A number that looks measured: a decimal fraction, or an integer with a unit of measurement."""


def copied(root: Path) -> Path:
    """Copies all files that `make report` reads and writes."""
    root.mkdir(exist_ok=True)
    shutil.copy(REPOSITORY / "README.md", root)
    shutil.copytree(REPOSITORY / "docs", root / "docs")
    shutil.copytree(REPOSITORY / "benchmarks" / "results", root / "benchmarks" / "results")
    return root


@dataclass(frozen=True)
class Block:
    """A fenced or indented block outside filled spans."""

    language: str
    lines: tuple[tuple[int, str], ...]
    """Line number in the file, and text."""

    @property
    def commands(self) -> list[tuple[int, str]]:
        """Command lines without trailing remarks; none if the block is not a shell block."""
        if self.language not in SHELL:
            return []
        typed = ((number, re.sub(r"(\s{2,}#.*|\s+#\s.*)$", "", line).strip()) for number, line in self.lines)
        return [(number, line.removeprefix("$ ")) for number, line in typed if line and not line.startswith("#")]


def outside(text: str) -> str:
    """The text with its spans emptied; line numbers stay the same."""
    return SPAN.sub(lambda span: "\n" * span.group().count("\n"), text)


def split(text: str) -> tuple[str, list[Block]]:
    """Prose, with empty lines in place of blocks and filled spans, and the blocks."""
    prose: list[str] = []
    blocks: list[Block] = []
    language: str | None = None
    held: list[tuple[int, str]] = []
    before = ""
    for number, line in enumerate(outside(text).splitlines(), start=1):
        fence = re.match(r"\s*```(\w*)", line)
        indented = line.startswith("    ") and (not before.strip() or bool(held))
        if fence and language is None:
            language = fence[1]
        elif fence:
            blocks.append(Block(language or "", tuple(held)))
            language, held = None, []
        elif language is not None or indented:
            held.append((number, line))
        else:
            if held:
                blocks.append(Block("", tuple(held)))
                held = []
            prose.append(line)
            before = line
            continue
        prose.append("")
        before = "" if fence else line
    if held:
        blocks.append(Block("", tuple(held)))
    return "\n".join(prose), blocks


def inline(prose: str) -> list[tuple[int, str]]:
    """Inline code with its line numbers."""
    lines = enumerate(prose.splitlines(), start=1)
    return [(number, code) for number, line in lines for code in re.findall(r"`([^`\n]+)`", line)]


def stated() -> dict[str, str]:
    """Phrases with numbers that are not our measurements, and the reason for each."""
    lines = [line for line in STATED.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    return {phrase: why for phrase, _, why in (line.partition("    ") for line in lines)}


def typed_numbers(text: str, phrases: dict[str, str]) -> list[str]:
    """Numbers outside spans that look measured, as `line: number`; inline code and commands are ignored."""
    prose, blocks = split(text)
    shown = re.sub(r"`[^`\n]*`", "", re.sub(r"\]\([^)\s]*\)", "]", re.sub(r"<!--.*?-->", "", prose)))
    others = [line for block in blocks if block.language in ("text", "output") for line in block.lines]
    found = []
    for number, line in [*enumerate(shown.splitlines(), start=1), *others]:
        for phrase in phrases:
            line = line.replace(phrase, "")
        found += [f"{number}: {match.group()}" for kind in (DECIMAL, WITH_UNIT) for match in kind.finditer(line)]
    return found
