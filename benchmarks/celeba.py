"""Measures how fast CelebA's images are converted to 64x64 pictures.

Type    python -m benchmarks.celeba                     about a minute on two cores
        python -m benchmarks.celeba --images 2000       a rough estimate
        python -m benchmarks.celeba --cores 1           with one process

Drawn faces replace CelebA's images. The faces have CelebA's size, 178x218, and slightly larger files: 11 KB instead of
7 KB. The benchmark converts the same faces from a folder and from a zip file.

The time includes everything that `mvae.data.load` does before it writes Arrow files: starting the processes, reading
the lists, computing the digest, decoding, scaling, and writing to disk.

images/s    converted pictures per second of wall time
"""

from __future__ import annotations

import tempfile
import time
import zipfile
from pathlib import Path
from unittest import mock

from pydantic import Field
from pydantic_settings import BaseSettings, CliApp, SettingsConfigDict

from benchmarks.celeba_layout import write_faces
from benchmarks.timing import write_comparison
from mvae import limits
from mvae.data.faces import celeba, celeba_files, celeba_lists, pictures

CLAIM = 400.0
"""Claimed images per second on two cores."""


class Options(BaseSettings):
    """Options of the benchmark."""

    model_config = SettingsConfigDict(cli_kebab_case=True, cli_implicit_flags="toggle", use_attribute_docstrings=True)

    images: int = Field(20_000, ge=12)
    """Number of images."""
    cores: int | None = Field(None, ge=1)
    """Number of processes (default: one per core)."""
    out: Path | None = None
    """JSON file for the numbers."""


def rate(root: Path, *, cpu_time: bool = False) -> float:
    """Returns the images per second of one conversion with an empty cache.

    Args:
        root: a data root with CelebA's layout.
        cpu_time: whether to convert in this process only and measure its CPU time, instead of wall time.
    """
    names, _ = celeba_lists.read_partitions(celeba_files.find(root).partitions)
    with tempfile.TemporaryDirectory() as cache:
        if cpu_time:
            with mock.patch.object(pictures, "cores", return_value=1):
                start = time.process_time()
                celeba.prepare(root, Path(cache))
                return len(names) / (time.process_time() - start)
        start = time.perf_counter()
        celeba.prepare(root, Path(cache))
        return len(names) / (time.perf_counter() - start)


def zip_images(root: Path, to: Path) -> None:
    """Copies a data root in CelebA's layout, and puts the images into a zip file instead of a folder."""
    (to / celeba_files.FOLDER).mkdir(parents=True)
    for name in (celeba_lists.ATTRIBUTE_LIST, celeba_lists.PARTITION_LIST):
        (to / celeba_files.FOLDER / name).write_bytes((root / celeba_files.FOLDER / name).read_bytes())
    with zipfile.ZipFile(to / celeba_files.FOLDER / f"{celeba_files.IMAGES}.zip", "w") as archive:
        for path in sorted((root / celeba_files.FOLDER / celeba_files.IMAGES).iterdir()):
            archive.write(path, f"{celeba_files.IMAGES}/{path.name}")


def main(options: Options) -> None:
    """Runs the benchmark, prints the results, and writes them to `--out` if given."""
    cores = options.cores or limits.cores()
    with tempfile.TemporaryDirectory() as folder, mock.patch.object(pictures, "cores", return_value=cores):
        root, zipped = Path(folder) / "plain", Path(folder) / "zipped"
        write_faces(root, options.images)
        zip_images(root, zipped)
        rates = {"folder": rate(root), "zip": rate(zipped)}
    print(f"{options.images:,} images, {cores} processes")
    for form, images in rates.items():
        print(f"{form:<8}{images:8,.0f} images/s")
    print(f"claim: at least {CLAIM:g} images/s on two cores: {'reached' if min(rates.values()) >= CLAIM else 'missed'}")
    if options.out:
        write_comparison(options.out, CLAIM, {"images": options.images, "processes": cores, "images_per_s": rates})


if __name__ == "__main__":
    main(CliApp.run(Options))
