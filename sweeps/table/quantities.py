"""Tables whose rows are quantities, one under the other; columns are often what the trials were trained with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mvae.data import source
from mvae.measure import Measure
from mvae.models import ARMS, arm
from mvae.refusal import Refusal
from mvae.settings import Targets
from mvae.trial import Trial
from sweeps.planning.plan import Cell

SLOW = frozenset({"fashion_mnist", "vision", "vision_faces", "vision_faces_small", "vision_images"})
"""Our data sets whose own network is a DCGAN and whose demo trains an MLP: minutes of a CPU instead of hours. The
network of any other data set, for example a plug-in's, is never replaced."""


@dataclass(frozen=True)
class ShownQuantity:
    """A quantity that a measure gives."""

    label: str
    """What the row's heading calls it."""
    metric: str
    measure: Measure
    column: str = ""
    """The column that it fills; empty: the trial's own."""

    def row(self, variant: str) -> str:
        return f"{variant} {self.label}"


@dataclass(frozen=True)
class TrialAt:
    """A trial, and where it stands."""

    variant: str
    """What is trained, one row of every quantity: MVAE19, or MVAE19 fixed noise."""
    column: float | str
    trial: Trial


def quantity_cells(shown: Iterable[ShownQuantity], trained: Sequence[TrialAt]) -> tuple[Cell, ...]:
    """Each quantity of each trial; rows are quantities, and of each quantity what is trained."""
    return tuple(
        Cell(
            row=quantity.row(one.variant),
            column=quantity.column or one.column,
            trial=one.trial,
            measure=quantity.measure,
            published=None,
            arm=one.trial.model,
            quantity=quantity.metric,
            variant=one.variant,
        )
        for quantity in shown
        for one in trained
    )


def variants(trained: Iterable[TrialAt]) -> tuple[str, ...]:
    """What is trained, each once."""
    return tuple(dict.fromkeys(one.variant for one in trained))


def arm_title(token: str, dataset: str) -> str:
    """MVAE19: an arm's title, with the number of modalities where there are more than two."""
    modalities = len(source(dataset).modalities)
    return f"{arm(token).title}{modalities if modalities > 2 else ''}"


def readings(token: str, asked: Sequence[Targets]) -> list[tuple[Targets, str]]:
    """The targets that an arm is trained with, and what each adds to the row's title: " (own)", " (all)".

    An arm that does not read `targets` is one row without an addition.
    """
    if "targets" not in arm(token).reads:
        return [("own", "")]
    return [(targets, f" ({targets})") for targets in asked]


def quick_network(dataset: str) -> str | None:
    """The image network of a short demo: mlp for a data set in `SLOW`, else None, which is the data set's own."""
    return "mlp" if dataset in SLOW else None


def check_reads(token: str, name: str, what: str) -> None:
    """Refuses an arm on which a field of the trial has no effect.

    Args:
        what: the arm does not do, where it does not read the field: samples subsets.
    Raises:
        Refusal: the line names the arms that do.
    """
    if name not in arm(token).reads:
        able = ", ".join(other for other, known in ARMS.items() if name in known.reads)
        raise Refusal(f"arm {token} {what}: choose among {able}")
