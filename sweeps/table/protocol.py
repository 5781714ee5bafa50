"""Compares our trials' settings with the settings that the paper states, and describes the differences in words."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from mvae.data import Kind, source
from mvae.evaluation.measurable import PREDICTED
from mvae.hyperparameters import completed
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
"""Readable names of protocol fields, if different from the field's name."""

EXCEPTIONS = 2
"""Maximum number of rows that are listed as exceptions from a common value."""

NAMED = 3
"""Maximum number of rows or arms that are listed as using a setting, or as not using it."""

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
"""Settings to print below a table that has no published counterpart."""


def protocol_lines(cells: Sequence[Cell], table: Table | None) -> list[str]:
    """Lists our settings: those that differ from the paper's, those that agree, and those that the paper omits.

    A setting is described only for rows whose arm reads the setting. If rows differ, the setting is described row by
    row. A setting that varies along a row is omitted, because it is the table's axis.

    Returns:
        Lines to print below the table.
    """
    if table is None:
        settings = _line("Settings", [_described(name, cells) for name in (*WITHOUT_A_TABLE, *_own_settings(cells))])
        return [*settings, *_replaced_networks(cells), *_first_of_several(cells)]
    differing = [
        f"{ours} (paper {_text(stated)})"
        for name, stated in table.protocol.items()
        if any(value != stated for _, value in _values(name, cells)) and (ours := _described(name, cells))
    ]
    agreeing = [
        _described(name, cells)
        for name, stated in table.protocol.items()
        if _values(name, cells) and all(value == stated for _, value in _values(name, cells))
    ]
    chosen = [*table.unstated, *(name for name in _own_settings(cells) if name not in table.protocol)]
    fewer = _described("train_examples", cells)  # the paper trains on all examples unless it states a number
    return [
        *_line("Differs from the paper", [*differing, f"{fewer} (paper all)" if fewer else ""]),
        *_line("Same as the paper", agreeing),
        *_line("Our choices, not stated in the paper", [_described(name, cells) for name in chosen]),
        *([] if "image_network" in table.protocol else _replaced_networks(cells)),
        *_first_of_several(cells),
    ]


def remarks(cells: Sequence[Cell], *, network_given: bool) -> tuple[str, ...]:
    """Returns lines to print before trials start: choices that the command made because the user made none.

    Args:
        network_given: whether the user chose the image network.
    """
    return (*([] if network_given else _replaced_networks(cells)), *_first_of_several(cells))


def departures(members: Sequence[Cell], of_row: Sequence[Cell], table: Table) -> tuple[str, ...]:
    """Returns one text per difference between a cell's settings and the paper's, for example "epochs 10 (paper 100)".

    Args:
        members: the trials of the cell, one per seed.
        of_row: the trials of the whole row. If the number of training examples varies along the row, it is the table's
            axis and not a difference.
    """
    found = []
    for name, stated in table.protocol.items():
        values = list(dict.fromkeys(value for _, value in _values(name, members) if value != stated))
        if values:
            found.append(f"{NAMES.get(name, name)} {', '.join(map(_text, values))} (paper {_text(stated)})")
    if fewer := _described("train_examples", of_row):
        found.append(f"{fewer} (paper all)")
    return tuple(found)


def _replaced_networks(cells: Sequence[Cell]) -> list[str]:
    defaults = {cell.trial: source(cell.trial.dataset).defaults.image_network for cell in cells}
    lines = (
        f"Image network {trial.image_network} instead of {network}, the default for {trial.dataset}."
        for trial, network in defaults.items()
        if "image_network" in trial.hashed_fields() and trial.image_network != network
    )
    return list(dict.fromkeys(lines))


def _first_of_several(cells: Sequence[Cell]) -> list[str]:
    lines = dict[str, None]()
    for dataset, measured in dict.fromkeys((cell.trial.dataset, cell.measure) for cell in cells):
        measure = measured.name
        names: dict[Kind, list[str]] = {}
        for modality in source(dataset).modalities:
            names.setdefault(modality.kind, []).append(modality.name)
        predicted = {"accuracy": Kind.TEXT if Kind.TEXT in names else Kind.LABEL, "readout": Kind.LABEL}.get(measure)
        inputs = [one.name for one in source(dataset).modalities if one.kind in (Kind.IMAGE, Kind.VECTOR)]
        given = inputs if measure in PREDICTED and not measured.given else []
        target = [] if predicted is None else names.get(predicted, [])
        if len(given) > 1:
            what = "inputs" if names.get(Kind.VECTOR) else "images"
            lines[f"{dataset} has several {what} ({', '.join(given)}): predictions use only {given[0]}."] = None
        if len(target) > 1:
            lines[f"{dataset} has several {predicted}s ({', '.join(target)}): only {target[0]} is predicted."] = None
    return list(lines)


