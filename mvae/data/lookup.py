"""Looks up data sets, finds their raw files, and identifies the content of these files by a fingerprint."""

import hashlib
import json
import os
from pathlib import Path

from mvae.data.checks import check_source
from mvae.data.dataset import MissingFiles, Modality, Source
from mvae.data.registry import Registry
from mvae.home import ensure_home
from mvae.refusal import Refusal
from mvae.storage.files import locked, remedy

DATASETS = Registry()
"""All data sets by name, as typed after `--dataset`."""


def source(name: str) -> Source:
    """Returns the description of a data set.

    Raises:
        Refusal: unknown name; the message lists all names.
    """
    if name not in DATASETS:
        raise Refusal(f"unknown data set {name!r}: choose one of {', '.join(DATASETS)}")
    return DATASETS[name]


def add(new: Source) -> None:
    """Adds a data set from outside the package to this process (see mvae/plugins.py).

    Raises:
        Refusal: `new` is not a Source, is invalid, or has a name that is already taken.
    """
    if not isinstance(new, Source):
        raise Refusal(f"mvae.data.add takes a Source, not {type(new).__name__}")
    check_source(new)
    if new.name in DATASETS:
        raise Refusal(f"data set {new.name!r} already exists: choose another name")
    DATASETS[new.name] = new


def default_data_root() -> Path:
    """Returns the default folder of the raw files: $MVAE_DATA, else ~/.cache/mvae."""
    return Path(os.environ.get("MVAE_DATA") or default_cache()).expanduser().absolute()


def default_cache() -> Path:
    """Returns the default folder of the Arrow files: ~/.cache/mvae."""
    ensure_home()
    return Path("~/.cache/mvae").expanduser()


def fingerprint(name: str, data_root: Path | None = None, cache: Path | None = None) -> str:
    """Returns a hex sha256 of a data set's name, raw content, split rule and version. Converts nothing.

    The same raw content has the same fingerprint in any folder, on any machine, gzipped or not.

    Args:
        cache: folder that remembers the digests of unchanged files. If None, `default_cache()` is used.
    Raises:
        Refusal: unknown data set; raw files missing or damaged.
    """
    found = source(name)
    return content_fingerprint(found, root_with_files(found, data_root), cache)


def former_fingerprint(name: str, data_root: Path | None = None) -> str | None:
    """Returns the fingerprint that earlier releases gave the same raw files.

    Returns None if earlier releases could not read the files. If the digest of these files is the same in all releases,
    returns the same as `fingerprint`.

    Raises:
        Refusal: unknown data set; raw files missing.
    """
    found = source(name)
    root = root_with_files(found, data_root)
    try:
        return _fingerprint_of(found, (found.former_digest or found.digest)(root))
    except (OSError, ValueError):  # earlier releases could not read files packed this way
        return None


def training_examples(name: str, data_root: Path | None = None) -> int:
    """Returns the number of training examples of a data set. Faster than `load`, because nothing is converted.

    Raises:
        Refusal: same as `fingerprint`.
    """
    found = source(name)
    return found.examples(root_with_files(found, data_root))


def modalities_of(name: str, data_root: Path | None = None) -> tuple[Modality, ...]:
    """Returns the modalities of a data set. Reads the raw files if the modalities depend on them, as vocabularies do.

    Raises:
        Refusal: same as `fingerprint`.
    """
    found = source(name)
    return found.made_of(root_with_files(found, data_root)) if found.made_of else found.modalities


def facts_about(name: str, data_root: Path | None = None, vocabulary: int | None = None) -> tuple[str, ...]:
    """Returns lines for the user about a data set's raw files (`Source.facts`), each preceded by the data set's name.

    Args:
        vocabulary: largest number of words that a model knows. If None, the data set's own limit applies.
    Raises:
        Refusal: same as `fingerprint`.
    """
    found = source(name)
    lines = found.facts(root_with_files(found, data_root), vocabulary) if found.facts else ()
    return tuple(f"{name}: {line}" for line in lines)


def content_fingerprint(found: Source, root: Path, cache: Path | None) -> str:
    """Returns the same as `fingerprint`. All raw files must be in `root`, which is not checked."""
    if found.remembered_digest is None:
        return _fingerprint_of(found, found.digest(root))
    folder = (cache or default_cache()).expanduser().absolute()
    return _fingerprint_of(found, found.remembered_digest(root, folder))


def _fingerprint_of(found: Source, digest: str) -> str:
    content = {"name": found.name, "content": digest, "split": found.split_rule, "version": found.version}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def root_with_files(found: Source, data_root: Path | None) -> Path:
    """Returns the data root as an absolute path. Downloads missing raw files, but only into the default data root.

    Raises:
        MissingFiles: the files are missing and cannot be downloaded.
    """
    root = default_data_root() if data_root is None else data_root.expanduser().absolute()
    try:
        found.check(root)
    except MissingFiles as missing:
        if data_root is not None or found.download is None:
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
        raise MissingFiles(f"{missing}; cannot download to {root} ({error.strerror}{remedy(error)})") from error
