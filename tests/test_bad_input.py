"""Bad input gives a one-line error with advice on stderr and exit code 2; nothing is started or written."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NoReturn

import pytest

from mvae.data import DATASETS
from mvae.refusal import Refusal
from mvae.trial import Trial
from sweeps import engine
from sweeps.engine import Capacity
from sweeps.main import BAD_INPUT, COMPLETE, INCOMPLETE
from sweeps.store.store import Store
from tests import pipelines_run

REPOSITORY = Path(__file__).resolve().parents[1]
PIPELINE = REPOSITORY / "pipelines" / "weak_supervision.py"

run = partial(pipelines_run.run, "weak_supervision")


@dataclass(frozen=True)
class Place:
    """A folder with paths for command lines."""

    root: Path

    def files(self) -> set[Path]:
        """All files and folders, except the raw data's lock that downloads use."""
        return {path for path in self.root.rglob("*") if path.suffix != ".lock"}

    def fill(self, text: str) -> str:
        """Replaces {new}, {file}, {empty} and {taken} in a text by paths of this place."""
        names = {name: self.root / name for name in ("new", "file", "empty", "taken")}
        return text.format(**names)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """`empty` and `taken` (a storage with the name main) are folders, `file` is a file, `new` does not exist."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "taken" / "main").mkdir(parents=True)
    (tmp_path / "file").write_text("no folder, no database", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MVAE_DATA", str(tmp_path / "empty"))
    return Place(tmp_path)


@pytest.fixture
def nothing_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes a test fail if it starts a Ray cluster or an MLflow writer."""

    def started(*_: object, **__: object) -> NoReturn:
        raise AssertionError("something was started")

    monkeypatch.setattr(engine, "cluster", started)
    monkeypatch.setattr("sweeps.engine.attach.cluster", started)
    monkeypatch.setattr("sweeps.driver.Tracker", started)


