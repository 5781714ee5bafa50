"""Converts pictures of faces to 64x64 pixels, once, in blocks and with several processes. A killed conversion resumes.

    <folder>/pictures.u8                all pictures, [N, C, 64, 64]; C is 3, or more if channels
                                        besides the colours are stored (mvae/data/faces/vision.py)
             000000-002000.done ...     empty, one per finished block of 2,000 pictures
             *.npy                      small data that belong to the pictures, for example labels

The folder is in the cache. The picture file has its full length from the start. Each block is written to its place and
flushed to disk before its `.done` file appears. So a resumed run makes exactly the unfinished blocks. Once all `.done`
files exist, the folder never changes, and any process may call `mapped`.

Worker processes are spawned, so a script must start its work under `if __name__ == "__main__":`.
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
"""Height and width of a picture, in pixels."""
SHAPE = (3, SIDE, SIDE)
BLOCK = 2000
"""Number of pictures per block: 25 MB, one or two seconds of work."""
VERSION = 1
"""Version of `square`. Increase this number whenever `square` returns different pixels."""

PICTURES = "pictures.u8"

Part = Callable[[int, int], "Job"]
"""Takes the index of the first picture and the index after the last. Returns the job that makes these pictures."""

Block = tuple[int, int]
"""A block of pictures: index of the first picture, and index after the last picture."""

Job = Callable[[], np.ndarray]
"""Makes the pictures of one block, uint8 [n, C, 64, 64]. A job must be picklable, and may raise Refusal."""


def square(image: Image) -> np.ndarray:
    """Scales an image's short side to 64 (bilinear, antialiased) and cuts out the 64x64 pixels in the middle.

    The long side is rounded down to whole pixels, as in torchvision's Resize: CelebA's 178x218 becomes 64x78.

    Returns:
        uint8 [3, 64, 64], red, green, blue.
    Raises:
        Refusal: the image cannot be converted; the message names the image's file, if known.
    """
    width, height, left, top = _shrunk(image.size)
    try:
        colours = rgb(image)
    except BadImage as error:
        raise Refusal(f"{getattr(image, 'filename', '') or 'an image'} {error}") from error
    small = colours.resize((width, height), Resampling.BILINEAR)
    return np.asarray(small)[top : top + SIDE, left : left + SIDE].transpose(2, 0, 1)


def placed(points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Converts positions in an image to positions in the picture that `square` makes of the image: float64 [P, 2].

    A position may be outside the picture.

    Args:
        points: [P, 2], x and y in the image's pixels.
        size: the image's width and height.
    """
    width, height, left, top = _shrunk(size)
    scale = np.array([width / size[0], height / size[1]])
    return np.asarray((points + 0.5) * scale - 0.5 - np.array([left, top]))


def _shrunk(size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Returns the width and height of the scaled image, and the left and top of its central 64x64 pixels."""
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
    """Makes all missing pictures. If several processes call this function, one works and the others wait.

    Args:
        folder: folder of the cache. Its name must depend on everything that determines the pictures and `beside`.
        count: number of pictures, N.
        part: takes the limits of a block, and returns the job that makes the block's pictures.
        beside: small arrays to keep in the folder, by file name (.npy).
        what: description of the pictures for the progress bar (on a terminal) and the log (elsewhere).
        channels: number of channels, C.
        block: number of pictures per block. If each picture takes long to make, choose a small number. Always pass
            the same number for the same folder.
    Raises:
        Refusal: a job raised a Refusal, or a process was killed. Finished blocks are kept.
        OSError: the disk is full or the folder is not writable.
    """
    with locked(folder):
        unfinished = _unfinished_blocks(folder, count, channels, block or BLOCK)
        for name, array in beside.items():
            if not (folder / name).exists():
                with atomic_path(folder / name) as temporary, temporary.open("xb") as file:
                    np.save(file, array)
        jobs = {(start, stop): part(start, stop) for start, stop in unfinished}
        done = count - sum(stop - start for start, stop in unfinished)
        with progress(what, count, done) as advance:
            for start, stop in _finished(folder, jobs, channels):
                advance(stop - start)


def mapped(folder: Path, count: int, channels: int = 3) -> np.ndarray:
    """Returns all pictures, uint8 [N, C, 64, 64], mapped read-only. Call `make` first."""
    return np.memmap(folder / PICTURES, np.uint8, mode="r", shape=(count, channels, SIDE, SIDE))


def cut(partitions: np.ndarray, *columns: np.ndarray) -> Arrays:
    """Divides the values of all pictures into the three splits, in the form that `Source.convert` returns.

    Args:
        partitions: uint8 [N], the split (0, 1, 2) of each picture, in ascending order.
        columns: one array [N, ...] per modality, with the values of all pictures.
    """
    ends = np.searchsorted(partitions, range(len(SPLITS) + 1)).tolist()
    parts = zip(SPLITS, pairwise(ends), strict=True)
    return {split: tuple(column[start:stop] for column in columns) for split, (start, stop) in parts}


def _unfinished_blocks(folder: Path, count: int, channels: int, block: int) -> list[Block]:
    """Returns the blocks without a `.done` file, and creates a missing picture file. The caller must hold the lock."""
    for abandoned in folder.glob(".*.tmp"):  # left by a killed process
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
    workers = min(cores(), len(jobs))
    if workers <= 1 or multiprocessing.current_process().daemon:  # a daemon cannot start processes
        for block, job in jobs.items():
            yield _fill(folder, block, job, channels)
        return
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_begin_worker)
    try:
        for future in as_completed([pool.submit(_fill, folder, *each, channels) for each in jobs.items()]):
            yield future.result()
    except BrokenProcessPool as error:
        raise Refusal(
            "a process that makes pictures was killed (is there enough memory?): run the command again;"
            " finished blocks are kept"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _fill(folder: Path, block: Block, job: Job, channels: int) -> Block:
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
    return folder / f"{block[0]:06}-{block[1]:06}.done"


def _begin_worker() -> None:
    """Ignores Ctrl-C, which the parent process handles, and ends this process as soon as the parent ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
