"""Cells of the weak-supervision pipeline: arms, fractions, seeds, keys and published values."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np

from mvae.measure import ACCURACY, readout
from mvae.supervision import paired_set
from pipelines.weak_supervision import Options, cells
from sweeps.cli.options import read
from sweeps.planning.plan import Cell
from sweeps.table.published import TABLE_4


def made(*argv: str) -> list[Cell]:
    return list(cells(read(Options, argv)))


def test_the_demo_has_four_rows_four_fractions_and_two_seeds_of_digits() -> None:
    grid = made()
    assert len(grid) == 32
    assert {cell.trial.dataset for cell in grid} == {"digits"}
    assert list(dict.fromkeys(cell.row for cell in grid)) == ["NN", "LOGREG", "MVAE (own)", "MVAE (all)"]
    assert list(dict.fromkeys(cell.column for cell in grid)) == [0.01, 0.05, 0.2, 1.0]
    assert {cell.trial.seed for cell in grid} == {0, 1}
    assert {cell.measure for cell in grid} == {ACCURACY}


def test_the_paper_preset_is_all_of_table_4_with_three_seeds_on_the_papers_network() -> None:
    grid = made("--preset", "paper", "--dataset", "fashion_mnist")
    assert Counter(cell.row for cell in grid) == dict.fromkeys(
        ("NN", "LOGREG", "RBM", "VAE", "JMVAE", "MVAE (own)", "MVAE (all)", "MVAE-Q (own)", "MVAE-Q (all)"), 27
    )
    assert tuple(dict.fromkeys(cell.column for cell in grid)) == TABLE_4.columns
    assert {cell.trial.seed for cell in grid} == {0, 1, 2}
    assert {(cell.trial.image_network, cell.trial.epochs, cell.trial.label_weight) for cell in grid} == {
        ("dcgan", 100, 1.0)
    }


def test_the_paper_preset_trains_mnist_for_500_epochs_on_the_mlp_without_published_values() -> None:
    grid = made("--preset", "paper", "--dataset", "mnist", "--arms", "mvae")
    assert {(cell.trial.image_network, cell.trial.epochs, cell.published) for cell in grid} == {("mlp", 500, None)}


def test_the_demo_of_a_large_data_set_is_short_and_uses_the_fast_network() -> None:
    grid = made("--dataset", "fashion_mnist")
    assert {(cell.trial.image_network, cell.trial.epochs) for cell in grid} == {("mlp", 20)}


def test_the_command_line_overrides_the_preset() -> None:
    grid = made(
        *("--dataset", "fashion_mnist", "--preset", "paper", "--arms", "mvae", "--fractions", "0.01", "--seeds", "4"),
        *("--epochs", "3", "--image-network", "mlp", "--label-weight", "10", "--targets", "own"),
    )
    assert len(grid) == 1
    trial = grid[0].trial
    assert (trial.model, trial.paired_fraction, trial.seed) == ("mvae", 0.01, 4)
    assert (trial.epochs, trial.image_network, trial.label_weight) == (3, "mlp", 10.0)


def test_every_published_value_reaches_its_cell() -> None:
    grid = made("--preset", "paper", "--dataset", "fashion_mnist", "--seeds", "0")
    reached = {(cell.arm, cell.column): cell.published for cell in grid}
    for token in TABLE_4.rows:
        for fraction, value in zip(TABLE_4.columns, TABLE_4.rows[token], strict=True):
            assert reached[token, fraction] == value
    assert {value for (token, _), value in reached.items() if token == "mvae_q"} == {None}
    assert {cell.published for cell in made("--dataset", "fashion_mnist", "--fractions", "0.33")} == {None}


def test_variants_of_pairing_and_targets_add_rows_only_to_arms_that_read_them() -> None:
    grid = made(
        *("--arms", "nn,mvae", "--pairing", "reserved,proportional,resampled", "--targets", "own,all"),
        *("--fractions", "0.1", "--seeds", "0"),
    )
    assert [cell.row for cell in grid] == [
        "NN",
        "MVAE reserved (own)",
        "MVAE reserved (all)",
        "MVAE proportional (own)",
        "MVAE proportional (all)",
        "MVAE resampled (own)",
        "MVAE resampled (all)",
    ]
    assert [(cell.trial.pairing, cell.trial.targets) for cell in grid[3:5]] == [
        ("proportional", "own"),
        ("proportional", "all"),
    ]
    assert len({cell.trial.key("data") for cell in grid}) == 7
    assert {cell.arm for cell in grid[1:]} == {"mvae"}


def test_rbm_and_vae_have_one_trial_per_seed_with_a_read_out_per_fraction() -> None:
    grid = made("--arms", "rbm,vae,jmvae", "--fractions", "0.01,0.5", "--seeds", "0-1")
    for token in ("rbm", "vae"):
        mine = [cell for cell in grid if cell.arm == token]
        assert len({cell.trial.key("data") for cell in mine}) == 2
        assert [cell.measure for cell in mine] == [readout(0.01)] * 2 + [readout(0.5)] * 2
    jmvae = [cell for cell in grid if cell.arm == "jmvae"]
    assert len({cell.trial.key("data") for cell in jmvae}) == 4
    assert {cell.measure for cell in jmvae} == {ACCURACY}


def test_a_single_variant_is_one_row_that_names_its_targets() -> None:
    grid = made("--arms", "mvae", "--pairing", "resampled", "--targets", "all")
    assert {cell.row for cell in grid} == {"MVAE (all)"}
    assert {(cell.trial.pairing, cell.trial.targets) for cell in grid} == {("resampled", "all")}


def test_all_arms_share_a_seeds_paired_set_and_larger_sets_contain_smaller_ones() -> None:
    grid = made("--arms", "nn,logreg,mvae,mvae_q", "--seeds", "0-1", "--targets", "own")
    sets: dict[tuple[int, float], list[np.ndarray]] = {}
    for cell in grid:
        trial = cell.trial
        kept = paired_set(1297, trial.paired_fraction, trial.seed, dataset="digits")
        sets.setdefault((trial.seed, trial.paired_fraction), []).append(kept)
    for same in sets.values():
        assert len(same) == 4
        assert all(np.array_equal(same[0], other) for other in same)
    for seed in (0, 1):
        nested = [set(sets[seed, fraction][0].tolist()) for fraction in (0.01, 0.05, 0.2, 1.0)]
        assert all(small < large for small, large in pairwise(nested))
    assert not np.array_equal(sets[0, 0.01][0], sets[1, 0.01][0])


def test_more_seeds_fractions_or_arms_do_not_change_the_keys_of_the_smaller_grid() -> None:
    def keys(*argv: str) -> set[str]:
        return {cell.trial.key("data") for cell in made(*argv)}

    small = keys("--seeds", "0-1", "--fractions", "0.01,1", "--arms", "nn,mvae")
    assert small < keys("--seeds", "0-2", "--fractions", "0.01,1", "--arms", "nn,mvae")
    assert small < keys("--seeds", "0-1", "--fractions", "0.01,0.5,1", "--arms", "nn,mvae")
    assert small < keys("--seeds", "0-1", "--fractions", "0.01,1", "--arms", "mvae,logreg,nn")
