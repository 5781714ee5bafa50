"""Browser tests of MLflow's pages: runs a small sweep, starts a server on its results and opens them in Chromium.

Chromium is Debian's (apt-get install chromium), driven by playwright. Without it the tests are skipped. If
MVAE_PICTURES names a folder, the tests save their screenshots there for the docs:

    MVAE_PICTURES=docs/pictures make test PYTEST_ARGS=tests/test_browser.py
"""

from __future__ import annotations

import csv
import io
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

from mlflow.entities import Run
from PIL import Image
from playwright.sync_api import Page, sync_playwright

from sweeps.table.rounding import shown_value
from tests.processes import descendants, kill
from tests.sweeping import LIMIT, ROOT, Place

EPOCHS = "60" if os.environ.get("MVAE_PICTURES") else "3"
"""More epochs for screenshots, so that they show trained models."""

ARGUMENTS = (
    "--arms",
    "mvae,nn",
    "--targets",
    "all",
    "--fractions",
    "0.05,1",
    "--seeds",
    "0-2",
    "--epochs",
    EPOCHS,
    "--storage",
    "storage",
)
"""Twelve trials. Each takes one second, or ten seconds for screenshots."""

PATIENCE = 180_000
"""Milliseconds until an element must appear on a page, on a slow and busy machine."""

WIDTH, HEIGHT = 1280, 800
COLOURS = 64
"""Window size in pixels, and largest number of colours in a saved screenshot."""

SETTINGS = {
    "mlflow.workflowType_v1": '"machine_learning"',
    "mlflow.assistant.panelOpen_v1": "false",
    "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": "true",
}
"""MLflow's browser settings: "Model training" selected at the top left, the assistant closed."""


def chromium() -> str | None:
    """Path of Chromium; None if it is not installed."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)


def run_sweep(here: Place) -> str:
    """Runs the pipeline in the project folder as a user does, so that MLflow shows no temporary paths.

    Returns:
        The address that the command prints.
    """
    (here.root / "pipelines").symlink_to(ROOT / "pipelines")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = ["python", "pipelines/weak_supervision.py", *ARGUMENTS]
    ended = here.launch(command, PATH=path, RAY_AUTH_MODE="disabled").ended()
    assert ended.code == 0, ended.err
    return ended.out.rpartition(" then: ")[2].strip()


@contextmanager
def server(here: Place) -> Iterator[str]:
    """Starts an MLflow server on the sweep's results; yields its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    words = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--host", "127.0.0.1", "--port", str(port)]
    log = here.root / "server.out"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*words, "--backend-store-uri", here.uri],
            env={**os.environ, "HOME": str(here.home), "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            stdout=out,
            stderr=subprocess.STDOUT,
            cwd=here.root,
        )
    try:
        deadline = time.monotonic() + LIMIT
        while not _answers(address):
            assert process.poll() is None, (
                f"exit code {process.returncode}: {log.read_text(errors='replace', encoding='utf-8')}"
            )
            assert time.monotonic() < deadline, log.read_text(encoding="utf-8", errors="replace")
            time.sleep(0.2)
        yield address
    finally:
        for one in descendants(process.pid):
            kill(one)
        process.wait()


def _answers(address: str) -> bool:
    try:
        with urlopen(f"{address}/health", timeout=5) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


@contextmanager
def window(executable: str, home: Path) -> Iterator[tuple[Page, Page]]:
    """Yields a page with MLflow's "Model training" open, and a page of a browser that has never shown MLflow."""
    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=executable,
            args=["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"],
            env={**os.environ, "HOME": str(home)},
        )
        context, fresh = (browser.new_context(viewport={"width": WIDTH, "height": HEIGHT}) for _ in range(2))
        for one in (context, fresh):
            one.set_default_timeout(PATIENCE)
        context.add_init_script("".join(f"localStorage.setItem('{n}', '{value}');" for n, value in SETTINGS.items()))
        yield context.new_page(), fresh.new_page()
        browser.close()


@dataclass(frozen=True)
class Browsed:
    """A finished sweep in MLflow, open in a browser."""

    page: Page
    address: str
    place: Place
    printed: str
    """The address that the sweep's command prints, on the server's port."""
    first: Page
    """Page of a browser that has never shown MLflow."""

    @property
    def parent(self) -> Run:
        """MLflow's run of the sweep."""
        (run,) = self.place.parents()
        return run

    @property
    def trials(self) -> dict[str, Run]:
        """MLflow's runs of the trials, by their names."""
        return {run.info.run_name: run for run in self.place.children()}

    @property
    def runs(self) -> str:
        """Path of the page that lists the experiment's runs."""
        return f"/experiments/{self.parent.info.experiment_id}/runs"

    def means(self) -> dict[tuple[str, float], float]:
        """The reported table: mean by row and column."""
        return {(line["row"], float(line["column"])): float(line["mean"]) for line in self._table()}

    def shown_means(self) -> list[str]:
        """The means as the report prints them."""
        return [shown_value(float(line["mean"]), float(line["spread"] or "nan")) for line in self._table()]

    def _table(self) -> list[dict[str, str]]:
        text = (self.place.store.reports / self.parent.info.run_name / "table.csv").read_text(encoding="utf-8")
        return list(csv.DictReader(io.StringIO(text)))

    def open(self, path: str) -> None:
        """Opens one of MLflow's pages in a fresh page."""
        self.page.goto("about:blank")
        self.page.goto(f"{self.address}/#{path}", wait_until="commit")

    def sees(self, *texts: str) -> None:
        """Waits until the page shows each text."""
        for text in texts:
            self.page.get_by_text(text).locator("visible=true").first.wait_for()

    def averages(self) -> list[float]:
        """Group means shown on the page of runs."""
        return [float(number) for number in re.findall(r"([\d.]+)\s*\(average\)", self.page.inner_text("body"))]

    def draws(self, source: str) -> int:
        """Waits until an image whose address contains `source` is drawn; returns its width in pixels."""
        drawn = (
            "source => [...document.images].filter(i => i.src.includes(source) && i.complete).map(i => i.naturalWidth)"
        )
        return int(self.page.wait_for_function(f"source => Math.max(0, ...({drawn})(source))", arg=source).json_value())

    def keep(self, name: str, height: int = HEIGHT) -> None:
        """Saves the window's contents as mlflow-NAME.png if $MVAE_PICTURES is set.

        Args:
            height: height of the picture in pixels; the window is enlarged if necessary.
        """
        if not (folder := os.environ.get("MVAE_PICTURES")):
            return
        self.page.set_viewport_size({"width": WIDTH, "height": max(height, HEIGHT)})
        self.page.wait_for_timeout(2000)  # animations have ended
        shown = self.page.screenshot(clip={"x": 0, "y": 0, "width": WIDTH, "height": height})
        with Image.open(io.BytesIO(shown)) as shot:
            shot.convert("RGB").quantize(COLOURS).save(Path(folder) / f"mlflow-{name}.png", optimize=True)
        self.page.set_viewport_size({"width": WIDTH, "height": HEIGHT})
