"""Escapes, typesets, wraps and measures text for LaTeX."""

import re
import unicodedata

SPECIAL = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"$<$",
    ">": r"$>$",
    "|": r"$|$",
    '"': "''",
    "[": "{[}",
    "]": "{]}",
    "*": "{*}",
    "\u00b1": r"$\pm$",
    "\u00d7": r"$\times$",
    "\u2212": "$-$",
    "\u2264": r"$\leq$",
    "\u2265": r"$\geq$",
    "\u2192": r"$\rightarrow$",
    "\u2013": "--",
    "\u2014": "---",
    "\u2026": r"\ldots{}",
    "\u03b1": r"$\alpha$",
    "\u03b2": r"$\beta$",
    "\u03b3": r"$\gamma$",
    "\u03b4": r"$\delta$",
    "\u03bb": r"$\lambda$",
    "\u03bc": r"$\mu$",
    "\u03c3": r"$\sigma$",
    "\u03c4": r"$\tau$",
}
"""LaTeX for special characters. Brackets and stars are in braces, because after \\\\ they would be read as options."""

ACCENTS = frozenset("\u0300\u0301\u0302\u0303\u0308\u030a\u030c\u0327")
LETTERS = frozenset("\u00df\u00c6\u00e6\u00d8\u00f8\u0141\u0142\u0152\u0153")
"""Accents and letters that every LaTeX font has."""

FORMULA = re.compile(r"(?:\blog )?\b[pq]\([a-z0-9,| ]+\)")
"""Pattern of a probability density, for example log p(x1|x2) or q(z|x1)."""

WORD = re.compile(rf"(?:{FORMULA.pattern}|\S)+")
"""Pattern of a word, or of a formula with adjacent punctuation."""

NARROW, WIDE = frozenset(".,:;'!|()[]ijlt "), frozenset("mwMW%±&@+-\u2212")
"""Characters that are much narrower or wider than a digit."""

DIGIT, CAPITAL = 5.0, 7.2
"""Widths of a digit and of a capital letter in points, in Computer Modern at 10 pt."""


def escaped(text: str) -> str:
    """Escapes text for LaTeX without packages, and joins its lines. Unsupported characters become codes: [U+1F600]."""
    return "".join(SPECIAL.get(character) or _known(character) for character in " ".join(text.split()))


def typeset(text: str) -> str:
    """Escapes text and puts probability densities in math mode: log p(x1|x2) becomes $\\log p(x_1 \\mid x_2)$."""
    parts = re.split(f"({FORMULA.pattern})", text)
    return "".join(_formula(part) if FORMULA.fullmatch(part) else _escaped_with_spaces(part) for part in parts)


def _escaped_with_spaces(text: str) -> str:
    """Escapes text, and keeps a space at the start and end."""
    before, after = text[: len(text) - len(text.lstrip())], text[len(text.rstrip()) :]
    return " " * bool(before) + escaped(text) + " " * bool(after and text.strip())


def wrapped(text: str, most: int) -> list[str]:
    """Wraps text into lines of at most `most` characters; a longer word or formula has its own line."""
    lines: list[str] = []
    for word in WORD.findall(" ".join(text.split())):
        if lines and len(lines[-1]) + 1 + len(word) <= most:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines or [""]


def stacked(lines: list[str], side: str, place: str) -> str:
    """Returns one cell with the lines stacked vertically.

    Args:
        side: horizontal alignment: `l`, `c` or `r`.
        place: vertical alignment: `t` aligns the first line with the row, `b` aligns the last line.
    """
    if len(lines) == 1:
        return typeset(lines[0])
    joined = r"\\ ".join(typeset(line) for line in lines)
    return rf"\begin{{tabular}}[{place}]{{@{{}}{side}@{{}}}}{joined}\end{{tabular}}"


def width(text: str) -> float:
    """Estimates the width of text in points at 10 pt. The estimate for ordinary words is never too small."""
    return sum(
        0.6 * DIGIT
        if character in NARROW
        else 1.7 * DIGIT
        if character in WIDE
        else CAPITAL
        if character.isupper()
        else 1.08 * DIGIT
        if character.isalpha()
        else DIGIT
        for character in text
    )


def _formula(text: str) -> str:
    inner = re.sub(r"[a-z]{2,}", lambda word: rf"\mathrm{{{word[0]}}}", text.removeprefix("log "))
    inner = re.sub(r"([a-z])(\d+)", r"\1_{\2}", inner).replace(",", ", ").replace("|", r" \mid ")
    log = r"\log " if text.startswith("log ") else ""
    return f"${log}{' '.join(inner.split())}$"


def _known(character: str) -> str:
    parts = unicodedata.normalize("NFD", character)
    printed = parts[0].isascii() and parts[0].isprintable() and len(parts) <= 2 and set(parts[1:]) <= ACCENTS
    return character if printed or character in LETTERS else f"{{[}}U+{ord(character):04X}{{]}}"
