"""Measures the precision of the image expert and of the label expert in each latent dimension of trained MVAEs.

Type    python -m benchmarks.expert_precisions --storage DIR                 every finished MVAE in the storage
        python -m benchmarks.expert_precisions --storage DIR --out FILE      also writes the numbers as JSON

An expert's precision in a latent dimension is its weight in the product of experts (Lemma 2.1). The prior's precision
is 1. The label expert may be precise in dimensions in which the image expert is not. An image then contains no
information about these dimensions, and the decoder cannot predict the label from the mean of q(z | image).

Precisions are means over the test split, from the final weights of each trial. docs/table4.md uses the numbers.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from pydantic_settings import BaseSettings, CliApp, SettingsConfigDict

from mvae.data import Dataset, Kind, load
from mvae.evaluation.accuracy import evaluated
from mvae.measure import ACCURACY
from mvae.models import arm
from mvae.models.multimodal import Multimodal
from mvae.refusal import Refusal
from mvae.storage.files import write_atomically
from mvae.trial import Trial
from sweeps.store.results import Result
from sweeps.store.store import Store

CHUNK = 1000
"""Test examples per encoder call."""

LABEL_DIMENSION = 1.0
"""Least precision of the label expert in a latent dimension of the label. The prior's precision is 1."""


class Options(BaseSettings):
    """Precision of the image expert and of the label expert per latent dimension"""

    model_config = SettingsConfigDict(cli_kebab_case=True, cli_hide_none_type=True, use_attribute_docstrings=True)

    storage: Path
    """Folder of a finished sweep."""
    name: str = "main"
    """Name of the sweep in the storage."""
    data_root: Path | None = None
    """Folder with the raw files (default: $MVAE_DATA)."""
    cache: Path | None = None
    """Folder for the converted data (default: ~/.cache/mvae)."""
    out: Path | None = None
    """JSON file for the numbers."""


@dataclass(frozen=True)
class Precisions:
    """Precisions of the image expert and of the label expert of one trained MVAE."""

    key: str
    targets: str
    pairing: str
    paired_fraction: float
    label_weight: float
    final_beta: float
    """Beta at the last step."""
    seed: int
    accuracy: float
    """Accuracy on the test split."""
    image: tuple[float, ...]
    """Mean precision of the image expert per latent dimension, in the same order as `label`."""
    label: tuple[float, ...]
    """Mean precision of the label expert per latent dimension, in descending order."""

    @property
    def label_dimensions(self) -> int:
        """Number of dimensions in which the label expert's precision is at least LABEL_DIMENSION."""
        return sum(precision >= LABEL_DIMENSION for precision in self.label)

    @property
    def image_there(self) -> float:
        """Mean precision of the image expert in the dimensions counted by `label_dimensions`; nan if there are none."""
        held = self.image[: self.label_dimensions]
        return sum(held) / len(held) if held else float("nan")


@torch.no_grad()
def precisions(model: Multimodal, data: Dataset) -> tuple[list[float], list[float]]:
    """Returns the mean precisions [D] on the test split, of the image expert and of the label expert.

    Both lists are in descending order of the label expert's precision.
    """
    image, label = model.index(Kind.IMAGE), model.index(Kind.LABEL)
    totals = torch.zeros(2, model.latents, dtype=torch.float64)
    with evaluated(model):
        for rows in torch.split(torch.arange(len(data.test)), CHUNK):
            for place, modality in enumerate((image, label)):
                _, log_var = model.encode(modality, data.test.take(modality, rows))
                totals[place] += torch.exp(-log_var.double()).sum(0)
    of_image, of_label = totals / len(data.test)
    order = of_label.argsort(descending=True)
    return of_image[order].tolist(), of_label[order].tolist()


def measure(options: Options) -> list[Precisions]:
    """Returns the precisions of every finished MVAE of images and labels in the storage.

    Raises:
        Refusal: the storage has no finished MVAE of images and labels, or its final weights are missing.
    """
    store = Store.open(options.storage, options.name, create=False)
    found = [result for result in store.results if result.trial["model"] == "mvae" and result.measure == ACCURACY.token]
    if not found:
        raise Refusal(f"{store.folder} holds no finished MVAE: run pipelines/weak_supervision.py --arms mvae first")
    return [_of(result, store, options) for result in found]


def _of(result: Result, store: Store, options: Options) -> Precisions:
    trial = Trial.create(**result.trial)
    data = load(trial.dataset, options.data_root, options.cache)
    model = arm(trial.model).build(trial, data.modalities)
    assert isinstance(model, Multimodal)
    checkpoints = store.checkpoints(result.key)
    final = checkpoints.latest()
    if final is None:
        raise Refusal(f"the final weights of {result.key} are missing in {store.folder}")
    model.load_state_dict(checkpoints.load(final, "model.pt"))
    image, label = precisions(model, data)
    return Precisions(
        key=result.key,
        targets=trial.targets,
        pairing=trial.pairing,
        paired_fraction=trial.paired_fraction,
        label_weight=trial.label_weight,
        final_beta=trial.final_beta,
        seed=trial.seed,
        accuracy=result.metrics[ACCURACY.metric],
        image=tuple(float(f"{value:.4g}") for value in image),
        label=tuple(float(f"{value:.4g}") for value in label),
    )


def main(options: Options) -> None:
    """Runs the benchmark, prints the results, and writes them to `--out` if given."""
    found = sorted(measure(options), key=lambda one: (one.targets, one.paired_fraction, one.label_weight, one.seed))
    print(f"{'targets':<9}{'pairs':>7}{'weight':>8}{'beta':>6}{'accuracy':>10}{'label dims':>12}{'image there':>13}")
    for one in found:
        print(
            f"{one.targets:<9}{one.paired_fraction:>7g}{one.label_weight:>8g}{one.final_beta:>6g}"
            f"{one.accuracy:>10.3f}{one.label_dimensions:>12}{one.image_there:>13.2f}"
        )
    if options.out:
        about = {"torch": torch.__version__, "device": "cpu", "trials": [asdict(one) for one in found]}
        write_atomically(options.out, (json.dumps(about, indent=1) + "\n").encode())


if __name__ == "__main__":
    main(CliApp.run(Options))
