"""Derives the tables and values of docs/speed.md from benchmarks/results/, and checks the page's sentences."""

from __future__ import annotations

from typing import Any

from docs.report.sources import Sources, Value, holds, span_of
from sweeps.table.markdown import markdown_table

WAYS = {"eager": "eager", "graphed": "recorded", "replayed": "replay only", "compiled": "torch.compile"}
"""Ways to run a step on a GPU, and their names on the page."""


def figures(sources: Sources) -> dict[str, Value]:
    """Returns the tables and the derived values of docs/speed.md, by name."""
    benchmarks = sources.benchmarks()
    training, likelihood = benchmarks["training-cpu"], benchmarks["likelihood-cpu"]
    released, loaded = (training["compared"][0][name]["median"] for name in ("released", "loaded"))
    holds(released < training["claim"] <= loaded, "only images in memory miss the benchmark's target")
    mlp, dcgan = likelihood["compared"]
    missed = likelihood["claim"] - mlp["literal"]["median"]
    holds(0 < missed < 0.5, "the literal loop just misses the benchmark's target")
    holds(abs(mlp["batched"]["median"] - 1) < 0.1, "a loop over 100 images is about as fast with the MLP")
    holds(dcgan["batched"]["median"] < 1, "a loop over 100 images is faster with the DCGAN")
    speeds = benchmarks["gpu-h200"]["throughput"]
    compiled = [ways["compiled"] < ways["eager"] for ways in speeds.values() if "compiled" in ways]
    holds(all(compiled), "--compile slows such small networks down on a GPU")

    runs = benchmarks["orchestration-cpu"]["trivial"]
    assert len({run["trials"] for run in runs}) == 1
    medians, bars = (benchmarks["orchestration-cpu"][name] for name in ("medians", "bars"))
    holds(medians["a_trial_cpu"] <= bars["a_trial_cpu"], "the overhead per trial meets its target")
    holds(medians["first_step_ratio"] <= bars["first_step_ratio"], "the start meets its target")
    lines = [[label, *(f"{ways[way]:,.0f}" if way in ways else "-" for way in WAYS)] for label, ways in speeds.items()]
    scaling = {one["batch"]: one["ratio"] for one in benchmarks["scaling-cpu"]["compared"]}
    lockstep = benchmarks["gpu-h200"]["lockstep"]["16 models"]["graphed"]
    return {
        "speed.engine.repeats": len(runs),
        "speed.engine.each": ", ".join(f"{seconds:.2f}" for seconds in sorted(run["a_trial"] for run in runs)),
        **span_of("speed.engine.cpu", [run["a_trial_cpu"] for run in runs]),
        **span_of("speed.engine.start", [run["start"] for run in runs]),
        **span_of("speed.engine.first_step", [run["first_step_cpu"] for run in runs]),
        **span_of("speed.engine.end_cpu", [run["end_cpu"] for run in runs]),
        **span_of("speed.engine.load", [run["load"] for run in runs]),
        "speed.engine.again": max(run["again"] for run in runs),
        **{f"speed.scaling.{batch}.{part}": ratio[part] for batch, ratio in scaling.items() for part in ratio},
        "speed.gpu.table": markdown_table(["examples per second"], list(WAYS.values()), lines),
        **span_of("speed.gpu.times", [ways["graphed"] / ways["eager"] for ways in speeds.values()]),
        "speed.gpu.lockstep": lockstep / speeds["mvae mnist mlp"]["graphed"],
        "speed.plans.table": _plans(benchmarks["estimates-cpu"]["plans"]),
        "speed.machines": _machines(benchmarks),
    }


def _plans(plans: dict[str, Any]) -> str:
    """Returns a Markdown table of planned and measured seconds, with the load before the plan and after the command."""
    lines = [
        [
            *(name, f"{one['low']:.0f} to {one['high']:.0f}", f"{one['taken']:.0f}", "yes" if one["holds"] else "no"),
            f"{one['load_before']:.0f} to {one['load_after']:.0f}",
        ]
        for name, one in plans.items()
    ]
    return markdown_table(["plan"], ["planned, s", "taken, s", "in the range", "load"], lines)


def _machines(benchmarks: dict[str, Any]) -> str:
    """Returns a Markdown table of the processor and the torch version of each benchmark."""
    lines = []
    for name, found in benchmarks.items():
        machine, versions = found.get("machine", {}), found.get("versions", {})
        processor = machine.get("gpu") or machine.get("processor") or machine.get("cpu") or "not recorded"
        torch = machine.get("torch") or versions.get("torch") or found.get("torch", "not recorded")
        lines.append([f"`benchmarks/results/{name}.json`", processor, f"torch {torch}"])
    return markdown_table(["file", "processor", "software"], [], lines)
