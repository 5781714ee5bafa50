"""MLflow's pages in a real browser: users find, read, group and compare a sweep without knowing how it is stored."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from urllib.parse import quote

import pytest

from sweeps.table.rounding import shown_value
from sweeps.tracking.cells import band
from tests.browsing import EPOCHS, Browsed, chromium, run_sweep, server, window
from tests.sweeping import place

pytestmark = pytest.mark.slow

SWEEP = "weak_supervision-digits"
METRIC = "validation/accuracy"
# Playwright calls the line of a constant curve hidden, because it has no height: wait for "attached".
DRAWN_LINE = '.scatterlayer path.js-line[d^="M"]'


@pytest.fixture(scope="module")
def browsed() -> Iterator[Browsed]:
    """A finished sweep of two arms, two fractions and three seeds, open in a browser."""
    executable = chromium()
    if executable is None:
        pytest.skip("no Chromium here: apt-get install chromium")
    with place() as here:
        printed = run_sweep(here)
        with server(here) as address, window(executable, here.home) as (page, first):
            yield Browsed(page, address, here, printed.replace("http://127.0.0.1:5000", address), first)


def groups(browsed: Browsed) -> list[str]:
    """Returns the names of the groups in the sweep's view."""
    return [f"Group: {row} {column:.0%}" for row, column in browsed.means()]


def test_the_printed_address_shows_cells_and_means_without_a_click_and_their_bands_after_one(browsed: Browsed) -> None:
    first = replace(browsed, page=browsed.first)
    first.page.goto(browsed.printed, wait_until="commit")
    first.sees(*groups(browsed), "(average)")
    assert all(any(shown == pytest.approx(mean) for shown in first.averages()) for mean in browsed.means().values())
    first.page.locator("label", has=first.page.locator("input[value='CHART']")).click()
    first.sees("over seeds")
    first.page.locator(DRAWN_LINE).nth(3 * len(browsed.means()) - 1).wait_for(state="attached")


def test_a_cells_run_plots_its_band_and_names_its_seeds(browsed: Browsed) -> None:
    (cell,) = (run for run in browsed.place.cells() if run.data.tags["mvae.cell"] == "NN 5%")
    runs, metric, metrics, experiments = (
        quote(json.dumps(value)) for value in ([cell.info.run_id], METRIC, band(METRIC), [cell.info.experiment_id])
    )
    browsed.open(f"/metric?runs={runs}&metric={metric}&experiments={experiments}&plot_metric_keys={metrics}")
    browsed.sees("digits NN 5%: mean of 3 seeds", *band(METRIC))
    lines = browsed.page.locator(DRAWN_LINE)
    lines.nth(2).wait_for(state="attached")
    browsed.keep("band")


def test_the_list_of_experiments_names_the_storage_and_its_contents(browsed: Browsed) -> None:
    browsed.open("/experiments")
    browsed.sees("main", "Sweeps of the storage name")
    browsed.keep("experiments", height=300)


def test_a_sweeps_page_shows_its_description_command_plot_and_table(browsed: Browsed) -> None:
    browsed.open(f"{browsed.runs}/{browsed.parent.info.run_id}")
    browsed.sees(SWEEP)
    browsed.page.get_by_text("Show more").first.click()
    browsed.sees("Weak supervision on digits", "python pipelines/weak_supervision.py --arms mvae,nn")
    browsed.sees(*browsed.shown_means())
    assert browsed.draws("accuracy.png") > 500
    browsed.keep("sweep", height=1400)


def test_the_report_is_an_artifact_and_its_plot_is_displayed(browsed: Browsed) -> None:
    browsed.open(f"{browsed.runs}/{browsed.parent.info.run_id}/artifacts/report/accuracy.png")
    browsed.sees("table.md", "table.parquet", "runs.csv")
    assert browsed.draws("blob:") > 500  # MLflow fetches the file and shows it from memory


