"""How our trials were set up beside what the paper says, in words computed from the trials themselves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from mvae.data import Kind, source
from mvae.evaluation.measurable import PREDICTED
from mvae.models import arm
from mvae.trial import Trial
from sweeps.planning.plan import Cell
from sweeps.table.published import Table

NAMES = {
    "image_network": "image network",
    "decoder_hidden": "hidden layers of MLP decoders",
    "batch_size": "batch size",
    "learning_rate": "learning rate",
    "label_weight": "label weight",
    "text_weight": "text weight",
    "attribute_weight": "attribute weight",
    "train_examples": "training examples",
    "vocabulary": "known words",
    "annealing": "epochs of annealing",
    "final_beta": "beta at the end",
}
"""Protocol fields whose words differ from their names."""

EXCEPTIONS = 2
"""Rows that differ from the others are named if there are at most this many."""

NAMED = 3
"""Rows, or arms, that read a field, or that do not, are named if there are at most this many."""

WITHOUT_A_TABLE = (
    "epochs",
    "train_examples",
    "image_network",
    "seeds",
    "pairing",
    "targets",
    "k",
    "label_weight",
    "text_weight",
    "attribute_weight",
    "vocabulary",
    "binarisation",
    "samples",
)
"""What a reader wants to know of a table that has no published one beside it."""


def protocol_lines(cells: Sequence[Cell], table: Table | None) -> list[str]:
    """Where our set-up differs from the published one, and what that one leaves open.

    A field counts for the rows whose arm reads it; a field that differs between rows is given row by row. A field that
    differs along a row is what the columns are, and is left out.

    Returns:
        One line a kind of statement, none for a kind without members.
    """
    if table is None:
        own = _line("Ours", [_ours(name, cells) for name in WITHOUT_A_TABLE])
        return [*own, *_other_networks(cells), *_one_of_several(cells)]
    differing = [
        f"{ours} (paper {_text(stated)})"
        for name, stated in table.protocol.items()
        if any(value != stated for _, value in _values(name, cells)) and (ours := _ours(name, cells))
    ]
    agreeing = [
        _ours(name, cells)
        for name, stated in table.protocol.items()
        if _values(name, cells) and all(value == stated for _, value in _values(name, cells))
    ]
    fewer = _ours("train_examples", cells)  # without a stated number, the paper's trials see all
    return [
        *_line("Differs from the paper", [*differing, f"{fewer} (paper all)" if fewer else ""]),
        *_line("As in the paper", agreeing),
        *_line("Ours, where the paper is silent", [_ours(name, cells) for name in table.unstated]),
        *([] if "image_network" in table.protocol else _other_networks(cells)),
        *_one_of_several(cells),
    ]


def remarks(cells: Sequence[Cell], *, network_given: bool) -> tuple[str, ...]:
    """Returns what a user should know before trials start, one line each: choices that nobody typed.

    Args:
        network_given: whether the user has chosen the image network.
    """
    return (*([] if network_given else _other_networks(cells)), *_one_of_several(cells))


def departures(members: Sequence[Cell], of_row: Sequence[Cell], table: Table) -> tuple[str, ...]:
    """Where one cell's trials differ from the published protocol: epochs 10 (paper 100).

    Args:
        members: the cell's seeds.
        of_row: all cells of its row; a number of training examples that differs along the row is what the columns are.
    """
    found = []
    for name, stated in table.protocol.items():
        values = list(dict.fromkeys(value for _, value in _values(name, members) if value != stated))
        if values:
            found.append(f"{NAMES.get(name, name)} {', '.join(map(_text, values))} (paper {_text(stated)})")
    if fewer := _ours("train_examples", of_row):
        found.append(f"{fewer} (paper all)")
    return tuple(found)


def _other_networks(cells: Sequence[Cell]) -> list[str]:
    """Image networks that are not the data set's own."""
    own = {cell.trial: source(cell.trial.dataset).defaults.image_network for cell in cells}
    lines = (
        f"Image network {trial.image_network} in place of {network}, {trial.dataset}'s own."
        for trial, network in own.items()
        if "image_network" in trial.hashed_fields() and trial.image_network != network
    )
    return list(dict.fromkeys(lines))


