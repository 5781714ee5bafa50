"""Implements the command `benchmarks/gpu`: its options, the order of its parts, and its results file."""

from __future__ import annotations

import argparse
import gc
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks import gpu_runs
from benchmarks.gpu_runs.cells import run_cells
from benchmarks.gpu_runs.pack import Pack, write_paper
from benchmarks.gpu_runs.pack import read as read_pack
from benchmarks.gpu_runs.throughput import QUICK, THOROUGH, WAYS, Effort, Setting, together
from benchmarks.timing import machine
from benchmarks.timing import plain as plain_values
from mvae.limits import cores
from mvae.refusal import Refusal
from mvae.storage.files import write_atomically

RESULTS = "gpu-results.json"
LOCKSTEP_MODELS = (1, 4, 16)
SPARE = 15.0
"""Seconds before the time limit at which the training of cells stops."""
COMPILED_FROM = 240.0
"""Seconds that must remain before a model is compiled. With less time left, cells are trained instead."""


class Session:
    """Collects the results, and writes them to disk after every part."""

    def __init__(self, out: Path, earlier: dict[str, Any]) -> None:
        self.out = out
        self.results: dict[str, Any] = {
            "machine": machine(),
            "throughput": {},
            "lockstep": {},
            "cells": [],
            "skipped": [],
        }
        if earlier.get("machine", self.results["machine"]) == self.results["machine"]:
            self.results.update({part: earlier[part] for part in ("throughput", "lockstep") if part in earlier})
        elif earlier:
            self.skip("speeds from the earlier call, because they are from another machine; measuring them again")
        self.results["cells"] = list(earlier.get("cells", []))

    def measured(self, part: str, label: str, way: str, make: Callable[[], Setting], effort: Effort) -> None:
        """Runs one measurement, unless its result exists already. Records an error instead of raising it."""
        place = self.results[part].setdefault(label, {})
        if way in place:
            return
        try:
            speeds = WAYS[way](make(), effort)
        except Exception as error:  # if one way of running fails, the others are still worth measuring
            self.skip(f"{label}, {way}: {type(error).__name__}: {' '.join(str(error).split())[:300]}")
        else:
            place.update(plain_values(speeds))
            print(f"{label}: {', '.join(f'{name} {speed:,.0f}/s' for name, speed in speeds.items())}", flush=True)
        gc.collect()
        self.save()

    def done(self, result: dict[str, Any]) -> None:
        """Adds the result of a trained cell, prints it, and saves."""
        self.results["cells"].append(result)
        trial, metrics = result["trial"], result["metrics"]
        print(
            f"{trial['model']} {trial['paired_fraction']:g} seed {trial['seed']} {trial['pairing']} {trial['targets']}:"
            f" {metrics['test/accuracy']:.4f} in {result['provenance']['seconds']:.0f} s",
            flush=True,
        )
        self.save()

    def skip(self, line: str) -> None:
        """Records and prints a line that names a skipped part and the reason."""
        print(f"skipped: {line}", flush=True)
        self.results["skipped"].append(line)

    def save(self) -> None:
        """Writes the current results to OUT/gpu-results.json."""
        write_atomically(self.out / RESULTS, json.dumps(self.results, indent=1).encode() + b"\n")


def measure_speeds(session: Session, pack: Pack, device: torch.device, effort: Effort, end: float) -> None:
    """Measures the speed of single models and of models in lockstep, for each way of running steps."""
    contenders: list[tuple[str, str, Callable[[], Setting]]] = [
        ("throughput", label, partial(Setting.of, packed, pack, device)) for label, packed in pack.timed.items()
    ]
    stackable = [one for one in pack.timed.values() if (one.trial.model, one.trial.image_network) == ("mvae", "mlp")]
    contenders += [
        ("lockstep", f"{models} models", partial(together, one, pack, models, device))
        for one in stackable[:1]
        for models in LOCKSTEP_MODELS
    ]
    if device.type != "cuda":
        session.skip("graphed and compiled steps: torch finds no GPU")
    for way in WAYS if device.type == "cuda" else ("eager",):
        for part, label, make in contenders:
            if way == "compiled" and part == "lockstep":
                continue
            if way == "compiled" and end - time.time() < COMPILED_FROM:
                session.skip(f"{label}, compiled: too little time left; run again to continue")
                continue
            session.measured(part, label, way, make, effort)


