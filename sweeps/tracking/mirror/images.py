"""Names files so that MLflow recognises images by step, which MLflow's charts show with a slider.

`MlflowClient.log_image` decodes each picture and encodes a smaller one, which takes longer than training a short epoch.
So each picture is uploaded unchanged, under both names that `log_image` gives: for the full and for the small image.
"""

import hashlib
import re
from collections.abc import Iterable
from pathlib import PurePosixPath

IMAGES = "images"
"""Folder of artifacts in which MLflow looks for images by step."""
LOGGED = {"mlflow.loggedImages": "True"}
"""Tag of a run that has images by step."""
_EPOCH = re.compile(r"epoch-(\d{4,})")


def images(files: Iterable[str], last: int) -> dict[str, tuple[str, str]]:
    """Returns two file names in the folder IMAGES for each picture of a run: for the full and for the small image.

    Pictures drawn during training are in folders epoch-NNNN. All other pictures were drawn at the end.

    Args:
        files: paths of the run's samples, relative to their folder.
        last: number of the newest epoch, or 0 before the end of the first epoch.
    Returns:
        The two names, by the path of the picture. The result is empty if no picture was drawn during training.
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