def test_a_sweeps_view_groups_its_trials_by_row_and_column_with_the_mean_over_seeds(browsed: Browsed) -> None:
    browsed.open(browsed.runs)
    browsed.sees(SWEEP)
    browsed.page.get_by_role("button", name="Views").click()
    browsed.page.get_by_text(SWEEP, exact=True).last.click()
    means = browsed.means()
    browsed.sees(*groups(browsed))
    browsed.sees("(average)", *browsed.trials)
    assert all(any(shown == pytest.approx(mean) for shown in browsed.averages()) for mean in means.values())
    browsed.keep("view")


def test_the_links_of_a_sweep_open_its_view_and_its_curves(browsed: Browsed) -> None:
    browsed.open(f"{browsed.runs}/{browsed.parent.info.run_id}")
    link = browsed.page.get_by_role("link", name="their curves")
    link.wait_for()
    browsed.open(str(link.get_attribute("href")).removeprefix("#"))
    browsed.sees(METRIC, "digits NN 5% seed 0")
    browsed.page.locator(DRAWN_LINE).nth(len(browsed.means()) - 1).wait_for(state="attached")
    browsed.keep("curves", height=1000)


def test_trials_can_be_grouped_by_arm_from_the_menu(browsed: Browsed) -> None:
    browsed.open(browsed.runs)
    browsed.sees(SWEEP)
    browsed.page.get_by_role("button", name="Group by").click()
    browsed.page.get_by_placeholder("Search").last.fill("model")
    browsed.page.get_by_role("menuitemcheckbox", name="model", exact=True).last.click()
    browsed.sees("Group: mvae", "Group: nn", *browsed.trials)


def test_curves_of_two_trials_share_a_plot(browsed: Browsed) -> None:
    two = {
        name: browsed.trials[name].info.run_id for name in ("digits MVAE (all) 100% seed 0", "digits NN 100% seed 0")
    }
    runs, metric = quote(json.dumps(list(two.values()))), quote(json.dumps(METRIC))
    experiments = quote(json.dumps([browsed.parent.info.experiment_id]))
    browsed.open(f"/compare-runs?runs={runs}&experiments={experiments}")
    browsed.sees("Comparing 2 Runs", *two)
    browsed.open(f"/metric?runs={runs}&metric={metric}&experiments={experiments}&plot_metric_keys=%5B{metric}%5D")
    browsed.sees("Comparing 2 Runs", *(f"{name} ({METRIC})" for name in two))
    lines = browsed.page.locator(DRAWN_LINE)
    lines.nth(3).wait_for(state="attached")
    assert lines.count() == 4  # a raw and a smoothed curve of each trial
    browsed.keep("compare")


def test_a_trials_page_begins_with_its_outcome_and_links_its_sweep(browsed: Browsed) -> None:
    run = next(iter(browsed.trials.values()))
    browsed.open(f"{browsed.runs}/{run.info.run_id}")
    browsed.sees(
        f", test/accuracy {shown_value(run.data.metrics['test/accuracy'])}",
        f"Finished after {EPOCHS} of {EPOCHS} epochs",
    )
    browsed.page.get_by_role("link", name=SWEEP).first.wait_for()
    browsed.sees("weak_supervision.py")
    browsed.keep("trial")
    browsed.page.get_by_text("Show more").first.click()
    browsed.sees(run.data.tags["mvae.key"], run.data.tags["mvae.checkpoint.uri"])


def test_a_models_page_shows_its_numbers_settings_and_trial(browsed: Browsed) -> None:
    name, run = next(iter(browsed.trials.items()))
    model = run.data.tags["mvae.logged_model"].rpartition("/")[2]
    browsed.open(f"/experiments/{run.info.experiment_id}/models/{model}")
    browsed.sees(f"Final weights of {name}", f'mlflow.pytorch.load_model("runs:/{run.info.run_id}/')
    browsed.sees("test/accuracy", f"{run.data.metrics['test/accuracy']}", "learning_rate", "Ready")
    browsed.page.get_by_role("link", name=name).first.wait_for()
    browsed.keep("model")
