"""Real output of commands, docs/output/*.txt, as blocks; the demo's in short too."""

from __future__ import annotations

from docs.report.sources import Sources

CUT = "..."


def figures(sources: Sources) -> dict[str, str]:
    """Every file as `output.NAME`, and of the demo what a README has room for."""
    outputs = sorted((sources.root / "docs" / "output").glob("*.txt"))
    demo, again = (sources.output(name).splitlines() for name in ("demo", "demo-again"))
    return {
        **{f"output.{path.stem}": sources.output(path.stem) for path in outputs},
        "output.demo.short": "\n".join(shortened(demo)),
        "output.demo.again": "\n".join([*again[:2], f"{CUT} the same table", again[-1]]),
    }


def shortened(block: list[str]) -> list[str]:
    """Of a sweep's output the first and the last trials, the table with its caption, and where the report is.

    Args:
        block: its lines, with the fences of the block around them.
    """
    trials = [number for number, line in enumerate(block) if line.startswith("[")]
    begins = next(number for number, line in enumerate(block) if line.startswith("Ours: "))
    after = block.index("", begins)  # a long caption takes several lines
    return [
        *block[: trials[2]],
        CUT,
        *block[trials[-2] : after],
        CUT,
        *block[-3:],
    ]
