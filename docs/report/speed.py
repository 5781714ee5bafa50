"""Speed: what docs/speed.md derives from several numbers of a benchmark, its sentences, and its two tables.

Single numbers have the addresses `benchmarks.FILE.PATH`.
"""

from __future__ import annotations

from docs.report.sources import Sources, Value, holds
from sweeps.table.markdown import markdown_table

WAYS = {"eager": "eager", "graphed": "recorded", "replayed": "replay only", "compiled": "torch.compile"}
"""Ways to run a step on a GPU, and what the page calls them."""


def figures(sources: Sources) -> dict[str, Value]:
    """Every derived speed by name."""
    found = sources.benchmarks()
    training, likelihood = found["training-cpu"], found["likelihood-cpu"]
    released, loaded = (training["compared"][0][name]["median"] for name in ("released", "loaded"))
    holds(released < training["claim"] <= loaded, "only images in memory miss the benchmark's target")
    mlp, dcgan = likelihood["compared"]
    missed = likelihood["claim"] - mlp["literal"]["median"]
    holds(0 < missed < 0.5, "the literal loop just misses the benchmark's target")
    holds(abs(mlp["batched"]["median"] - 1) < 0.1, "a loop over 100 images is about as fast with the MLP")
    holds(dcgan["batched"]["median"] < 1, "a loop over 100 images is faster with the DCGAN")

    runs = found["orchestration-cpu"]["trivial"]
    assert len({run["trials"] for run in runs}) == 1
    cpu, start = ([run[name] for run in runs] for name in ("a_trial_cpu", "start"))

    speeds, lockstep = found["gpu-h200"]["throughput"], found["gpu-h200"]["lockstep"]
    times = [ways["graphed"] / ways["eager"] for ways in speeds.values()]
    compiled = [ways["compiled"] < ways["eager"] for ways in speeds.values() if "compiled" in ways]
    holds(all(compiled), "--compile slows such small networks down on a GPU")
    lines = [[label, *(f"{ways[way]:,.0f}" if way in ways else "-" for way in WAYS)] for label, ways in speeds.items()]
    machines = []
    for name, one in found.items():
        machine, versions = one.get("machine", {}), one.get("versions", {})
        processor = machine.get("gpu") or machine.get("processor") or machine.get("cpu") or "not recorded"
        torch = machine.get("torch") or versions.get("torch") or one.get("torch", "not recorded")
        machines.append([f"`benchmarks/results/{name}.json`", processor, f"torch {torch}"])
    return {
        "speed.engine.repeats": len(runs),
        "speed.engine.each": ", ".join(f"{seconds:.2f}" for seconds in sorted(run["a_trial"] for run in runs)),
        "speed.engine.cpu.low": min(cpu),
        "speed.engine.cpu.high": max(cpu),
        "speed.engine.start.low": min(start),
        "speed.engine.start.high": max(start),
        "speed.engine.again": max(run["again"] for run in runs),
        **{
            f"speed.scaling.{one['batch']}.{part}": value
            for one in found["scaling-cpu"]["compared"]
            for part, value in one["ratio"].items()
        },
        "speed.gpu.table": markdown_table(["examples per second"], list(WAYS.values()), lines),
        "speed.gpu.times.low": min(times),
        "speed.gpu.times.high": max(times),
        "speed.gpu.lockstep": lockstep["16 models"]["graphed"] / speeds["mvae mnist mlp"]["graphed"],
        "speed.machines": markdown_table(["file", "processor", "software"], [], machines),
    }
