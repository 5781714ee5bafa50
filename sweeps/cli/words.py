"""Formats times, counts and sizes: 3 min 20 s, 1.5 to 2 h, 1,200 trials, 9.1 MB."""

import sys
from decimal import Decimal


def figures(value: float, digits: int) -> str:
    """Formats a number to significant digits without an exponent: 130, not 1.3e+02."""
    text = f"{value:.{digits}g}"
    return f"{Decimal(text):f}" if "e" in text else text


def duration(seconds: float) -> str:
    """Formats a duration in at most two units: 8 s, 3 min 20 s, 2 h 05 min, 4 d 03 h."""
    whole = max(0, round(seconds))
    for unit, size, small_unit, small_size in (("d", 86_400, "h", 3_600), ("h", 3_600, "min", 60), ("min", 60, "s", 1)):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // small_size:02d} {small_unit}"
    return f"{whole} s"


def span(low: float, high: float) -> str:
    """Formats a range of durations, each rounded to two digits: "35 to 55 s", or "2 h" if both ends are equal."""
    unit, size = next(
        (
            (unit, size)
            for unit, size, most in (("s", 1, 100), ("min", 60, 6_000), ("h", 3_600, 172_800))
            if high < most
        ),
        ("d", 86_400),
    )
    return f"{between(figures(low / size, 2), figures(high / size, 2))} {unit}"


def between(low: str, high: str) -> str:
    """Formats a range: "1.5 to 2", or only "2" if both ends are equal."""
    return " to ".join(dict.fromkeys((low, high)))


def timing(seconds: float) -> str:
    """Formats a measured time: 0.12 s, 3.4 s, 2 min 10 s."""
    return f"{figures(seconds, 2)} s" if seconds < 10 else duration(seconds)


def counted(number: int, noun: str) -> str:
    """Formats a count with its noun: 1 trial, 1,200 trials."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def size(number: int) -> str:
    """Formats a number of bytes: 12 B, 3.4 kB, 9.1 MB, 1.2 GB."""
    value, units = float(number), ["B", "kB", "MB", "GB", "TB"]
    while value >= 999.5 and len(units) > 1:
        value /= 1000
        units.pop(0)
    return f"{figures(value, 2) if value < 99.5 else round(value)} {units[0]}"


def error(line: str) -> None:
    """Prints a message to stderr as a single line."""
    print(" ".join(part.strip() for part in line.splitlines() if part.strip()), file=sys.stderr, flush=True)
