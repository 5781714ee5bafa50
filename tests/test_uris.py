"""Any path can be a storage, a tracking database or a study: percent signs, question marks, umlauts."""

from __future__ import annotations

import base64
import http.server
import shutil
import string
import threading
from dataclasses import replace
from pathlib import Path

import mlflow
import pytest
from sqlalchemy import make_url

from mvae.refusal import Refusal
from mvae.storage.files import write_atomically
from mvae.storage.objects import RemotePath, place
from pipelines.search import Options, command, search
from sweeps.cli.options import read
from sweeps.cli.tracking_uri import default_uri, place_of_artifacts, tracking_uri, without_credentials
from sweeps.search.database import study_uri
from sweeps.search.study import look, opened
from sweeps.store.results import Result
from sweeps.store.sqlite import sqlite_path, sqlite_uri
from sweeps.store.store import Store
from sweeps.tracking.server import ask
from tests.tracked import KEYS, Storage, expected_rows, finished

PRINTABLE = "".join(sorted(set(map(chr, range(32, 127))) - {"/"}))
FOLDERS = ["ci%2Fmain", "a%20b", "a?b", "a b#c", "it's", "Übung", PRINTABLE]
"""Names of folders. Jenkins names workspaces like the first. The last has every printable ASCII character."""
IDS = ["percent-slash", "percent-space", "question-mark", "space-hash", "quote", "umlaut", "printable"]


@pytest.mark.parametrize("character", PRINTABLE + "ü", ids=ord)
def test_a_path_with_any_characters_round_trips_through_an_sqlalchemy_uri(character: str) -> None:
    for path in (Path(f"/a{character}b/c.db"), Path(f"/a/b{character}"), Path(f"/{character}a/.{character}2F")):
        uri = sqlite_uri(path)
        assert make_url(uri).database == str(path)
        assert sqlite_path(uri) == path
        assert tracking_uri(uri) == uri


@pytest.mark.parametrize("folder", FOLDERS, ids=IDS)
def test_mlflow_and_its_artifacts_lie_in_the_storage_for_any_folder_name(
    folder: str, tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    options = read(Options, ["--storage", folder])
    root = tmp_path / folder
    assert options.storage == root and tracking_uri(options.tracking_uri) == default_uri(root)
    root.mkdir()
    shutil.copyfile(empty_database, root / "mlflow.db")
    here = Storage(root, tracking_uri(options.tracking_uri))
    write_atomically(root / "pictures" / "a.png", b"picture")
    view = replace(finished(KEYS[0]), artifacts=root / "pictures")
    assert here.driver(view).close()
    assert here.said == []
    assert here.rows() == expected_rows(view)
    assert [path.read_bytes() for path in (root / "mlartifacts").rglob("a.png")] == [b"picture"]
    (run,) = mlflow.MlflowClient(here.uri).search_runs(["1"], "tags.`mvae.kind` = 'trial'")
    assert mlflow.artifacts.load_text(f"{run.info.artifact_uri}/samples/a.png") == "picture"
    assert [path.name for path in tmp_path.iterdir()] == [folder], "no file may be outside the storage"


@pytest.mark.parametrize("folder", FOLDERS, ids=IDS)
def test_results_and_the_study_lie_in_the_storage_for_any_folder_name(folder: str, tmp_path: Path) -> None:
    store = Store.open(tmp_path / folder, "main", create=True)
    of = search(read(Options, ["--trials", "2", "--epochs", "1"]))
    store.results.write(Result("k", "accuracy-v1", {}, {}, {}, []))
    uri = study_uri(Store.open(str(store.root), "main", create=False), None)
    assert look(of, uri) == []
    with opened(of, uri) as study:
        study.settle(store)
        assert study.ask(store) is not None
    assert (store.folder / "study.db").version().size > 0
    assert len(look(of, uri)) == 1
    assert [path.name for path in tmp_path.iterdir()] == [folder], "no file may be outside the storage"


@pytest.mark.parametrize("folder", ["ci%2Fmain", "a?b"])
def test_a_uri_that_means_another_file_is_refused_with_the_one_to_type(folder: str, tmp_path: Path) -> None:
    (tmp_path / folder).mkdir()
    meant, store = tmp_path / folder / "mlflow.db", Store.open(tmp_path, "main", create=False)
    with pytest.raises(Refusal, match=r"^--tracking-uri sqlite.* means the file .*: to use .*, write sql") as refusal:
        tracking_uri(f"sqlite:///{meant}", "--tracking-uri")
    right = str(refusal.value).rpartition(" write ")[2]
    assert sqlite_path(right) == meant
    assert tracking_uri(right) == right == study_uri(store, right)
    with pytest.raises(Refusal, match=r"^--study-uri sqlite.* means the file"):
        study_uri(store, f"sqlite:///{meant}")


@pytest.mark.parametrize(
    "uri", ["sqlite:///:memory:", "sqlite:////a/b.db?timeout=5", "sqlite:////a/b.db?mode=ro&uri=true"]
)
def test_a_uri_that_names_no_file_is_refused(uri: str) -> None:
    with pytest.raises(Refusal, match=r"does not name a file: write sqlite:////ABSOLUTE/PATH"):
        tracking_uri(uri)


def test_a_relative_study_path_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert (
        study_uri(Store.open(tmp_path, "main", create=False), "sqlite:///study.db") == f"sqlite:///{tmp_path}/study.db"
    )
    assert study_uri(Store.open(tmp_path, "main", create=False), "postgresql://host/b") == "postgresql://host/b"


@pytest.mark.parametrize("character", string.punctuation.replace("/", "").replace(".", "") + " ü", ids=ord)
def test_an_object_uri_round_trips(character: str) -> None:
    path = RemotePath(f"a{character}b/{character}2F", "s3", "bucket", "endpoint_override=127.0.0.1:9000&scheme=http")
    assert RemotePath.of(path.uri) == path
    assert place(replace(path, authority="KEY:SECRET@bucket").uri) == path, "a URI contains no credentials"


def test_a_bucket_folder_that_mlflow_would_truncate_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match=r"^--storage s3://bucket/a%3Fb: MLflow cuts"):
        place_of_artifacts("postgresql://host/mlflow", place("s3://bucket/a%3Fb"))