def _one_of_several(cells: Sequence[Cell]) -> list[str]:
    """Data sets with several images, or several labels, of which a measure uses the first."""
    lines = dict[str, None]()
    for dataset, measure in dict.fromkeys((cell.trial.dataset, cell.measure.name) for cell in cells):
        names: dict[Kind, list[str]] = {}
        for modality in source(dataset).modalities:
            names.setdefault(modality.kind, []).append(modality.name)
        predicted = {"accuracy": Kind.TEXT if Kind.TEXT in names else Kind.LABEL, "readout": Kind.LABEL}.get(measure)
        given = names.get(Kind.IMAGE, []) if measure in PREDICTED else []
        target = [] if predicted is None else names.get(predicted, [])
        if len(given) > 1:
            lines[f"Predicted from {given[0]} alone, of {dataset}'s images {', '.join(given)}."] = None
        if len(target) > 1:
            lines[f"Predicted is {target[0]} alone, of {dataset}'s {predicted}s {', '.join(target)}."] = None
    return list(lines)


def _line(head: str, parts: Iterable[str]) -> list[str]:
    said = [part for part in parts if part]
    return [f"{head}: {'; '.join(said)}."] if said else []


def _ours(name: str, cells: Sequence[Cell]) -> str:
    """Name and value of a field: one for all rows, or most rows' with the exceptions, or the values there are.

    Rows whose arm does not read the field are named, or else the rows whose arm does, whichever are few. Empty if the
    field differs along a row, or if no row reads it; `k` also if it is 0 everywhere.
    """
    rows_by_value: dict[Any, dict[str, None]] = {}
    for row, value in _values(name, cells):
        rows_by_value.setdefault(value, {})[row] = None
    rows = [row for those in rows_by_value.values() for row in those]
    if not rows or len(set(rows)) < len(rows) or (name == "k" and set(rows_by_value) == {0}):
        return ""
    every = list(dict.fromkeys(cell.row for cell in cells))
    readers, without = _called(rows, cells), _called([row for row in every if row not in rows], cells)
    if without and len(readers) <= min(NAMED, len(without)):
        said = ", ".join(f"{_text(value)} in {_and(_called(those, cells))}" for value, those in rows_by_value.items())
        return f"{NAMES.get(name, name)} {said}"
    (most, _), *others = sorted(rows_by_value.items(), key=lambda item: -len(item[1]))
    if sum(len(rows) for _, rows in others) <= EXCEPTIONS:
        said = ", ".join([_text(most), *(f"but {_text(value)} in {' and '.join(rows)}" for value, rows in others)])
    else:
        said = f"by row ({', '.join(map(_text, rows_by_value))})"
    if without:
        said += f", none in {_and(without)}" if len(without) <= NAMED else f", in {len(rows)} of {len(every)} rows"
    return f"{NAMES.get(name, name)} {said}"


def _called(rows: Iterable[str], cells: Sequence[Cell]) -> list[str]:
    """Rows in few words: several rows by their arm's title, if they are all that the arm has."""
    of_arm: dict[str, set[str]] = {}
    for cell in cells:
        of_arm.setdefault(cell.trial.model, set()).add(cell.row)
    chosen = list(rows)
    whole = {token: those for token, those in of_arm.items() if len(those) > 1 and those <= set(chosen)}
    titles = {row: arm(token).title for token, those in whole.items() for row in those}
    return list(dict.fromkeys(titles.get(row, row) for row in chosen))


def _and(names: Sequence[str]) -> str:
    """A, B and C."""
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _values(name: str, cells: Sequence[Cell]) -> list[tuple[str, Any]]:
    """(row, value) of a field over the cells whose arm reads it."""
    if name == "seeds":
        seeds = dict.fromkeys((cell.row, cell.column, cell.trial.seed) for cell in cells)
        return [(row, count) for (row, _), count in Counter((row, column) for row, column, _ in seeds).items()]
    if name == "samples":
        drawn = ((cell.row, dict(cell.measure.parameters).get("s")) for cell in cells)
        return [(row, int(samples)) for row, samples in drawn if samples is not None]
    pairs = ((cell.row, _field(name, cell.trial)) for cell in cells)
    return [(row, value) for row, value in pairs if value is not None]


def _field(name: str, trial: Trial) -> Any:
    """A field's value, None if the trial's arm does not read it. `annealing` is in epochs, however it is given.
    `binarisation` is None if the data set has no grey values to draw bits from."""
    read = trial.hashed_fields()
    if name == "binarisation":
        return trial.binarisation if source(trial.dataset).grey and name in arm(trial.model).reads else None
    if name == "annealing":
        return _annealing_epochs(trial)
    if name == "final_beta":
        return None if _annealing_epochs(trial) is None else trial.final_beta
    return read.get(name)


def _annealing_epochs(trial: Trial) -> int | None:
    """Epochs over which beta rises; None if the trial's arm has no beta."""
    read = trial.hashed_fields()
    if read.get("annealing_epochs") is not None:
        return int(read["annealing_epochs"])
    return round(trial.annealing_share * trial.epochs) if "annealing_share" in read else None


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