def _own_settings(cells: Sequence[Cell]) -> list[str]:
    """Returns the names of the arms' hyper-parameters that differ from their default in any trial."""
    usual = {cell.trial.model: completed(arm(cell.trial.model).hyperparameters, {}, cell.trial.model) for cell in cells}
    changed = (pair for cell in cells for pair in cell.trial.own if pair not in usual[cell.trial.model])
    return list(dict.fromkeys(name for name, _ in changed))


def _line(head: str, parts: Iterable[str]) -> list[str]:
    text = "; ".join(part for part in parts if part)
    return [f"{head}: {text}."] if text else []


def _described(name: str, cells: Sequence[Cell]) -> str:
    """Describes a setting by its name and value: one value for all rows, a common value with exceptions, or all values.

    Also lists the rows that do not use the setting, or the rows that do, whichever are fewer. Returns "" for a setting
    that varies along a row, a setting that no row uses, and `k` if it is 0 everywhere.
    """
    rows_by_value: dict[Any, dict[str, None]] = {}
    for row, value in _values(name, cells):
        rows_by_value.setdefault(value, {})[row] = None
    rows = [row for with_value in rows_by_value.values() for row in with_value]
    if not rows or len(set(rows)) < len(rows) or (name == "k" and set(rows_by_value) == {0}):
        return ""
    all_rows = list(dict.fromkeys(cell.row for cell in cells))
    using, without = _short(rows, cells), _short([row for row in all_rows if row not in rows], cells)
    if without and len(using) <= min(NAMED, len(without)):
        texts = (f"{_text(value)} for {_and(_short(of, cells))}" for value, of in rows_by_value.items())
        return f"{NAMES.get(name, name)} {', '.join(texts)}"
    (most, _), *others = sorted(rows_by_value.items(), key=lambda item: -len(item[1]))
    if sum(len(rows) for _, rows in others) <= EXCEPTIONS:
        text = ", ".join([_text(most), *(f"but {_text(value)} for {' and '.join(rows)}" for value, rows in others)])
    else:
        text = f"by row ({', '.join(map(_text, rows_by_value))})"
    if without and len(without) <= NAMED:
        text += f", not used by {_and(without)}"
    elif without:
        text += f", used by {len(rows)} of {len(all_rows)} rows"
    return f"{NAMES.get(name, name)} {text}"


def _short(rows: Iterable[str], cells: Sequence[Cell]) -> list[str]:
    """Replaces an arm's rows with the arm's title, if the arm has several rows and all these rows are listed."""
    by_arm: dict[str, set[str]] = {}
    for cell in cells:
        by_arm.setdefault(cell.trial.model, set()).add(cell.row)
    listed = list(rows)
    complete = {token: of_arm for token, of_arm in by_arm.items() if len(of_arm) > 1 and of_arm <= set(listed)}
    titles = {row: arm(token).title for token, of_arm in complete.items() for row in of_arm}
    return list(dict.fromkeys(titles.get(row, row) for row in listed))


def _and(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _values(name: str, cells: Sequence[Cell]) -> list[tuple[str, Any]]:
    if name == "seeds":
        seeds = dict.fromkeys((cell.row, cell.column, cell.trial.seed) for cell in cells)
        return [(row, count) for (row, _), count in Counter((row, column) for row, column, _ in seeds).items()]
    if name == "samples":
        drawn = ((cell.row, dict(cell.measure.parameters).get("s")) for cell in cells)
        return [(row, int(samples)) for row, samples in drawn if samples is not None]
    pairs = ((cell.row, _field(name, cell.trial)) for cell in cells)
    return [(row, value) for row, value in pairs if value is not None]


def _field(name: str, trial: Trial) -> Any:
    """Returns a setting's value; None if the trial's arm ignores the setting. `annealing` is always in epochs.
    `binarisation` is None if the data set has no grey values to draw bits from."""
    if name == "binarisation":
        return trial.binarisation if source(trial.dataset).grey and name in arm(trial.model).reads else None
    if name == "annealing":
        return _annealing_epochs(trial)
    if name == "final_beta":
        return None if _annealing_epochs(trial) is None else trial.final_beta
    return trial.hashed_fields().get(name)


def _annealing_epochs(trial: Trial) -> int | None:
    read = trial.hashed_fields()
    if read.get("annealing_epochs") is not None:
        return int(read["annealing_epochs"])
    return round(trial.annealing_share * trial.epochs) if "annealing_share" in read else None


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
