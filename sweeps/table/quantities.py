"""Builds tables with one row per quantity. The columns are often the values of one setting of the trials."""

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
"""Data sets whose default network is a DCGAN. Demos replace the DCGAN with an MLP, which trains on a CPU in minutes
instead of hours. Networks of other data sets, for example those of a plug-in, are never replaced."""


@dataclass(frozen=True)
class ShownQuantity:
    """A quantity to show in a table, and the measure that computes the quantity."""

    label: str
    metric: str
    measure: Measure
    column: str = ""
    """The column that shows the quantity; empty: the trial's column."""

    def row(self, variant: str) -> str:
        return f"{variant} {self.label}"


@dataclass(frozen=True)
class TrialAt:
    """A trial, with its variant and its column in the table."""

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
    """Returns the variants of the trained models, each only once, in order of first appearance."""
    return tuple(dict.fromkeys(one.variant for one in trained))


def arm_title(token: str, dataset: str) -> str:
    """Returns an arm's title, followed by the number of modalities if there are more than two: MVAE19."""
    modalities = len(source(dataset).modalities)
    return f"{arm(token).title}{modalities if modalities > 2 else ''}"


def readings(token: str, asked: Sequence[Targets]) -> list[tuple[Targets, str]]:
    """Returns one pair per row of an arm: the setting `targets`, and the suffix of the row's title, such as " (own)".

    An arm that ignores the setting `targets` has one row, without a suffix.
    """
    if "targets" not in arm(token).reads:
        return [("own", "")]
    return [(targets, f" ({targets})") for targets in asked]


def quick_network(dataset: str) -> str | None:
    """Returns the image network for a short demo: `mlp` for data sets in `SLOW`, else None (the data set's default)."""
    return "mlp" if dataset in SLOW else None


def check_reads(token: str, name: str, what: str) -> None:
    """Raises an error if an arm ignores a field of the trial.

    Args:
        name: name of the field.
        what: says what the arm cannot do, for example "samples no subsets of modalities".
    Raises:
        Refusal: the arm ignores the field. The message names the arms that use the field.
    """
    if name not in arm(token).reads:
        able = ", ".join(other for other, known in ARMS.items() if name in known.reads)
        raise Refusal(f"arm {token} {what}: choose among {able}")
