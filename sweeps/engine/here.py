"""The machine that the command runs on, as plans price it."""

from __future__ import annotations

from mvae.limits import cores
from sweeps.engine.attach import address
from sweeps.planning.demand import Capacity, Gpus, free_for_trials
from sweeps.planning.price import Host
from sweeps.store.provenance import device_name


def this_host(wanted: Gpus) -> Host:
    """The machine that this process runs on.

    Args:
        wanted: GPUs of a trial, as asked for.
    """
    import torch

    gpus = torch.cuda.device_count()
    kind = "cuda" if gpus and wanted != 0 else "cpu"
    if address():
        return Host(Capacity(cores(), gpus), kind, None)
    return Host(Capacity(cores(), gpus, memory=free_for_trials()), kind, device_name(kind))
