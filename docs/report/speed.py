"""Speed: the numbers of benchmarks/results/*.json that docs/speed.md shows."""

from __future__ import annotations

from typing import Any

from docs.report.sources import Sources, holds
from sweeps.table.markdown import markdown_table


def figures(sources: Sources) -> dict[str, str]:
    """Every speed that documents show, by name."""
    return {
        **_training(sources.benchmark("training-cpu")),
        **_orchestration(sources.benchmark("orchestration-cpu")),
        **_likelihood(sources.benchmark("likelihood-cpu")),
        **_many(sources.benchmark("many-modalities-cpu")),
        **_scaling(sources.benchmark("scaling-cpu")),
        **_gpu(sources.benchmark("gpu-h200")),
        "speed.machines": _machines(sources),
    }


def _spread(name: str, spread: dict[str, float], decimals: int) -> dict[str, str]:
    shown = {"median": spread["median"], "low": spread["low"], "high": spread["high"]}
    return {name if part == "median" else f"{name}.{part}": f"{value:.{decimals}f}" for part, value in shown.items()}


def _training(found: Any) -> dict[str, str]:
    mlp, dcgan = found["compared"]
    released, loaded = (mlp[name]["median"] for name in ("released", "loaded"))
    holds(released < found["claim"] <= loaded, "only images in memory miss the benchmark's target")
    return {
        **_spread("speed.step.ms", mlp["ours_ms"], 0),
        **_spread("speed.step.loaded", mlp["loaded"], 2),
        **_spread("speed.step.released", mlp["released"], 2),
        **_spread("speed.dcgan.loaded", dcgan["loaded"], 2),
        **_spread("speed.dcgan.released", dcgan["released"], 2),
        "speed.step.claim": f"{found['claim']:.1f}",
    }


def _orchestration(found: Any) -> dict[str, str]:
    runs = found["trivial"]
    each = sorted(run["a_trial"] for run in runs)
    cpu, start = ([run[name] for run in runs] for name in ("a_trial_cpu", "start"))
    assert len({run["trials"] for run in runs}) == 1
    return {
        "speed.engine.trials": str(runs[0]["trials"]),
        "speed.engine.repeats": str(len(runs)),
        "speed.engine.each": ", ".join(f"{seconds:.2f}" for seconds in each),
        "speed.engine.cpu.low": f"{min(cpu):.2f}",
        "speed.engine.cpu.high": f"{max(cpu):.2f}",
        "speed.engine.start.low": f"{min(start):.0f}",
        "speed.engine.start.high": f"{max(start):.0f}",
        "speed.engine.again": f"{max(run['again'] for run in runs):.0f}",
    }


def _likelihood(found: Any) -> dict[str, str]:
    mlp, dcgan = found["compared"]
    holds(0 < found["claim"] - mlp["literal"]["median"] < 0.5, "the literal loop just misses the benchmark's target")
    holds(abs(mlp["batched"]["median"] - 1) < 0.1, "a loop over 100 images is about as fast with the MLP")
    holds(dcgan["batched"]["median"] < 1, "a loop over 100 images is faster with the DCGAN")
    return {
        **_spread("speed.likelihood.ms", mlp["ours_ms"], 0),
        **_spread("speed.likelihood.literal", mlp["literal"], 1),
        **_spread("speed.likelihood.batched", mlp["batched"], 2),
        **_spread("speed.likelihood.dcgan.ms", dcgan["ours_ms"], 0),
        **_spread("speed.likelihood.dcgan.literal", dcgan["literal"], 1),
        **_spread("speed.likelihood.dcgan.batched", dcgan["batched"], 2),
        "speed.likelihood.samples": f"{mlp['samples']:,}",
        "speed.likelihood.claim": f"{found['claim']:g}",
    }


def _many(found: Any) -> dict[str, str]:
    small, large = found["compared"]["lines"]
    growth = found["compared"]["growth"]
    return {
        **_spread("speed.many.ms", large["ours_ms"], 0),
        **_spread("speed.many.every", large["every"], 1),
        **_spread("speed.many.given", large["given"], 1),
        **_spread("speed.many.small.given", small["given"], 1),
        "speed.many.at_0": f"{growth['ours_ms'][0]['median']:.0f}",
        "speed.many.term": f"{growth['term_ms']:.1f}",
        "speed.many.fit": f"{growth['r_squared']:.3f}",
        "speed.many.gib": f"{found['compared']['peak_gib']:.1f}",
    }


def _scaling(found: Any) -> dict[str, str]:
    figures: dict[str, str] = {}
    for one in found["compared"]:
        figures |= _spread(f"speed.scaling.{one['batch']}", one["ratio"], 2)
    return figures


WAYS = {
    "eager": "eager",
    "graphed": "recorded",
    "replayed": "replay only",
    "compiled": "torch.compile",
}


def _gpu(found: Any) -> dict[str, str]:
    """Throughput on the GPU, and the speed-up of recorded steps."""
    speeds, lockstep = found["throughput"], found["lockstep"]
    lines = [[label, *(f"{ways[way]:,.0f}" if way in ways else "-" for way in WAYS)] for label, ways in speeds.items()]
    times = [ways["graphed"] / ways["eager"] for ways in speeds.values()]
    compiled = [(ways["compiled"], ways["eager"]) for ways in speeds.values() if "compiled" in ways]
    holds(all(slow < fast for slow, fast in compiled), "--compile slows such small networks down on a GPU")
    return {
        "speed.gpu.table": markdown_table(["examples per second"], list(WAYS.values()), lines),
        "speed.gpu.times.low": f"{min(times):.1f}",
        "speed.gpu.times.high": f"{max(times):.1f}",
        "speed.gpu.lockstep": f"{lockstep['16 models']['graphed'] / speeds['mvae mnist mlp']['graphed']:.1f}",
        "speed.gpu.name": found["machine"]["gpu"],
    }


def _machines(sources: Sources) -> str:
    """The machine behind each file."""
    lines = []
    for path in sorted((sources.root / "benchmarks" / "results").glob("*.json")):
        found = sources.benchmark(path.stem)
        machine, versions = found.get("machine", {}), found.get("versions", {})
        processor = machine.get("gpu") or machine.get("processor") or machine.get("cpu") or "not recorded"
        torch = machine.get("torch") or versions.get("torch") or found.get("torch", "not recorded")
        lines.append([f"`benchmarks/results/{path.name}`", processor, f"torch {torch}"])
    return markdown_table(["file", "processor", "software"], [], lines)
