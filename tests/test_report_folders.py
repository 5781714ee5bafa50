"""Report folders: the name describes the table, no report is lost, and earlier versions' folders stay."""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path

import pytest

from pipelines import k_sweep, likelihoods, train, translation, weak_supervision
from sweeps.cli.options import CommonOptions, read
from sweeps.cli.values import token
from sweeps.table.files import LONGEST, own_name

A, B, C = ((key * 16, "accuracy-v1") for key in "abc")
NAME = "weak_supervision-digits"


def report_into(reports: Path, name: str, *cells: tuple[str, str]) -> None:
    """Writes a report of these cells into a folder of this name."""
    (reports / name).mkdir(parents=True)
    with (reports / name / "runs.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["key", "measure", "link"], *([*cell, ""] for cell in cells)])


def digest(*cells: tuple[str, str]) -> str:
    return hashlib.sha256(repr(sorted(cells)).encode()).hexdigest()[:8]


def test_the_first_report_and_its_extensions_have_the_plain_name(tmp_path: Path) -> None:
    assert own_name(tmp_path, NAME, [A], "demo") == NAME
    report_into(tmp_path, NAME, A)
    assert own_name(tmp_path, NAME, [A, B], "demo-seeds-0-1") == NAME


def test_a_report_of_other_cells_is_named_after_its_options(tmp_path: Path) -> None:
    report_into(tmp_path, NAME, A, B)
    assert own_name(tmp_path, NAME, [A], "demo-seeds-0") == f"{NAME}--demo-seeds-0"
    report_into(tmp_path, f"{NAME}--demo-seeds-0", A)
    assert own_name(tmp_path, NAME, [A], "demo-seeds-0") == f"{NAME}--demo-seeds-0", "the same command finds it again"


def test_the_same_options_for_other_cells_overwrite_nothing(tmp_path: Path) -> None:
    """For example, a change of the data gives equal options other keys."""
    report_into(tmp_path, NAME, A, B)
    report_into(tmp_path, f"{NAME}--demo-seeds-0", A)
    assert own_name(tmp_path, NAME, [C], "demo-seeds-0") == f"{NAME}--demo-seeds-0-{digest(C)}"


def test_a_folder_of_an_earlier_version_is_reused(tmp_path: Path) -> None:
    report_into(tmp_path, NAME, A, B)
    report_into(tmp_path, f"{NAME}-{digest(A)}", A)
    assert own_name(tmp_path, NAME, [A], "demo-seeds-0") == f"{NAME}-{digest(A)}"
    assert own_name(tmp_path, NAME, [B], "demo-seeds-1") == f"{NAME}--demo-seeds-1"


def test_a_name_that_is_too_long_ends_in_a_digest(tmp_path: Path) -> None:
    report_into(tmp_path, NAME, A, B)
    names = {own_name(tmp_path, NAME, [cell], "demo-fractions-" + "0.1_" * 100) for cell in (A, B)}
    assert len(names) == 2, "two tables with the same first options"
    for name in names:
        assert len(name) <= len(NAME) + LONGEST + 12 and token(name) == name


@pytest.mark.parametrize(
    ("options", "typed", "asked"),
    [
        (weak_supervision.Options, "", "demo"),
        (weak_supervision.Options, "--preset paper --seeds 0-2 --arms nn,mvae_q", "paper-arms-nn_mvae_q-seeds-0-2"),
        (weak_supervision.Options, "--seeds 1,0 --fractions 0.05,1", "demo-seeds-1_0-fractions-0.05_1"),
        (weak_supervision.Options, "--storage /x --name y --max-concurrent 2 --report", "demo"),
        (weak_supervision.Options, "--learning-rate 0.00001", "demo-learning_rate-1e-05"),
        (likelihoods.Options, "--binarisation dynamic --epochs 3", "demo-binarisation-dynamic-epochs-3"),
        (k_sweep.Options, "--ks 0,4,50", "demo-ks-0_4_50"),
        (train.Options, "--workers 2-4 --compile", "demo-workers-2_4-compile-true"),
        (translation.Options, "--corpus /data/own#corpus", "demo-corpus-own_corpus"),
    ],
)
def test_a_folders_name_holds_the_typed_options_that_decide_the_table(
    options: type[CommonOptions], typed: str, asked: str
) -> None:
    said = read(options, typed.split()).asked()
    assert said == asked and token(said) == said