BAD = [
    ("--arms foo", "unknown arm 'foo': choose one of nn, logreg, rbm, vae, jmvae, mvae, mvae_q, cvae"),
    ("--arms nn,gan", "unknown arm 'gan': choose one of nn, logreg, rbm, vae, jmvae, mvae, mvae_q, cvae"),
    (
        "--arms mvae,cvae",
        "arm cvae cannot predict the label of an image: choose among nn, logreg, rbm, vae, jmvae, mvae, mvae_q",
    ),
    ("--arms vae --fractions 0.0008", "digits has 1,297 training examples, so the smallest fraction is 0.0012"),
    ("--arms mvae,", "--arms mvae,: separate the items with commas and no spaces, as in a,b,c"),
    ("--dataset foo", "unknown data set 'foo': choose one of digits, mnist, binary_mnist, fashion_mnist"),
    ("--preset paper", "--preset paper: the paper has no table for digits; give --dataset fashion_mnist or mnist"),
    ("--fractions 0", "--fractions 0: 0 is not a fraction; write numbers above 0 and up to 1, such as 0.001,0.01,1"),
    ("--fractions 0.5,1.5", "--fractions 0.5,1.5: 1.5 is not a fraction; write numbers above 0 and up to 1"),
    (
        "--fractions 0.5,0.00001",
        "fraction 0.00001 keeps no pairs: digits has 1,297 training examples,"
        " so the smallest fraction is 0.0012 (2 pairs)",
    ),
    ("--fractions 0.0008", "digits has 1,297 training examples, so the smallest fraction is 0.0012 (2 pairs)"),
    ("--dataset mnist19", "mnist19 has no label or text to predict: choose among digits, mnist, binary_mnist"),
    ("--train-examples 1298", "digits has only 1,297 training examples, not 1,298"),
    (
        "--train-examples 100 --fractions 0.005",
        "fraction 0.005 keeps no pairs: digits has 100 training examples, so the smallest fraction is 0.015 (2 pairs)",
    ),
    ("--seeds two", "--seeds two: two is not a seed; write whole numbers or ranges, such as 0-2 or 0,3,5-7"),
    ("--pairing foo", "--pairing foo: input should be 'reserved', 'proportional' or 'resampled'"),
    ("--pairing reserved,foo", "--pairing foo: input should be 'reserved', 'proportional' or 'resampled'"),
    ("--targets foo", "--targets foo: input should be 'own' or 'all'"),
    ("--image-network dcgan", "image network 'dcgan' does not fit digits: choose mlp"),
    ("--epochs 0", "--epochs 0: input should be greater than or equal to 1"),
    ("--k 1", "unknown option --k: "),
    (
        "--dataset fashion_mnist --data-root {empty}",
        "{empty}/FashionMNIST/raw has no train-images-idx3-ubyte (or .gz): the data root must hold FashionMNIST/raw/",
    ),
    ("--cache {file}", "cannot use the cache {file} (Not a directory): give --cache a writable folder with free space"),
    ("--storage {file}", "--storage {file} is not a folder: {file} is a file; choose a folder"),
    ("--storage {file}/in/it", "--storage {file}/in/it is not a folder: {file} is a file; choose a folder"),
    ("--storage {file} --plan", "--storage {file} is not a folder"),
    ("--storage {file} --report", "--storage {file} is not a folder"),
    (
        "--storage /proc/mvae",
        "--storage /proc/mvae cannot be written (No such file or directory): choose another folder",
    ),
    ("--storage s3://bucket/runs", "--storage s3://bucket/runs cannot hold MLflow's database: set --tracking-uri (or"),
    ("--storage ftp://host/runs", "--storage ftp://host/runs: pyarrow cannot open the URI"),
    ("--name a/b", "--name a/b: use only letters, digits, '_', '.' and '-', and start with a letter or digit"),
    ("--name mlruns", "--name 'mlruns' is not a valid name"),
    ("--tracking-uri foo://bar", "--tracking-uri foo://bar is not a URI that MLflow supports: write http://HOST:PORT"),
    ("--tracking-uri file:///tmp/mlruns", "--tracking-uri file:///tmp/mlruns is not a URI that MLflow supports"),
    ("--tracking-uri mlflow.db", "--tracking-uri mlflow.db is not a URI that MLflow supports"),
    ("--tracking-uri sqlite:////proc/mvae/mlflow.db", "cannot write to the folder /proc; choose another folder"),
    ("--tracking-uri sqlite:///{file}", "tracking database {file} is not a SQLite file: move the file away"),
    ("--tracking-uri http://127.0.0.1:9", "tracking server http://127.0.0.1:9 cannot be reached"),
    (
        "--tracking-uri mysql+nodriver://127.0.0.1/mlflow",
        "tracking server mysql+nodriver://127.0.0.1/mlflow is not the address",
    ),
    ("--tracking-uri postgresql://me:secret@127.0.0.1:9/m", "tracking server postgresql://127.0.0.1:9/m "),
    ("--tracking-uri http://nowhere.invalid:5000", "tracking server http://nowhere.invalid:5000 "),
    ("--gpus-per-trial 64", "--gpus-per-trial 64: there "),
    (
        "--gpus-per-trial 1.5",
        "--gpus-per-trial 1.5: write auto, 0, a fraction of one GPU such as 0.25, or a whole number",
    ),
    ("--resume", "nothing to resume: {new}/main has no result and no checkpoint of these cells"),
    ("--resume --report", "nothing to resume: {new}/main has no result and no checkpoint of these cells"),
    ("--resume --storage {taken}", "nothing to resume: {taken}/main has no result"),
    ("--fresh --storage {taken}", "--fresh: {taken}/main already exists; choose a new --name"),
    ("--fresh --plan --storage {taken}", "--fresh: {taken}/main already exists; choose a new --name"),
    ("--resume --fresh", "--resume and --fresh exclude each other"),
    ("--plan --report", "--plan and --report exclude each other"),
]


