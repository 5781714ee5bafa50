"""The data sets: which there are, where their raw files lie, how they get into memory.

`load` is all that training needs. The first call converts the raw files to Arrow under the cache folder (one process
converts, the others wait); later calls, in any process, map what is there. `fingerprint` names the content without
converting anything.

Two folders, never mixed: the data root holds the raw files in torchvision's layout and may be read-only; the cache is
ours. A data root that is given must hold the raw files, even when the cache is warm; the default one is filled by a
download where possible.

dataset.py     what a data set is before anything is read: modalities, defaults, origin
examples.py    its examples in memory
loading.py     `load`: conversion, once, and mapping; arrow.py: the stored files
checks.py, contents.py, progress.py   checks of a plug-in's data set, digests of many files, progress
registry.py    the data sets by name; mnist/, faces/, sentences/: their families
"""

import hashlib
import importlib
import json
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvae.data.checks import check_source
from mvae.data.dataset import SPLITS, Arrays, Defaults, Kind, MissingFiles, Modality, Source
from mvae.data.registry import Registry
from mvae.home import ensure_home
from mvae.refusal import Refusal
from mvae.storage.files import locked

if TYPE_CHECKING:
    from mvae.data.examples import Dataset, Split
    from mvae.data.loading import load, load_converted

__all__ = [
    "DATASETS",
    "SPLITS",
    "Arrays",
    "Dataset",
    "Defaults",
    "Kind",
    "MissingFiles",
    "Modality",
    "Source",
    "Split",
    "add",
    "default_cache",
    "default_data_root",
    "facts_about",
    "fingerprint",
    "former_fingerprint",
    "load",
    "load_converted",
    "modalities_of",
    "source",
    "training_examples",
]

log = logging.getLogger(__name__)

DATASETS = Registry()
"""Every data set by its name, the token of `--dataset`."""


_NEED_TORCH = {
    "Dataset": "mvae.data.examples",
    "Split": "mvae.data.examples",
    "load": "mvae.data.loading",
    "load_converted": "mvae.data.loading",
}


def __getattr__(name: str) -> Any:
    """Imports what needs torch at its first use, so that names, descriptions and fingerprints come at once."""
    if name not in _NEED_TORCH:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_NEED_TORCH[name]), name)


def source(name: str) -> Source:
    """The description of a data set.

    Raises:
        Refusal: there is none of that name; the line names those that exist.
    """
    if name not in DATASETS:
        raise Refusal(f"there is no data set {name!r}: choose one of {', '.join(DATASETS)}")
    return DATASETS[name]


def add(new: Source) -> None:
    """One more data set, from outside the package (see mvae/plugins.py); in this process, for as long as it lives.

    Raises:
        Refusal: one line: no Source, one that cannot be worked with, a name that is taken.
    """
    if not isinstance(new, Source):
        raise Refusal(f"mvae.data.add takes a Source, not {type(new).__name__}")
    check_source(new)
    if new.name in DATASETS:
        raise Refusal(f"there is a data set {new.name!r} already: choose another name")
    DATASETS[new.name] = new


def default_data_root() -> Path:
    """Where raw files lie when nothing is said: $MVAE_DATA, else ~/.cache/mvae."""
    return Path(os.environ.get("MVAE_DATA") or default_cache()).expanduser().absolute()


def default_cache() -> Path:
    """Where the Arrow files go when nothing is said: ~/.cache/mvae."""
    ensure_home()
    return Path("~/.cache/mvae").expanduser()


def fingerprint(name: str, data_root: Path | None = None, cache: Path | None = None) -> str:
    """Hex sha256 over the raw files' content, the split rule and the transform's version; it converts nothing.

    The same raw content has the same fingerprint in any folder, gzipped or not, on any machine.

    Args:
        cache: folder that remembers what many files hold. None: `default_cache()`.
    Raises:
        Refusal: unknown data set; raw files missing or damaged.
    """
    found = source(name)
    return content_fingerprint(found, root_with_files(found, data_root), cache)


def former_fingerprint(name: str, data_root: Path | None = None) -> str | None:
    """The fingerprint that earlier releases gave the same raw files; None if these releases could not read the files.

    Equal to `fingerprint` if nothing has changed for this data set or for these files.

    Raises:
        Refusal: unknown data set; raw files missing.
    """
    found = source(name)
    root = root_with_files(found, data_root)
    try:
        return _of_content(found, (found.former_digest or found.digest)(root))
    except (OSError, ValueError):  # earlier releases did not read files that are packed so
        return None


def training_examples(name: str, data_root: Path | None = None) -> int:
    """How many training examples a data set has, quickly: enough to refuse a paired fraction before anything starts.

    Raises:
        Refusal: as `fingerprint`.
    """
    found = source(name)
    return found.examples(root_with_files(found, data_root))


def modalities_of(name: str, data_root: Path | None = None) -> tuple[Modality, ...]:
    """The modalities of a data set as its raw files make them: names and vocabularies of languages.

    Raises:
        Refusal: as `fingerprint`.
    """
    found = source(name)
    return found.made_of(root_with_files(found, data_root)) if found.made_of else found.modalities


def facts_about(name: str, data_root: Path | None = None, vocabulary: int | None = None) -> tuple[str, ...]:
    """Lines for the user about a data set's raw files, each with its name (`Source.facts`).

    Args:
        vocabulary: known words at most; None: as the data set has it.
    Raises:
        Refusal: as `fingerprint`.
    """
    found = source(name)
    lines = found.facts(root_with_files(found, data_root), vocabulary) if found.facts else ()
    return tuple(f"{name}: {line}" for line in lines)


def content_fingerprint(found: Source, root: Path, cache: Path | None) -> str:
    """`fingerprint` of a data set whose raw files lie below `root`."""
    if found.remembered_digest is None:
        return _of_content(found, found.digest(root))
    folder = (cache or default_cache()).expanduser().absolute()
    return _of_content(found, found.remembered_digest(root, folder))


def _of_content(found: Source, digest: str) -> str:
    content = {
        "name": found.name,
        "content": digest,
        "split": found.split_rule,
        "version": found.version,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def root_with_files(found: Source, data_root: Path | None) -> Path:
    """The data root, absolute, with the raw files in it; the default root is filled by a download.

    Raises:
        MissingFiles: they are not there and cannot be fetched.
    """
    if data_root is not None:
        data_root = data_root.expanduser().absolute()
        found.check(data_root)
        return data_root
    root = default_data_root()
    try:
        found.check(root)
    except MissingFiles as missing:
        if found.download is None:
            raise
        _download(found, root, missing)
    return root


def _download(found: Source, root: Path, missing: MissingFiles) -> None:
    assert found.download is not None
    try:
        with locked(root / found.name):
            try:
                found.check(root)
            except MissingFiles:
                found.download(root)
    except OSError as error:
        raise MissingFiles(f"{missing}; nothing can be downloaded to {root} ({error.strerror})") from error