def train_cells(session: Session, pack: Pack, device: torch.device, options: argparse.Namespace, end: float) -> None:
    """Trains the cells that no earlier call has finished, until shortly before `end` (Unix seconds)."""
    finished = {result["key"] for result in session.results["cells"]}
    wanted = [one for one in pack.cells if one.key not in finished]
    processes = options.processes or (min(8, max(1, cores() // 2)) if device.type == "cuda" else 1)
    run_cells(
        pack,
        wanted,
        scratch=options.scratch,
        device=device,
        deadline=end - SPARE,
        processes=processes,
        done=session.done,
        failed=session.skip,
    )
    left = len(pack.cells) - len({result["key"] for result in session.results["cells"]})
    if left:
        session.skip(f"{left} of {len(pack.cells)} cells: out of time; run again to continue")


def run(options: argparse.Namespace, end: float) -> None:
    """Runs all parts, the most informative ones first.

    Raises:
        Refusal: there is no pack, or an earlier results file cannot be read.
    """
    torch.set_num_threads(1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    pack = read_pack(options.data)
    session = Session(options.out, _earlier(options.continue_from or options.out / RESULTS))
    print(f"{session.results['machine']}", flush=True)
    measure_speeds(session, pack, device, QUICK if options.quick else THOROUGH, end)
    train_cells(session, pack, device, options, end)
    session.save()
    print(f"{len(session.results['cells'])} of {len(pack.cells)} cells; {options.out / RESULTS}")


def take(results: Path, storage: Path, name: str) -> int:
    """Writes the cells of a gpu-results.json into a storage, as result files. Returns the number of cells."""
    from sweeps.store.results import Result, Results

    folder = Results(storage / name / "results")
    cells = _earlier(results).get("cells", [])
    for cell in cells:
        folder.write(Result(**cell))
    return len(cells)


def main(argv: Sequence[str]) -> int:
    """Runs the command line. Returns exit code 0, or 2 for invalid input."""
    end = time.time()
    options = _parser().parse_args(argv)
    end += 60 * options.minutes
    try:
        if options.pack:
            write_paper(options.pack, options.data_root, options.cache)
            size = sum(path.stat().st_size for path in options.pack.iterdir())
            print(f"{options.pack}: {size / 2**20:.1f} MiB")
        elif options.take:
            print(f"{take(options.take, options.storage, options.name)} results")
        elif options.out:
            options.out.mkdir(parents=True, exist_ok=True)
            run(options, end)
        else:
            raise Refusal("no action given: use --pack DIR, --out DIR or --take FILE")
    except Refusal as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    # argparse instead of the pipelines' typed options, which need pydantic; the GPU machine may not have it.
    parser = argparse.ArgumentParser(
        prog="benchmarks/gpu", description=gpu_runs.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    here = Path(__file__).resolve().parents[2] / ".gpu-pack"
    scratch = Path(tempfile.gettempdir()) / "mvae-gpu-runs"
    parser.add_argument(
        "--pack", type=Path, metavar="DIR", help="pack data and trials into this folder, and do nothing else"
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="measure and train, and write gpu-results.json to this folder"
    )
    parser.add_argument(
        "--take", type=Path, metavar="FILE", help="write the cells of this gpu-results.json into --storage"
    )
    parser.add_argument("--data", type=Path, metavar="DIR", default=here, help="packed folder (default: .gpu-pack)")
    parser.add_argument(
        "--continue-from", type=Path, metavar="FILE", help="gpu-results.json of an earlier call to continue"
    )
    parser.add_argument("--minutes", type=float, default=9.0, help="time limit in minutes (default: 9)")
    parser.add_argument(
        "--processes",
        type=int,
        help="number of concurrent trials (default: on a GPU, half the CPU cores, but at most 8; on a CPU, 1)",
    )
    parser.add_argument("--scratch", type=Path, default=scratch, help="folder for checkpoints of unfinished cells")
    parser.add_argument(
        "--quick", action="store_true", help="take only a few steps per measurement, to try the command"
    )
    parser.add_argument("--data-root", type=Path, help="with --pack: folder of raw data (default: $MVAE_DATA)")
    parser.add_argument("--cache", type=Path, help="with --pack: folder for converted data")
    parser.add_argument("--storage", type=Path, default=Path("runs"), help="with --take: storage (default: runs)")
    parser.add_argument("--name", default="main", help="with --take: name of the sweep in the storage (default: main)")
    return parser


def _earlier(file: Path) -> dict[str, Any]:
    if not file.exists():
        return {}
    try:
        content = json.loads(file.read_bytes())
    except ValueError as error:
        raise Refusal(f"{file} is not a valid gpu-results.json ({error}): move it to another folder") from None
    return dict(content)