@pytest.mark.usefixtures("nothing_starts")
@pytest.mark.parametrize(("typed", "said"), BAD, ids=[typed for typed, _ in BAD])
def test_bad_input_gives_a_one_line_error_and_starts_and_writes_nothing(
    place: Place, capsys: pytest.CaptureFixture[str], typed: str, said: str
) -> None:
    argv = [place.fill(word) for word in typed.split()]
    before = place.files()
    began = time.monotonic()
    code = run(*([] if "--storage" in argv else ["--storage", place.fill("{new}")]), *argv)
    printed = capsys.readouterr()
    assert code == BAD_INPUT, printed
    assert place.fill(said) in printed.err
    assert printed.err.count("\n") == 1 and printed.err.endswith("\n")
    announced = "Preparing digits, which usually takes a few seconds\n"  # before the cache is opened
    assert printed.out == announced * ("--cache" in argv)
    assert time.monotonic() - began < 10
    assert place.files() == before


@pytest.mark.usefixtures("nothing_starts")
def test_too_many_gpus_are_refused_with_the_number_that_exists(
    place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for there, said in ((0, "there is no GPU here; write 0 or auto"), (2, "there are 2 GPUs here; ask for at most 2")):
        monkeypatch.setattr("sweeps.engine.attach.gpus", lambda there=there: there)
        assert run("--storage", place.fill("{new}"), "--gpus-per-trial", "3") == BAD_INPUT
        assert said in capsys.readouterr().err
    assert not (place.root / "new").exists()


@pytest.mark.usefixtures("nothing_starts")
@pytest.mark.parametrize("address", ["127.0.0.1:9", "127.0.0.1:99999"])
def test_a_cluster_that_cannot_be_reached_is_refused_at_once_and_nothing_is_written(
    place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    before = place.files()
    began = time.monotonic()
    assert run("--storage", place.fill("{new}"), "--cache", place.fill("{new}-cache")) == BAD_INPUT
    assert time.monotonic() - began < 10
    printed = capsys.readouterr()
    assert printed.err.startswith(f"RAY_ADDRESS {address}: cannot connect to a Ray cluster there (")
    assert printed.err.count("\n") == 1
    assert place.files() == before


@pytest.mark.usefixtures("nothing_starts")
def test_ray_client_is_refused_before_anything_starts(
    place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "ray://127.0.0.1:10001")
    assert run("--storage", place.fill("{new}"), "--cache", place.fill("{new}-cache")) == BAD_INPUT
    said = capsys.readouterr().err
    assert said.startswith(
        "RAY_ADDRESS ray://127.0.0.1:10001: a sweep cannot run through Ray Client. Run the command on the"
    )


def test_more_gpus_than_a_cluster_has_are_refused_before_anything_is_written(
    place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, silent_server: str
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", silent_server.removeprefix("http://"))
    monkeypatch.setattr("sweeps.engine.attach.cluster", lambda: nullcontext(Capacity(8, 1)))
    before = place.files()
    argv = ["--storage", place.fill("{new}"), "--cache", place.fill("{new}-cache"), "--gpus-per-trial", "2"]
    assert run(*argv) == BAD_INPUT
    assert (
        capsys.readouterr().err
        == "--gpus-per-trial 2: there is 1 GPU in this cluster at its full size; ask for at most 1, or auto\n"
    )
    assert place.files() == before


@pytest.mark.usefixtures("nothing_starts")
def test_a_namespace_edited_by_hand_is_refused(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    (place.root / "taken" / "main" / "namespace").write_text("mine", encoding="utf-8")
    assert run("--storage", place.fill("{taken}"), "--cache", place.fill("{new}")) == BAD_INPUT
    assert "instead of the UUID that marks the MLflow runs: restore or delete the file" in capsys.readouterr().err


@pytest.mark.usefixtures("nothing_starts")
@pytest.mark.parametrize("uri", ["./mlruns", "sqlite:////a/b.db?mode=ro", "https//forgotten:5000"])
def test_a_bad_tracking_uri_in_the_environment_is_named_but_plan_and_report_ignore_it(
    place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, uri: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    argv = ["--storage", place.fill("{new}"), "--cache", place.fill("{new}-cache")]
    assert run(*argv, "--plan") == COMPLETE
    Store.open(Path(place.fill("{new}")), "main", create=True)
    assert run(*argv, "--report") == INCOMPLETE
    assert capsys.readouterr().err == ""
    assert run(*argv) == BAD_INPUT
    printed = capsys.readouterr().err
    assert printed.startswith(f"$MLFLOW_TRACKING_URI {uri} ")
    assert printed.count("\n") == 1


@pytest.mark.usefixtures("nothing_starts")
def test_missing_data_that_cannot_be_downloaded_are_refused(
    place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_internet(*_: object, **__: object) -> NoReturn:
        raise socket.gaierror("Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", no_internet)
    assert run("--storage", place.fill("{new}"), "--dataset", "fashion_mnist") == BAD_INPUT
    printed = capsys.readouterr()
    assert printed.err.count("\n") == 1
    assert "FashionMNIST, and downloading it failed" in printed.err
    assert "give --data-root a folder that holds FashionMNIST/raw/train-images-idx3-ubyte" in printed.err
    assert printed.out == ""
    assert not (place.root / "new").exists()


@pytest.mark.usefixtures("nothing_starts")
@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("--dataset fashion_mnist", "FashionMNIST, and downloading it failed"),
        ("--tracking-uri http://example.org:5000", "tracking server http://example.org:5000 cannot be reached"),
    ],
)
def test_dead_proxies_give_a_one_line_error(
    place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, typed: str, said: str
) -> None:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    began = time.monotonic()
    assert run("--storage", place.fill("{new}"), *typed.split()) == BAD_INPUT
    printed = capsys.readouterr()
    assert said in printed.err
    assert printed.err.count("\n") == 1
    assert time.monotonic() - began < 60
    assert not (place.root / "new").exists()


@pytest.mark.usefixtures("nothing_starts")
@pytest.mark.parametrize("look", ["--plan", "--report"])
def test_plan_and_report_download_nothing(
    place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, look: str
) -> None:
    asked: list[object] = []
    monkeypatch.setitem(DATASETS, "fashion_mnist", replace(DATASETS["fashion_mnist"], download=asked.append))
    before = set(place.root.rglob("*"))
    assert run("--storage", place.fill("{new}"), "--dataset", "fashion_mnist", look) == BAD_INPUT
    printed = capsys.readouterr()
    assert printed.err.startswith(place.fill("{empty}/FashionMNIST/raw has no train-images-idx3-ubyte (or .gz): "))
    assert printed.err.endswith(
        "; --plan and --report download nothing. To download the files: mvae prepare fashion_mnist\n"
    )
    assert asked == []
    assert set(place.root.rglob("*")) == before


@pytest.fixture
def silent_server() -> Iterator[str]:
    """Address of a server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


@pytest.mark.usefixtures("nothing_starts")
def test_a_tracking_server_that_does_not_answer_is_refused_within_10_seconds(
    place: Place, capsys: pytest.CaptureFixture[str], silent_server: str
) -> None:
    began = time.monotonic()
    assert run("--storage", place.fill("{new}"), "--tracking-uri", silent_server) == BAD_INPUT
    assert time.monotonic() - began < 10
    assert f"tracking server {silent_server} did not answer within 5 s: start it" in capsys.readouterr().err
    assert not (place.root / "new").exists()


def test_random_subsets_of_two_modalities_are_refused() -> None:
    with pytest.raises(Refusal) as refusal:
        Trial.create(dataset="digits", model="mvae", k=1)
    assert str(refusal.value) == (
        "k = 1 needs at least 3 modalities to choose subsets from: digits has 2, so use k = 0"
    )


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("--arms gan", "unknown arm 'gan': choose one of nn, logreg, rbm, vae, jmvae, mvae, mvae_q, cvae"),
        ("--storage {file}/in/it", "--storage {file}/in/it is not a folder"),
        ("--tracking-uri http://127.0.0.1:9", "tracking server http://127.0.0.1:9 cannot be reached"),
    ],
)
def test_a_refused_command_exits_with_code_2_and_prints_one_line(place: Place, typed: str, said: str) -> None:
    before = place.files()
    done = subprocess.run(
        [sys.executable, str(PIPELINE), *(place.fill(word) for word in typed.split())],
        capture_output=True,
        encoding="utf-8",
        cwd=place.root,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1"},
        timeout=120,
    )
    assert done.returncode == BAD_INPUT, done.stderr
    assert place.fill(said) in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
    assert place.files() == before
