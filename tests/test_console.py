"""The console: its output on terminals and elsewhere, and its estimate of the time left."""

from __future__ import annotations

import io
import threading

import pytest
from rich.console import Console as Rich

from sweeps.cli.console import Console, Progress
from sweeps.cli.time_left import Work
from sweeps.cli.words import duration, error, timing


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def lines(file: io.StringIO) -> list[str]:
    return file.getvalue().splitlines()


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0 s"),
        (8.4, "8 s"),
        (59.6, "1 min 00 s"),
        (200, "3 min 20 s"),
        (7500, "2 h 05 min"),
        (3 * 86_400 + 3_700, "3 d 01 h"),
        (-1, "0 s"),
    ],
)
def test_a_duration_has_at_most_two_units(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_time_left_uses_only_the_speed_of_this_run() -> None:
    work = Work({"a": 10.0, "b": 10.0, "c": 20.0}, before={"b": 0.5})
    work.begun("a", 0.0)
    assert work.fraction == pytest.approx(5 / 40)
    assert work.seconds_left() is None
    work.reached("a", 0.5, 60.0)
    assert work.fraction == pytest.approx(10 / 40)
    assert work.seconds_left() == pytest.approx(30 * 60 / 5)


def test_time_left_is_divided_by_the_number_of_concurrent_trials() -> None:
    work = Work({"a": 10.0, "b": 10.0, "c": 10.0}, before={})
    work.begun("a", 0.0)
    work.begun("b", 0.0)
    work.reached("a", 1.0, 40.0)
    work.ended("a")
    work.reached("b", 0.5, 20.0)
    assert work.seconds_left() == pytest.approx(10 * 4), "c takes longer than the rest of b, in parallel"


def test_time_left_uses_the_speed_of_each_kind_of_trial() -> None:
    work = Work({"a": 10.0, "b": 10.0, "c": 10.0}, before={}, kinds={"a": "nn", "b": "mvae", "c": "mvae"})
    work.begun("a", 0.0)
    work.reached("a", 1.0, 10.0)
    work.ended("a")
    assert work.seconds_left() == pytest.approx(20.0), "mvae has no speed yet: assumed to be as slow as known trials"
    work.begun("b", 10.0)
    work.reached("b", 0.1, 20.0)
    assert work.seconds_left() == pytest.approx((9 + 10) * 10)


def test_the_start_of_a_long_trial_does_not_count_as_its_speed() -> None:
    work = Work({"a": 1000.0}, before={})
    work.begun("a", 0.0)
    work.reached("a", 0.001, 70.0)
    assert work.seconds_left() is None, "nearly all of the 70 seconds were start-up"
    work.reached("a", 0.101, 90.0)
    assert work.seconds_left() == pytest.approx(0.899 / 0.1 * 20)


def test_a_restarted_trial_is_timed_from_its_restart() -> None:
    work = Work({"a": 100.0}, before={})
    work.begun("a", 0.0)
    for share, now in ((0.1, 10.0), (0.2, 11.0)):
        work.reached("a", share, now)
    work.begun("a", 500.0)
    work.reached("a", 0.3, 540.0)
    assert work.seconds_left() == pytest.approx(0.7 / 0.1 * 40)
    work.reached("a", 0.4, 542.0)
    assert work.seconds_left() == pytest.approx(0.6 / 0.1 * 2)


def test_a_dropped_trial_does_not_count_for_the_speed() -> None:
    work = Work({"a": 10.0, "b": 10.0}, before={})
    work.drop("b")
    assert work.seconds_left() is None
    work.begun("a", 0.0)
    work.reached("a", 0.5, 60.0)
    assert work.seconds_left() == pytest.approx(60.0)


def test_a_sweep_without_work_counts_as_done() -> None:
    assert Work({}, {}).fraction == 1.0


def test_without_a_terminal_each_finished_trial_prints_one_plain_line() -> None:
    file = io.StringIO()
    console = Console(file)
    console.header("Table 4 on digits: 2 trials")
    with console.progress({"a": 1.0, "b": 1.0}) as progress:
        for key, label in (("a", "mvae 1 % seed 0"), ("b", "nn 1 % seed 0")):
            progress.started(key, label)
            progress.epoch(key, 1, 2)
        progress.finished("a", "mvae 1 % seed 0", "accuracy 0.7834  12 s")
        progress.stopped("b", "nn 1 % seed 0", "failed: loss is nan in epoch 2")
    assert lines(file) == [
        "Table 4 on digits: 2 trials",
        "[1/2] mvae 1 % seed 0  accuracy 0.7834  12 s",
        "[2/2] nn 1 % seed 0  failed: loss is nan in epoch 2",
    ]


def test_without_a_terminal_long_trials_print_progress_every_minute() -> None:
    file, clock = io.StringIO(), Clock()
    with Console(file).progress({"a": 1.0}, clock=clock) as progress:
        progress.started("a", "mvae seed 0")
        for epoch in range(1, 10):
            clock.now += 25.0
            progress.epoch("a", epoch, 10)
    assert lines(file) == [
        " 30%  0/1 trials  2 min 55 s left  mvae seed 0",
        " 60%  0/1 trials  1 min 40 s left  mvae seed 0",
        " 90%  0/1 trials  25 s left  mvae seed 0",
    ]


def test_text_that_looks_like_markup_is_printed_unchanged() -> None:
    file = io.StringIO()
    line = "[bold]not markup[/bold] :smile: http://127.0.0.1:5000 " + "long " * 100 + "end"
    Console(file).say(line)
    assert file.getvalue() == line + "\n"


@pytest.mark.parametrize(("patience", "live", "shown"), [(0.0, True, True), (60.0, True, False), (0.0, False, False)])
def test_only_a_terminal_shows_current_activity_and_only_if_it_takes_long(
    monkeypatch: pytest.MonkeyPatch, patience: float, live: bool, shown: bool
) -> None:
    monkeypatch.setattr("sweeps.cli.console.PATIENCE", patience)
    file = io.StringIO()
    with Console(file, live=live).busy("Timing a few steps of mvae on digits"):
        pass
    assert ("Timing a few steps of mvae on digits: 0 s so far" in file.getvalue()) is shown


def test_on_a_terminal_the_progress_line_is_redrawn_and_erased_at_the_end() -> None:
    file = io.StringIO()
    with Console(file, live=True).progress({"a": 1.0}) as progress:
        progress.expect(90.0)
        progress.started("a", "mvae seed 0")
        progress.epoch("a", 1, 2)
        progress.finished("a", "mvae seed 0", "accuracy 0.7834")
    drawn = file.getvalue()
    assert "0/1 trials" in drawn
    assert "1 min 30 s left" in drawn, "the plan's estimate stands until there is a speed"
    assert "[1/1] mvae seed 0  accuracy 0.7834" in drawn
    assert drawn.endswith("\x1b[2K"), "the screen must end with the erased progress line"


@pytest.mark.timeout(60)
def test_lines_from_many_threads_do_not_block_or_get_lost() -> None:
    file = io.StringIO()
    keys = [f"k{index}" for index in range(200)]

    with Console(file, live=True).progress(dict.fromkeys(keys, 1.0)) as progress:

        def finish(some: list[str]) -> None:
            for key in some:
                progress.started(key, key)
                progress.epoch(key, 1, 1)
                progress.finished(key, key, "done")

        threads = [threading.Thread(target=finish, args=(keys[start::4],)) for start in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert file.getvalue().count("  done") == 200
    assert "[200/200]" in file.getvalue()


def test_an_error_is_one_line_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    error("the storage cannot be written:\n  read-only file system\n")
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == "the storage cannot be written: read-only file system\n"


def drawn(progress: Progress, width: int) -> str:
    """The progress line on a terminal of this width."""
    file = io.StringIO()
    Rich(file=file, width=width, force_terminal=True, color_system=None).print(progress._bar())
    return file.getvalue()


@pytest.mark.parametrize("expected", [None, 12_000.0])
def test_the_first_progress_line_fits_80_columns_and_shows_the_start_up_time(
    expected: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    clock = Clock()
    progress = Console(io.StringIO(), live=True).progress(dict.fromkeys(map(str, range(162)), 1.0), clock=clock)
    progress._left = expected
    clock.now += 55.0
    (line,) = drawn(progress, 80).splitlines()
    assert "0/162 trials" in line and line.rstrip().endswith("starting, 55 s so far"), line
    assert ("3 h 19 min left" in line) == (expected is not None)
    assert "not known" not in line and "…" not in line


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_running_trials_that_do_not_fit_on_the_line_are_counted(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    progress = Console(io.StringIO(), live=True).progress(dict.fromkeys("abcd", 1.0))
    for key in "abcd":
        progress.started(key, f"MVAE (own) 100% seed {key}")
    (line,) = drawn(progress, width).splitlines()
    assert "…" not in line and "time left unknown" in line
    shown = line.count("MVAE (own)")
    assert {0: "  4 running", 4: ""}.get(shown, f" and {4 - shown} more") in line
    assert shown == {60: 0, 80: 0, 120: 2, 200: 4}[width]


def test_time_left_of_a_last_single_trial_is_not_divided_by_idle_slots() -> None:
    work = Work({"a": 10.0, "b": 10.0}, before={})
    work.begun("a", 0.0)
    work.begun("b", 0.0)
    work.reached("a", 1.0, 100.0)
    work.ended("a")
    for share, now in ((0.2, 100.0), (0.4, 200.0)):
        work.reached("b", share, now)
    assert work.seconds_left() == pytest.approx(300.0)


@pytest.mark.parametrize(
    ("seconds", "said"), [(130.4, "2 min 10 s"), (41.0, "41 s"), (9.96, "10 s"), (3.44, "3.4 s"), (2e-5, "0.00002 s")]
)
def test_measured_times_are_printed_without_exponents(seconds: float, said: str) -> None:
    assert timing(seconds) == said
