"""Claims about every place (folder, object storage, memory) and about the state kept there."""

from __future__ import annotations

import errno
import hashlib
import re
import threading
import time
from pathlib import Path

import pytest
import torch

from mvae.refusal import Refusal
from mvae.storage.files import set_aside
from mvae.storage.objects import place
from mvae.storage.place import Place, each
from mvae.training.checkpoint import Checkpoints
from mvae.training.records import MANIFEST, MODEL
from sweeps.store.lease import Lease
from sweeps.store.results import Result, ResultConflict, Results
from sweeps.store.store import Store
from tests.bucket import endpoint, remote
from tests.memory import Disk, Memory

__all__ = ["endpoint"]


@pytest.fixture(params=["folder", "objects", "memory", "memory without locks"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """An empty place for one test."""
    if request.param == "folder":
        return place(tmp_path / "root")
    if request.param == "objects":
        name = re.sub(r"[^a-z0-9]+", "-", request.node.name)[-60:]
        return remote(request.getfixturevalue("endpoint"), f"bucket/{name}")
    return Memory("root", Disk(has_locks=request.param == "memory"))


def test_a_place_writes_lists_reads_replaces_and_deletes_files(root: Place) -> None:
    path = root / "a" / "b.txt"
    assert not path.exists() and root.listing() == {}
    path.write_bytes(b"one")
    path.write_bytes(memoryview(b"three"))
    assert path.read_bytes() == b"three"
    assert path.is_file() and path.parent.is_dir() and not path.is_dir() and not path.parent.is_file()
    assert (path.name, path.parent, root / "." / "a//b.txt") == ("b.txt", root / "a", path)
    (root / "c").write_bytes(b"")
    assert root.listing() == {"a/b.txt": path.version(), "c": (root / "c").version()}
    assert sorted(below.name for below in root.iterdir()) == ["a", "c"]
    size, changed = path.version()
    assert size == 5 and abs(changed / 1e9 - time.time()) < 60
    path.unlink()
    path.unlink(missing_ok=True)
    assert list(root.listing()) == ["c"]


def test_a_missing_file_raises_an_error_with_its_name(root: Place) -> None:
    path = root / "missing"
    for asks in (path.read_bytes, path.version, path.unlink):
        with pytest.raises(FileNotFoundError, match="missing") as error:
            asks()
        assert error.value.errno == errno.ENOENT and error.value.strerror
    assert not path.is_dir() and not path.is_file()


def test_a_folder_is_deleted_with_its_contents_and_may_be_missing(root: Place) -> None:
    for name in ("a/b/c", "a/d", "ab"):
        (root / name).write_bytes(b"1")
    for _ in range(2):
        (root / "a").remove_tree()
        assert list(root.listing()) == ["ab"]


def test_creating_a_file_that_exists_fails(root: Place) -> None:
    assert (root / "a" / "once").create(b"first")
    assert not (root / "a" / "once").create(b"second")
    assert (root / "a" / "once").read_bytes() == b"first"


def test_a_lock_excludes_a_second_writer_if_locks_are_supported(root: Place) -> None:
    order: list[str] = []

    def second() -> None:
        with (root / "a").lock():
            order.append("second")

    other = threading.Thread(target=second)
    with (root / "a").lock():
        other.start()
        other.join(0.2)
        order.append("first")
    other.join()
    assert order == (["first", "second"] if (root / "a").has_locks() else ["second", "first"])


def test_damaged_files_are_set_aside_under_unique_names(root: Place) -> None:
    for content in (b"one", b"two"):
        (root / "a").write_bytes(content)
        set_aside(root / "a")
    set_aside(root / "a")
    assert [(root / name).read_bytes() for name in ("a.bad", "a.bad-2")] == [b"one", b"two"]
    assert not (root / "a").exists()


def test_changed_content_is_detected_and_other_programs_get_a_file_with_its_name(root: Place, tmp_path: Path) -> None:
    path, marks = root / "a.png", set()
    for content in (b"x" * 1000, b"y" * 1001):
        path.write_bytes(content)
        assert path.digest() == hashlib.sha256(content).hexdigest()
        marks.add(path.content_mark(path.version()))
        copy = path.fetched(tmp_path)
        assert (copy.name, copy.read_bytes()) == ("a.png", content)
    assert len(marks) == 2


def test_checking_that_a_place_is_writable_leaves_no_trace(root: Place) -> None:
    (root / "name").nearest().prove_writable()
    assert (root / "name").why_unusable() == ""
    assert not (root / "name").exists() and root.listing() == {}


def test_concurrent_reads_return_values_in_the_order_of_the_items(root: Place) -> None:
    for number in range(20):
        (root / str(number)).write_bytes(bytes([number]))
    assert each(lambda number: (root / str(number)).read_bytes()[0], range(20), root) == list(range(20))


def test_a_result_is_never_overwritten_and_a_damaged_one_is_set_aside(root: Place) -> None:
    results = Results(root / "results")
    one, other = (Result("k", "accuracy-v1", {}, {"test/accuracy": value}, {}, []) for value in (0.5, 0.6))
    assert results.read("k", "accuracy-v1") is None and list(results) == []
    assert results.write(one) == results.write(one) == results.read("k", "accuracy-v1") == one
    with pytest.raises(ResultConflict):
        results.write(other)
    (root / "results" / "l.accuracy-v1.json").write_bytes(b"{")
    assert list(results) == [one] and results.keys() == ["k"]
    assert (root / "results" / "l.accuracy-v1.json.bad").exists()


def test_the_namespace_is_created_once_and_a_mark_is_seen_while_it_exists(root: Place) -> None:
    store = Store.open(root, "main", create=True)
    first = store.namespace()
    assert Store.open(root, "main", create=False).namespace() == first
    with store.mark() as mark:
        assert mark.why_unseen() == ""
    assert mark.why_unseen() != ""


def test_a_lease_is_refused_while_it_is_renewed_and_deleted_when_released(root: Place) -> None:
    with Lease(root, print, renew_every=0.05, settle=0.1) as mine:
        with pytest.raises(Refusal, match="is being renewed"):
            Lease(root, print, renew_every=0.05, dead_after=30, settle=0.1).acquire()
        assert not mine.lost.is_set()
    assert list(root.listing()) in ([], ["lease.json.lock"])


def test_a_checkpoint_is_saved_found_skipped_if_damaged_and_reduced_to_weights_at_the_end(root: Place) -> None:
    a, b = Checkpoints(root / "key", "a"), Checkpoints(root / "key", "b")
    for checkpoints, epoch in ((a, 1), (a, 2), (a, 3), (b, 3)):
        contents = {MODEL: {"weight": torch.full((3,), float(epoch))}, "training.pt": {"step": epoch}}
        saved = checkpoints.save(epoch, contents, [], {"device": "cpu"})
        assert checkpoints.latest() == saved
        time.sleep(0.002)  # if two checkpoints have the same epoch, the later one is newer
    assert sorted(path.name for path in (root / "key").iterdir()) == ["000002-a", "000003-a", "000003-b"]
    (root / "key" / "000003-b" / MODEL).write_bytes(b"short")
    (root / "key" / "000003-a" / MANIFEST).unlink()
    found = a.latest()
    assert found is not None and found.epoch == 2
    assert a.keep_final_weights() is None, "a newer checkpoint is damaged"
    (root / "key" / "000003-b").remove_tree()
    final = b.keep_final_weights()
    assert final is not None and final.final and a.latest() == final
    assert a.load(final, MODEL)["weight"].tolist() == [2, 2, 2]
    kept = {"000002-a/manifest.json", "000002-a/model.pt"}
    in_the_making = {"000003-a/model.pt", "000003-a/training.pt"}
    left = set((root / "key").listing()) - {"final.lock"}
    assert left == (kept if root.has_locks() else kept | in_the_making)
