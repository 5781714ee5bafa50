"""What stands in a Markdown document: prose, blocks, the commands in them, and numbers that were typed by hand."""

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
"""Languages of blocks that hold commands."""

DECIMAL = re.compile(r"(?<![\w./])[-±]?\d+\.\d+(?!\w|\.\d)")
WITH_UNIT = re.compile(r"(?<![\w.,/-])\d[\d,]*\s(?:s|ms|min|minutes?|hours?|h|nats|times|[KMG]i?B|%)(?!\w)")
"""What a measurement looks like: a decimal fraction, or a whole number with a unit that measurements have."""


def copied(root: Path) -> Path:
    """A copy of all that `make report` reads and writes."""
    root.mkdir(exist_ok=True)
    shutil.copy(REPOSITORY / "README.md", root)
    shutil.copytree(REPOSITORY / "docs", root / "docs")
    shutil.copytree(REPOSITORY / "benchmarks" / "results", root / "benchmarks" / "results")
    return root


@dataclass(frozen=True)
class Block:
    """A fenced or indented block, outside what is filled in."""

    language: str
    lines: tuple[tuple[int, str], ...]
    """Number in the file and text."""

    @property
    def commands(self) -> list[tuple[int, str]]:
        """Its lines as one types them, without the remark behind them; none of a block in another language."""
        if self.language not in SHELL:
            return []
        typed = ((number, re.sub(r"(\s{2,}#.*|\s+#\s.*)$", "", line).strip()) for number, line in self.lines)
        return [(number, line.removeprefix("$ ")) for number, line in typed if line and not line.startswith("#")]


def outside(text: str) -> str:
    """The text without what its spans hold; line numbers stay."""
    return SPAN.sub(lambda span: "\n" * span.group().count("\n"), text)


def split(text: str) -> tuple[str, list[Block]]:
    """Prose, with empty lines where blocks and filled spans are, and the blocks."""
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
    """The pieces of code in running text, with their lines."""
    lines = enumerate(prose.splitlines(), start=1)
    return [(number, code) for number, line in lines for code in re.findall(r"`([^`\n]+)`", line)]


def stated() -> dict[str, str]:
    """Phrases with numbers that are no measurements of ours, and why not."""
    lines = [line for line in STATED.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    return {phrase: why for phrase, _, why in (line.partition("    ") for line in lines)}


def typed_numbers(text: str, phrases: dict[str, str]) -> list[str]:
    """Numbers outside spans that look measured: `line: number`. Code in running text, and commands, are left out."""
    prose, blocks = split(text)
    shown = re.sub(r"`[^`\n]*`", "", re.sub(r"\]\([^)\s]*\)", "]", re.sub(r"<!--.*?-->", "", prose)))
    others = [line for block in blocks if block.language in ("text", "output") for line in block.lines]
    found = []
    for number, line in [*enumerate(shown.splitlines(), start=1), *others]:
        for phrase in phrases:
            line = line.replace(phrase, "")
        found += [f"{number}: {match.group()}" for kind in (DECIMAL, WITH_UNIT) for match in kind.finditer(line)]
    return found