def test_a_tilde_with_an_unknown_user_name_is_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Store.open("~nobody-has-this", "main", create=False).root == place(tmp_path / "~nobody-has-this")


def test_percent_encoded_server_credentials_are_decoded_before_use() -> None:
    sent: list[str] = []

    class Server(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            sent.append(self.headers["Authorization"])
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert ask(f"http://me%40home:p%2Fss%3A1@127.0.0.1:{server.server_port}") == ""
        server.shutdown()
    assert sent == ["Basic " + base64.b64encode(b"me@home:p/ss:1").decode()]


def test_the_command_printed_by_a_search_works_in_any_folder_and_shows_no_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    uri = "s3://KEY:SECRET@bucket/runs?endpoint_override=127.0.0.1:9000&scheme=http"
    options = read(Options, ["--epochs", "1", "--storage", uri, "--tracking-uri", "sqlite:///mlflow.db"])
    line = command(search(options).default, options)
    words = line.split()
    assert Path(words[1]).is_absolute() and Path(words[1]).is_file()
    assert f"--tracking-uri sqlite:///{tmp_path}/mlflow.db" in line
    assert "'s3://bucket/runs?endpoint_override=127.0.0.1:9000&scheme=http'" in line
    assert "SECRET" not in line
    private = read(Options, ["--epochs", "1", "--tracking-uri", "http://me:hidden@host:5000"])
    line = command(search(private).default, private)
    assert line.endswith("--tracking-uri http://host:5000")


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("http://user:secret@host:5000", "http://host:5000"),
        ("http://user:sec@ret@host:5000/a@b", "http://host:5000/a@b"),
        ("postgresql://user:sec/ret@host/db", "postgresql://host/db"),
        ("mysql+pymysql://user:it's@host/db", "mysql+pymysql://host/db"),
        ("postgresql://host/db?user=me&password=secret&x=1", "postgresql://host/db?user=me&password=...&x=1"),
        ("sqlite:////home/a@b/mlflow.db", "sqlite:////home/a@b/mlflow.db"),
        ("--tracking-uri 'http://u:p@host' --name a@b", "--tracking-uri 'http://host' --name a@b"),
    ],
)
def test_no_password_in_a_uri_is_shown(written: str, shown: str) -> None:
    assert without_credentials(written) == shown
