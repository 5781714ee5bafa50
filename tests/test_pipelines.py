"""Claims about every pipeline: bad input gives a one-line error, and a killed sweep ends with the same numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from mvae.data import DATASETS
from mvae.data.faces import vision
from mvae.data.faces.celeba import CELEBA, CELEBA19
from mvae.data.faces.faces import describe, drawn
from mvae.evaluation.vision_tasks import FIGURES
from sweeps.main import BAD_INPUT
from sweeps.trials.messages import TRANSLATIONS
from tests.corpora import PAIRS, write_corpus
from tests.pipelines_run import assert_as_computed_alone, command, jobs, run, sweep
from tests.sweeping import Ended, Place, mlflow_differs, place, run_until
from tests.tiny_mnist import write_tiny

BAD = {
    "k_sweep --data-root raw": [
        ("--ks -1", "--ks -1: -1 is not a whole number; write whole numbers or ranges, such as 0-2 or 0,3,5-7"),
        ("--ks 1.5", "--ks 1.5: 1.5 is not a whole number"),
        ("--ks 1001", "--ks 1001: input should be less than or equal to 1000"),
        ("--ks 0-99999999", "--ks 0-99999999: the range 0-99999999 has more than 10,000 whole numbers"),
        (
            "--ks 1 --dataset digits",
            "k = 1 needs at least 3 modalities to choose subsets from: digits has 2, so use k = 0",
        ),
        ("--noise loud", "--noise loud: input should be 'free' or 'fixed'"),
        ("--arms vae", "arm vae samples no subsets of modalities: choose among mvae, mvae_q"),
        ("--arms nn", "arm nn has no likelihood: choose among vae, jmvae, mvae, mvae_q, cvae"),
        ("--dataset foo", "unknown data set 'foo'"),
        ("--train-examples 51", "mnist19 has only 50 training examples, not 51"),
    ],
    "missing_modalities --data-root raw": [
        (
            "--keep-probabilities 0",
            "--keep-probabilities 0: 0 is not a keep probability; write numbers above 0",
        ),
        ("--keep-probabilities 0.1,1.5", "--keep-probabilities 0.1,1.5: 1.5 is not a keep probability; write"),
        (
            "--keep-probabilities 0.00001",
            "keep probability 0.00001 is too small: fewer than 2 of 50 training examples keep a value",
        ),
        ("--dataset digits", "digits has no attributes to predict: choose among mnist19"),
        ("--dataset foo", "unknown data set 'foo'"),
        ("--arms vae", "arm vae has no attributes: choose among jmvae, mvae, mvae_q"),
        ("--arms jmvae", "arm jmvae cannot be trained with missing values: choose among mvae, mvae_q"),
        ("--samples 1", "--samples 1: input should be greater than or equal to 2"),
        ("--train-examples 51", "mnist19 has only 50 training examples, not 51"),
        ("--train-examples 1", "--train-examples 1: input should be greater than or equal to 2"),
    ],
    "vision": [
        ("--dataset digits", "digits has no edges and masks of faces to predict: choose among vision, "),
        ("--dataset vision_images", "vision_images reads a folder of images: name the folder with --images FOLDER"),
        ("--images . --dataset vision", "--images replaces the data set: leave --dataset vision out"),
        (
            "--images . --data-root .",
            "--images and --data-root both name the folder of the raw files: give only one of them",
        ),
        ("--images none-there", "none-there is not a folder: give a folder of images with --images"),
        ("--arms vae", "arm vae has no vision: choose among mvae, mvae_q"),
        ("--arms jmvae", "arm jmvae has no vision: choose among mvae, mvae_q"),
        ("-k 60", "k = 60 is too large: only 56 subsets have 2 to 5 modalities"),
        ("--targets some", "--targets some: input should be 'own' or 'all'"),
        ("--image-network cnn", "image network 'cnn' does not fit vision_faces_small: choose dcgan, mlp"),
    ],
    "translation": [
        ("--dataset digits", "digits has no sentences in two languages to translate: choose among translation"),
        ("--dataset foo", "unknown data set 'foo'"),
        (
            "--corpus here --data-root here",
            "--corpus and --data-root both name the folder of the raw files: give only one of them",
        ),
        (
            "--corpus here --dataset toy_translation",
            "--corpus needs --dataset translation, not toy_translation: leave one of the two options out",
        ),
        ("--corpus nowhere", "nowhere/en-vi holds no corpus: put train.A, train.B"),
        ("--corpus here", "here/valid.xx, line 2 is empty: each line of a corpus file must hold a sentence"),
        ("--arms nn", "arm nn has no translation: choose among jmvae, mvae, mvae_q"),
        ("--vocabulary 0", "--vocabulary 0: input should be greater than or equal to 1"),
        ("--paired-fraction 0.0001", "fraction 0.0001 keeps no pairs: toy_translation has 2,000 training examples"),
        ("--targets some", "--targets some: input should be 'own' or 'all'"),
        ("--image-network dcgan", "image network 'dcgan' does not fit toy_translation: choose none"),
        ("--samples 1", "--samples 1: input should be greater than or equal to 2"),
    ],
    "likelihoods": [
        (
            "--arms nn",
            "arm nn has no likelihood: choose among vae, jmvae, mvae, mvae_q, cvae, mopoe, mvtcae, mmvae, mmvae_plus\n",
        ),
        ("--arms rbm", "arm rbm has no likelihood"),
        ("--preset paper", "--preset paper: Tables 1 and 2 have no column for digits\n"),
        ("--dataset nothing", "unknown data set 'nothing'"),
        (
            "--arms mvae19",
            "arm mvae19 needs a data set with attributes as one modality, unlike digits:"
            " give --dataset celeba or faces\n",
        ),
        ("--dataset celeba19 --arms jmvae", "arm 'jmvae' does not support attributes as modalities of their own"),
        (
            "--binarisation fixed,dynamic",
            "binarisation = dynamic needs grey images, which digits does not have: choose --dataset binary_mnist",
        ),
        (
            "--dataset binary_mnist --binarisation twice",
            "--binarisation twice: input should be 'fixed' or 'dynamic'\n",
        ),
        ("--samples 1", "--samples 1: input should be greater than or equal to 2\n"),
        ("--samples 0", "--samples 0: input should be greater than or equal to 2\n"),
        ("--samples 99999999999", "--samples 99999999999: input should be less than or equal to 1000000\n"),
    ],
    "train": [
        ("--workers-per-trial 2", "--workers-per-trial has no effect on a single model: give --workers instead"),
        ("--workers 3 --batch-size 100", "batch size 100 cannot be split evenly between 3 workers: choose 99 or 102"),
        ("--workers 1000 --batch-size 1000", "1000 workers per trial: there are "),
        ("--paired-fraction 0.00001", "fraction 0.00001 keeps no pairs: digits has"),
    ],
    "search": [
        ("--objective test/accuracy", "--objective test/accuracy: write a validation metric"),
        (
            "--objective validation/elbo",
            "--objective validation/elbo: arm mvae on digits does not have this metric: choose among validation/",
        ),
        ("--vary seed", "--vary seed: arm mvae on digits can vary only learning_rate, latents"),
        ("--vary latents --latents 9", "--vary latents: another option fixes this setting"),
        ("--arms logreg", "nothing to search for: arm logreg on digits reads none of learning_rate"),
        ("--arms mvae,nn", "a search has one arm and one seed: give one value to --arms and one to --seeds"),
        ("--workers-per-trial 2", "a search trains each trial in one process"),
        ("--trials 0", "--trials 0: input should be greater than or equal to 1"),
        ("--study-uri nonsense", "the study's database nonsense cannot be used"),
        (
            "--study-uri sqlite:////no/such/study.db",
            "--study-uri sqlite:////no/such/study.db: folder /no/such does not exist or is not writable",
        ),
        (
            "--annealing-share 0.5 --annealing-epochs 3",
            "--annealing-epochs and --annealing-share exclude each other (both set how long beta rises)",
        ),
        ("--price-per-hour 2", "--price-per-hour has an effect only with --plan: add --plan"),
        ("--paired-fraction 0.0001", "fraction 0.0001 keeps no pairs: digits has"),
    ],
}
"""Commands with the start of their error line; weak_supervision's are in tests/test_bad_input.py."""

