"""The folder of a storage name: its files, refusals, and a namespace that never changes."""

import errno
import os
import pickle
import uuid
from dataclasses import replace
from pathlib import Path

import pytest

from mvae.refusal import Refusal
from mvae.storage.files import Folder
from mvae.storage.objects import place
from sweeps.store.results import Result
from sweeps.store.store import Store
from tests.crashes import files_below, killed_at_any_line, on_disk


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "runs", "main", create=True)


def test_a_relative_storage_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Store.open("runs", "main", create=False).folder == place(tmp_path / "runs" / "main")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "a/b", "a b", "-x", "mlartifacts", "mlflow.db", "x" * 65])
def test_a_storage_name_that_is_no_simple_token_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(Refusal, match=r"--name .* is not a valid name") as error:
        Store.open(tmp_path, name, create=True)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_an_unwritable_storage_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    for root in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/nowhere")):
        with pytest.raises(Refusal, match=r"--storage .* cannot be written \(.+\)") as error:
            Store.open(root, "main", create=True)
        assert "\n" not in str(error.value)
    with pytest.raises(Refusal, match="is a file"):
        Store.open(tmp_path / "file", "main", create=False)


def test_a_used_up_quota_is_refused_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def used_up(folder: Folder) -> None:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    monkeypatch.setattr(Folder, "prove_writable", used_up)
    with pytest.raises(Refusal) as error:
        Store.open(tmp_path, "main", create=True)
    assert str(error.value) == (
        f"--storage {tmp_path} cannot be written (Disk quota exceeded); delete your own files on this disk, or ask for"
        " a larger quota, or choose another folder"
    )


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("ftp://host/runs", "pyarrow cannot open the URI"),
        ("s3:///runs", "the URI has no bucket"),
        ("s3://bucket/runs?endpoint=127.0.0.1", "unknown s3:// option endpoint: choose from endpoint_override, region"),
        ("file://host/runs", "a file URI must be absolute"),
    ],
)
def test_a_uri_with_an_unknown_scheme_is_refused_in_one_line(uri: str, said: str) -> None:
    with pytest.raises(Refusal, match=r"^[^\n]+$") as refusal:
        Store.open(uri, "main", create=False)
    assert said in str(refusal.value)


def test_opening_a_storage_leaves_no_probe_file_and_prints_nothing(
    store: Store, capfd: pytest.CaptureFixture[str]
) -> None:
    Store.open(store.root, store.name, create=True)
    assert files_below(store.root) == set()
    assert capfd.readouterr() == ("", "")


def test_files_are_stored_at_the_documented_paths(store: Store) -> None:
    store.results.write(Result("k", "accuracy-v1", {}, {}, {}, []))
    store.checkpoints("k", "a").save(1, {"model.pt": {}}, [], {})
    store.namespace()
    assert files_below(store.root) == {
        "main/namespace",
        "main/results/k.accuracy-v1.json",
        "main/checkpoints/k/000001-a/model.pt",
        "main/checkpoints/k/000001-a/manifest.json",
    }
    assert store.reports == store.folder / "reports"
    assert store.traceback("k") == store.folder / "errors" / "k.txt"
    assert store.artifacts("k") == store.folder / "artifacts" / "k"


def test_a_pickled_store_works_in_another_process(store: Store) -> None:
    assert pickle.loads(pickle.dumps(store)) == store


def test_many_concurrent_processes_create_the_namespace_once(store: Store) -> None:
    receive, send = os.pipe()
    children = []
    for _ in range(6):
        pid = os.fork()
        if pid == 0:
            try:
                os.write(send, f"{store.namespace()}\n".encode())
            finally:
                os._exit(0)
        children.append(pid)
    os.close(send)
    with os.fdopen(receive, encoding="utf-8") as answers:
        made = answers.read().split()
    for pid in children:
        os.waitpid(pid, 0)
    assert len(made) == 6
    assert set(made) == {store.namespace()}


def test_a_namespace_survives_a_kill_at_any_line(store: Store) -> None:
    path = store.folder / "namespace"
    for _ in killed_at_any_line(
        store.namespace,
        ("sweeps/store/store.py", "mvae/storage/files.py"),
        lambda: path.unlink(missing_ok=True),
        store.root,
    ):
        before = path.read_bytes().decode().strip() if path.exists() else None
        after = store.namespace()
        assert str(uuid.UUID(after)) == after
        assert before in (None, after)


def test_opening_a_namespace_edited_by_hand_is_refused(store: Store) -> None:
    on_disk(store.folder / "namespace").write_text("mine", encoding="utf-8")
    with pytest.raises(Refusal, match="instead of the UUID"):
        store.namespace()


def test_a_mark_is_seen_only_by_machines_that_see_the_storage(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "not" / "yet", "main", create=False)
    with store.mark() as mark:
        assert mark.why_unseen() == ""
        assert replace(mark, text="another machine's").why_unseen() == "the file has other content"
        assert replace(mark, path=place(tmp_path / "elsewhere")).why_unseen() == "No such file or directory"
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_the_same_path_on_another_machine_is_not_mistaken_for_the_storage(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "shared", "main", create=True)
    store.check_is(store.namespace())
    store.check_is("")
    with pytest.raises(Refusal, match=r"does not see the sweep's storage in .*shared/main \([0-9a-f-]{36}\)"):
        store.check_is("12345678-1234-1234-1234-123456789012")
    other = Store.open(tmp_path / "own", "main", create=False)
    with pytest.raises(Refusal, match=r"\(No such file or directory\): use a folder that every machine"):
        other.check_is(store.namespace())
