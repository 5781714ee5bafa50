"""Builds tables whose rows are quantities; the columns are often a setting of the trials."""

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
"""Data sets whose default network is a DCGAN. Demos replace it by an MLP, which trains in minutes on a CPU, not in
hours. Networks of other data sets, for example of a plug-in's, are never replaced."""


@dataclass(frozen=True)
class ShownQuantity:
    """A quantity that a measure computes."""

    label: str
    metric: str
    measure: Measure
    column: str = ""
    """The column that shows the quantity; empty: the trial's column."""

    def row(self, variant: str) -> str:
        return f"{variant} {self.label}"


@dataclass(frozen=True)
class TrialAt:
    """A trial with its place in the table."""

    variant: str
    """Description of the trained model, for example "MVAE19 fixed noise". Each variant has one row per quantity."""
    column: float | str
    trial: Trial


def quantity_cells(shown: Iterable[ShownQuantity], trained: Sequence[TrialAt]) -> tuple[Cell, ...]:
    """Returns one cell per quantity and trial. Rows are ordered by quantity, then by variant."""
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
    """Returns each variant once."""
    return tuple(dict.fromkeys(one.variant for one in trained))


def arm_title(token: str, dataset: str) -> str:
    """Returns an arm's title, followed by the number of modalities if there are more than two: MVAE19."""
    modalities = len(source(dataset).modalities)
    return f"{arm(token).title}{modalities if modalities > 2 else ''}"


def readings(token: str, asked: Sequence[Targets]) -> list[tuple[Targets, str]]:
    """Returns the targets to train an arm with, each with the suffix of its row's title: " (own)", " (all)".

    An arm that does not read `targets` has one row without a suffix.
    """
    if "targets" not in arm(token).reads:
        return [("own", "")]
    return [(targets, f" ({targets})") for targets in asked]


def quick_network(dataset: str) -> str | None:
    """Returns the image network for a short demo: mlp for data sets in `SLOW`, else None (the data set's default)."""
    return "mlp" if dataset in SLOW else None


def check_reads(token: str, name: str, what: str) -> None:
    """Refuses an arm that does not read a field of the trial.

    Args:
        name: the field.
        what: says what the arm cannot do, for example "samples no subsets of modalities".
    Raises:
        Refusal: the arm does not read the field. The message names the arms that read it.
    """
    if name not in arm(token).reads:
        able = ", ".join(other for other, known in ARMS.items() if name in known.reads)
        raise Refusal(f"arm {token} {what}: choose among {able}")