EVERY = [(f"{pipeline} {typed}", said) for pipeline, lines in BAD.items() for typed, said in lines]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: `raw` has MNIST's files in miniature, `here` a corpus with an empty line."""
    monkeypatch.chdir(tmp_path)
    write_tiny(tmp_path / "raw")
    (write_corpus(tmp_path / "here") / "valid.xx").write_text("a\n\nb\nc\n", encoding="utf-8")
    faces = (describe("faces", separate=False, count=48), describe("faces19", separate=True, count=48))
    small = vision.describe_faces("vision_faces_small", count=36)
    for one in (CELEBA, CELEBA19, *faces, small):
        monkeypatch.setitem(DATASETS, one.name, one)
    return tmp_path


@pytest.mark.usefixtures("no_cluster")
@pytest.mark.parametrize(("typed", "said"), EVERY, ids=[typed for typed, _ in EVERY])
def test_bad_input_gives_a_one_line_error_and_nothing_is_written(
    here: Path, capsys: pytest.CaptureFixture[str], typed: str, said: str
) -> None:
    before = set(here.rglob("*"))
    assert run(*typed.split(), "--storage", "new", "--cache", "cache") == BAD_INPUT
    printed = capsys.readouterr()
    assert printed.err.replace(f"{here}/", "").startswith(said)
    assert printed.err.count("\n") == 1 and printed.out == ""
    assert set(here.rglob("*")) == before


