"""Names for MLflow's images by step, which its charts show with a slider.

`MlflowClient.log_image` decodes each picture and encodes a smaller one, which takes longer than training a short epoch.
So the files are copied under the names that `log_image` would give them, for the page's full and small picture alike.
"""

import hashlib
import re
from collections.abc import Iterable
from pathlib import PurePosixPath

IMAGES = "images"
"""Folder of artifacts in which MLflow looks for images by step."""
LOGGED = {"mlflow.loggedImages": "True"}
"""Tag of a run that has such images."""
_EPOCH = re.compile(r"epoch-(\d{4,})")


def images(files: Iterable[str], last: int) -> dict[str, tuple[str, str]]:
    """Returns the names of a run's images below IMAGES: for each picture, the full and the small image.

    Pictures drawn during training lie in folders epoch-NNNN. Pictures outside such folders were drawn at the end.

    Args:
        files: paths of the run's samples, relative to their folder.
        last: newest epoch; 0 before the first, when no picture was drawn at the end.
    Returns:
        The two names by path; empty if no picture was drawn during training.
    """
    found, during = dict[str, tuple[str, str]](), False
    for path in (PurePosixPath(file) for file in files if file.endswith(".png")):
        epoch = _EPOCH.fullmatch(str(path.parent))
        if epoch is None and (len(path.parts) > 1 or not last):
            continue
        during |= epoch is not None
        unique = hashlib.sha256(str(path).encode()).hexdigest()[:32]
        name = f"{path.stem}+step+{last if epoch is None else int(epoch[1])}+timestamp+0+{unique}"
        found[str(path)] = f"{name}.png", f"{name}+compressed.png"
    return found if during else {}
