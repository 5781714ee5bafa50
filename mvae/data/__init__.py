"""Lists the data sets, finds their raw files, and loads them into memory.

Training needs only `load`. The first call converts the raw files to Arrow files in the cache: one process converts,
the others wait. Later calls, in any process, map the Arrow files. `fingerprint` identifies the raw content of a
data set and converts nothing.

There are two separate folders. The data root holds the raw files in torchvision's layout and may be read-only. The
cache holds the Arrow files. A data root given by the user must hold the raw files, even if the Arrow files already
exist. Missing raw files are downloaded into the default data root if possible.

dataset.py     descriptions of data sets: modalities, defaults, origin
examples.py    the examples in memory
loading.py     `load`: converts once, then maps; arrow.py: writes and reads Arrow files; manifest.py: checks Arrow files
checks.py      checks of a plug-in's data set
contents.py    digests of many files
downloads.py   downloads files; progress.py: progress of a download or a long conversion
registry.py    the data sets by name; lookup.py: their raw files and fingerprints

mnist/, polymnist/, faces/ and sentences/ define the data sets.
"""

import importlib
from typing import TYPE_CHECKING, Any

from mvae.data.dataset import SPLITS, Arrays, Defaults, Kind, MissingFiles, Modality, Source
from mvae.data.lookup import (
    DATASETS,
    add,
    default_cache,
    default_data_root,
    facts_about,
    fingerprint,
    former_fingerprint,
    modalities_of,
    source,
    training_examples,
)
from mvae.data.manifest import is_converted

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
    "is_converted",
    "load",
    "load_converted",
    "modalities_of",
    "source",
    "training_examples",
]

_NEED_TORCH = {
    "Dataset": "mvae.data.examples",
    "Split": "mvae.data.examples",
    "load": "mvae.data.loading",
    "load_converted": "mvae.data.loading",
}


def __getattr__(name: str) -> Any:
    """Imports the names in `_NEED_TORCH` only when they are used, so that `import mvae.data` stays fast."""
    if name not in _NEED_TORCH:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_NEED_TORCH[name]), name)