@dataclass(frozen=True)
class Cut:
    """A sweep that is interrupted."""

    asked: str
    data: str
    """Option that names its data."""
    write: Callable[[Path], object]
    """Function that writes the data."""
    runs: set[str]
    """Names of its runs in MLflow."""
    report: set[str]
    """Some of the files in its report."""
    after: int | None = None
    """Total epochs after which the driver is killed. With None, one trial is interrupted after 3 epochs."""


def write_faces(root: Path) -> None:
    root.mkdir()
    for number, face in enumerate(drawn(3, 0, 13)):
        face.resize((64, 78)).save(root / f"{number}.png")


CUTS = {
    "k_sweep": Cut(
        "--ks 0,3 --epochs 10 --samples 3 --latents 4 --train-examples 30",
        *("--data-root", write_tiny),
        {f"MVAE19 {noise} noise k={k} seed 0" for noise in ("free", "fixed") for k in (0, 3)},
        {"figure-6.png", "table.md", "table.csv"},
    ),
    "missing_modalities": Cut(
        "--keep-probabilities 0.2,1 --epochs 10 --samples 3 --latents 4",
        *("--data-root", write_tiny),
        {"MVAE19 20% seed 0", "MVAE19 100% seed 0"},
        {"figure-5.png", "attributes.png", "details.csv", "details.md", "table.md"},
    ),
    "vision": Cut(
        "--epochs 2 --latents 4 --image-network dcgan -k 0 --batch-size 11",
        *("--images", write_faces),
        {"MVAE6 seed 0"},
        {f"{name}.png" for name in FIGURES} | {"table.md", "table.csv"},
        after=1,
    ),
    "translation": Cut(
        "--epochs 6 --train-examples 60 --latents 3 --samples 2 --batch-size 20 --targets own,all",
        *("--corpus", lambda root: write_corpus(root, train=PAIRS * 50)),
        {"MVAE own seed 0", "MVAE all seed 0"},
        {TRANSLATIONS, "table.md", "runs.csv"},
        after=3,
    ),
}


@pytest.mark.slow
@pytest.mark.timeout(2400)
@pytest.mark.parametrize("pipeline", CUTS)
def test_an_interrupted_sweep_ends_with_the_numbers_of_undisturbed_trials_and_its_report_in_mlflow(
    pipeline: str, tmp_path: Path
) -> None:
    cut = CUTS[pipeline]
    if pipeline == "vision":
        pytest.importorskip("dlib", reason="dlib-bin is not installed (the extra vision)")
    with place(begun=True) as here:
        root = here.root / "data"
        cut.write(root)
        asked = (*cut.asked.split(), cut.data, str(root))
        whole, typed = sweep(pipeline, *asked), command(here, pipeline, asked)
        if (epochs := cut.after) is None:
            run_until(jobs(here, whole.cells, root)[0], 3)
        else:
            driver = here.launch(typed)
            driver.until(lambda: sum(here.epochs().values()) >= epochs, "it had trained for some epochs")
            driver.kill()
        again = here.launch([*typed, "--resume"]).ended()
        assert again.code == 0, again
        assert "cannot log the model" not in again.out
        assert_as_computed_alone(here, whole.cells, root, tmp_path)
        assert mlflow_differs(here) == []
        dataset = whole.cells[0].trial.dataset
        assert {run.info.run_name for run in here.children()} == {f"{dataset} {name}" for name in cut.runs}
        logged = {path.name for path in (here.storage / "mlartifacts").glob("*/artifacts/report/*")}
        assert logged >= cut.report
        assert {path.name for path in (here.store.reports / whole.name).iterdir()} == logged
        ALSO.get(pipeline, resumed)(here, again)


def resumed(here: Place, _: Ended) -> None:
    """Asserts that the interrupted trial resumed from its checkpoint."""
    attempts = [[one["from_epoch"] for one in result.provenance["attempts"]] for result in here.results().values()]
    assert attempts.count([0, 3]) == 1


def drew(here: Place, _: Ended) -> None:
    """Asserts that a trial's figures are stored with its other pictures."""
    (key,) = here.results()
    pictures = {path.name for path in Path(str(here.store.artifacts(key))).glob("*.png")}
    assert pictures >= {f"{name}.png" for name in FIGURES}


def counted(_: Place, again: Ended) -> None:
    """Asserts that a corpus's facts are printed at the start and below the table."""
    assert again.out.count("translation: train has 200 pairs, 0 left out") == 2


ALSO: dict[str, Callable[[Place, Ended], None]] = {"vision": drew, "translation": counted}
"""Further checks of single pipelines."""
