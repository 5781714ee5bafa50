"""Pictures of faces as 64x64 bytes, made once: in blocks, by several processes; a killed run is taken up again.

    <folder>/pictures.u8                all pictures, [N, C, 64, 64], one after the other; C is 3 unless more belongs
                                        to a picture than its colours (mvae/data/faces/vision.py)
             000000-002000.done ...     empty, one for every finished block of 2,000 pictures
             *.npy                      what belongs to the pictures and is small, as labels are

The folder lies in the cache. The picture file has its full length from the start; a block is written to its place and
flushed to disk before its mark appears, so that what a killed run has finished is not made again, and what it has not
is. Once every mark is there, nothing in the folder changes any more, and `mapped` may be read by whoever likes.

Processes are spawned. As always then, a script that is run as a file must start its work under
`if __name__ == "__main__":`.
"""

import math
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL.Image import Image, Resampling

from mvae.data.dataset import SPLITS, Arrays
from mvae.data.faces.image_files import BadImage, rgb
from mvae.data.progress import progress
from mvae.limits import cores
from mvae.refusal import Refusal
from mvae.storage.files import atomic_path, flush_to_disk, locked, write_atomically

SIDE = 64
"""Height and width of a picture."""
SHAPE = (3, SIDE, SIDE)
BLOCK = 2000
"""Pictures of a block: 25 MB, a second or two of work."""
VERSION = 1
"""Of `square`; raised by hand when its values change."""

PICTURES = "pictures.u8"

Part = Callable[[int, int], "Job"]
"""The job that makes pictures start .. stop - 1, given these two."""

Block = tuple[int, int]
"""Number of a block's first picture, and of the one after its last."""

Job = Callable[[], np.ndarray]
"""Makes one block's pictures, uint8 [n, C, 64, 64]. It is pickled, and may raise Refusal, one line."""


def square(image: Image) -> np.ndarray:
    """Short side to 64 (bilinear over the area that a new pixel covers), then the 64x64 pixels in the middle.

    The long side is cut down to whole pixels, as torchvision's Resize does: CelebA's 178x218 becomes 64x78.

    Returns:
        uint8 [3, 64, 64], red, green, blue.
    Raises:
        Refusal: nothing says how to convert the image; the line names its file, if it has one.
    """
    width, height, left, top = _shrunk(image.size)
    try:
        colours = rgb(image)
    except BadImage as error:
        raise Refusal(f"{getattr(image, 'filename', '') or 'an image'} {error}") from error
    small = colours.resize((width, height), Resampling.BILINEAR)
    return np.asarray(small)[top : top + SIDE, left : left + SIDE].transpose(2, 0, 1)


def placed(points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Where points of an image are in the picture that `square` makes of it, float64 [P, 2], perhaps outside.

    Args:
        points: [P, 2], x and y in the image's pixels.
        size: the image's width and height.
    """
    width, height, left, top = _shrunk(size)
    scale = np.array([width / size[0], height / size[1]])
    return np.asarray((points + 0.5) * scale - 0.5 - np.array([left, top]))


def _shrunk(size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Width and height of an image whose short side is 64, then the left and the top of its middle."""
    width, height = size
    short = min(width, height)
    width, height = SIDE * width // short, SIDE * height // short
    return width, height, (width - SIDE) // 2, (height - SIDE) // 2


def make(
    folder: Path,
    count: int,
    part: Part,
    *,
    beside: Mapping[str, np.ndarray],
    what: str,
    channels: int = 3,
    block: int | None = None,
) -> None:
    """Make all pictures that are not there yet; one process at a time, the others wait.

    Args:
        folder: of the cache, named after everything that pictures and `beside` depend on.
        count: N.
        part: what makes a block.
        beside: small arrays to keep in the folder, by file name (.npy).
        what: their name for the progress bar (on a terminal) and the log (elsewhere).
        channels: C.
        block: pictures of a block, where not BLOCK: fewer, where each takes long. Always the same for a folder.
    Raises:
        Refusal: what a job raises, one line; or a process was killed. Finished blocks stay.
        OSError: the disk is full or the folder cannot be written.
    """
    with locked(folder):
        left = _blocks_left(folder, count, channels, block or BLOCK)
        for name, array in beside.items():
            if (folder / name).exists():
                continue
            with atomic_path(folder / name) as temporary, temporary.open("xb") as file:
                np.save(file, array)
        jobs = {(start, stop): part(start, stop) for start, stop in left}
        done = count - sum(stop - start for start, stop in left)
        with progress(what, count, done) as advance:
            for start, stop in _finished(folder, jobs, channels):
                advance(stop - start)


def mapped(folder: Path, count: int, channels: int = 3) -> np.ndarray:
    """All pictures, uint8 [N, C, 64, 64], mapped read-only, after `make`."""
    return np.memmap(folder / PICTURES, np.uint8, mode="r", shape=(count, channels, SIDE, SIDE))


def cut(partitions: np.ndarray, *columns: np.ndarray) -> Arrays:
    """Arrays for `Source.convert`, from values [N, ...] of each modality and the split of each picture.

    Args:
        partitions: uint8 [N], the number of a split each, ascending.
    """
    ends = np.searchsorted(partitions, range(len(SPLITS) + 1)).tolist()
    parts = zip(SPLITS, pairwise(ends), strict=True)
    return {split: tuple(column[start:stop] for column in columns) for split, (start, stop) in parts}


def _blocks_left(folder: Path, count: int, channels: int, block: int) -> list[Block]:
    """The blocks without a mark; the picture file exists afterwards. Call it under the folder's lock."""
    for abandoned in folder.glob(".*.tmp"):  # of a process that was killed
        abandoned.unlink(missing_ok=True)
    path, size = folder / PICTURES, count * channels * SIDE**2
    if not path.exists() or path.stat().st_size != size:
        for mark in folder.glob("*.done"):
            mark.unlink()
        with atomic_path(path) as temporary, temporary.open("xb") as file:
            file.truncate(size)
    blocks = [(start, min(count, start + block)) for start in range(0, count, block)]
    return [block for block in blocks if not _mark(folder, block).exists()]


def _finished(folder: Path, jobs: dict[Block, Job], channels: int) -> Iterator[Block]:
    """Do the jobs and yield each block when it is on disk."""
    workers = min(cores(), len(jobs))
    if workers <= 1 or multiprocessing.current_process().daemon:  # which may have no children
        for block, job in jobs.items():
            yield _fill(folder, block, job, channels)
        return
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_begin_worker)
    try:
        for future in as_completed([pool.submit(_fill, folder, *each, channels) for each in jobs.items()]):
            yield future.result()
    except BrokenProcessPool as error:
        raise Refusal(
            "a process that makes pictures was killed (is there enough memory?): run it again, finished blocks are kept"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _fill(folder: Path, block: Block, job: Job, channels: int) -> Block:
    """Do one block's job, put its pictures in their place and mark the block as finished."""
    start, stop = block
    pictures = job()
    shape = stop - start, channels, SIDE, SIDE
    assert pictures.dtype == np.uint8 and pictures.shape == shape, (pictures.dtype, pictures.shape)
    with (folder / PICTURES).open("r+b") as file:
        file.seek(start * math.prod(shape[1:]))
        file.write(pictures.tobytes())
    flush_to_disk(folder / PICTURES)
    write_atomically(_mark(folder, block), b"")
    return block


def _mark(folder: Path, block: Block) -> Path:
    start, stop = block
    return folder / f"{start:06}-{stop:06}.done"


def _begin_worker() -> None:
    """Leave Ctrl-C to the parent, and end at once when the parent ends, however that ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
