"""Object storage behind a URI that pyarrow.fs knows: s3://BUCKET/FOLDER or gs://BUCKET/FOLDER.

What differs from a disk: an object appears whole or not at all, by one request; there are no folders to make, no
renaming and no locks. These stores are strongly consistent: who reads after a write sees it.

Options follow the path, as pyarrow reads them: s3://bucket/runs?endpoint_override=127.0.0.1:9000&scheme=http. Errors
are OSErrors with `strerror` and `filename`; credentials (s3://KEY:SECRET@bucket) are never in them, nor in any text.
"""

from __future__ import annotations

import errno
import functools
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from mvae.refusal import Refusal
from mvae.storage.files import Folder
from mvae.storage.place import AnyPlace, Keyed, Place, Version, normal

if TYPE_CHECKING:
    from pyarrow import fs


_S3_OPTIONS = ("endpoint_override", "region", "scheme", "tls_ca_file_path")
_AWS = re.compile(r"AWS Error (?P<code>\w+) during \w+ operation: (?P<said>.*?)(?: \(Request ID.*|; Details.*)?$", re.S)


@dataclass(frozen=True)
class Patience:
    """How long a store may take."""

    connect: float
    """Seconds."""
    request: float
    """Seconds without an answer."""
    attempts: int
    """Attempts of each request to S3, with growing pauses."""
    gcs: int
    """GCS counts the seconds of all attempts instead."""


WORK = Patience(connect=10, request=60, attempts=8, gcs=60)

FIRST_LOOK = Patience(connect=3, request=4, attempts=2, gcs=8)
"""When a user waits at a terminal, and may have mistyped the endpoint."""


@dataclass(frozen=True)
class RemotePath(Keyed):
    """An object, or a common beginning of objects' names, which does for a folder. A plain value, without a socket."""

    scheme: str
    authority: str = field(repr=False)
    """The bucket, with credentials before it where the URI has them."""
    options: str = field(default="", repr=False)
    """What followed the question mark."""
    patience: Patience = field(default=WORK, repr=False, compare=False)

    is_remote = True

    @classmethod
    def of(cls, uri: str) -> RemotePath:
        """Reads a URI; no request is made.

        Raises:
            Refusal: one line: pyarrow knows no such storage, or the URI names no bucket or an unknown option.
        """
        parts = urlsplit(uri)
        path = cls(normal(unquote(parts.path)), parts.scheme, parts.netloc, parts.query)
        if not path._bucket or parts.fragment:
            raise Refusal("the URI names no bucket: write s3://BUCKET/FOLDER or gs://BUCKET/FOLDER")
        unknown = [name for name in path._options() if name not in _S3_OPTIONS]
        if path.scheme == "s3":
            if unknown:
                raise Refusal(f"{unknown[0]} is no option of s3://; there are {', '.join(_S3_OPTIONS)}")
        elif path.scheme != "gs":
            _check_known(path)
        return path

    def __str__(self) -> str:
        return f"{self.scheme}://{self._bucket}" + f"/{self.key}" * bool(self.key)

    @property
    def uri(self) -> str:
        """The URI that `of` reads back, without credentials."""
        path = quote(f"/{self.key}") if self.key else ""
        return f"{self.scheme}://{self._bucket}{path}" + f"?{self.options}" * bool(self.options)

    @property
    def root(self) -> Self:
        """The bucket."""
        return replace(self, key="")

    @property
    def impatient(self) -> Self:
        return replace(self, patience=FIRST_LOOK)

    def exists(self) -> bool:
        return bool(self._info().type.name != "NotFound")

    def why_unusable(self) -> str:
        if self.impatient.root.exists():
            return ""
        return f"cannot be written (no bucket {self.root}): make it, or choose another"

    def is_file(self) -> bool:
        return bool(self._info().type.name == "File")

    def is_dir(self) -> bool:
        return bool(self._info().type.name == "Directory")

    def version(self) -> Version:
        info = self._info()
        if info.type.name != "File":
            raise FileNotFoundError(errno.ENOENT, "No such object", str(self))
        return _version(info)

    def iterdir(self) -> Iterator[Self]:
        for info in self._listing(recursive=False):
            yield self / str(info.base_name)

    def listing(self) -> dict[str, Version]:
        files = [info for info in self._listing(recursive=True) if info.type.name == "File"]
        start = len(self._full())
        return dict(sorted((info.path[start:].strip("/"), _version(info)) for info in files))

    def read_bytes(self) -> bytes:
        """What the object holds, of one version of it: pyarrow asks for the size, and then in one request for so much.

        One that is replaced in between would come cut off or filled up, and one that is deleted or empty by then is an
        error in words of no use.

        Raises:
            FileNotFoundError: there is none.
            OSError: the store refuses, or the object is another one each time.
        """
        for _ in range(5):
            expected, failed = -1, None
            try:
                with self._refusals() as filesystem, filesystem.open_input_file(self._full()) as file:
                    expected = int(file.size())
                    data = bytes(file.read())
            except OSError as error:
                if expected < 0:
                    raise
                failed = error
            if self.version().size == expected:
                if failed is not None:
                    raise failed
                return data
        raise OSError(errno.EIO, "it is replaced again and again", str(self))

    def write_bytes(self, data: bytes | memoryview) -> int:
        """Makes the object hold `data`: whole, or as it was before.

        A signal's exception (Ctrl-C) would end the stream early, and what had come that far would be the object. Only
        the main thread receives such exceptions, so a helper thread writes.
        """

        def write() -> None:
            with self._refusals() as filesystem, filesystem.open_output_stream(self._full()) as stream:
                stream.write(data)

        with ThreadPoolExecutor(1, thread_name_prefix="upload") as thread:
            thread.submit(write).result()
        return len(data)

    def replace(self, target: Self) -> Self:
        """Copies the object within the store, then deletes it."""
        with self._refusals() as filesystem:
            filesystem.copy_file(self._full(), target._full())
        self.unlink()
        return target

    def unlink(self, missing_ok: bool = False) -> None:
        try:
            with self._refusals() as filesystem:
                filesystem.delete_file(self._full())
        except FileNotFoundError:
            if not missing_ok:
                raise

    def remove_tree(self) -> None:
        """Raises OSError if the store refuses."""
        with suppress(FileNotFoundError), self._refusals() as filesystem:
            filesystem.delete_dir(self._full())

    @property
    def _bucket(self) -> str:
        return self.authority.rpartition("@")[2]

    def _options(self) -> dict[str, str]:
        return dict(parse_qsl(self.options))

    def _full(self) -> str:
        return f"{_opened(self.root, self.patience)[1]}/{self.key}".rstrip("/")

    def _info(self) -> fs.FileInfo:
        with self._refusals() as filesystem:
            return filesystem.get_file_info(self._full())

    def _listing(self, *, recursive: bool) -> list[fs.FileInfo]:
        from pyarrow import fs

        with self._refusals() as filesystem:
            return list(
                filesystem.get_file_info(fs.FileSelector(self._full(), allow_not_found=True, recursive=recursive))
            )

    @contextmanager
    def _refusals(self) -> Iterator[fs.FileSystem]:
        """The store's file system; whatever it raises comes out as OSError."""
        import pyarrow as pa

        try:
            yield _opened(self.root, self.patience)[0]
        except FileNotFoundError:
            raise FileNotFoundError(errno.ENOENT, "No such object", str(self)) from None
        except (OSError, pa.ArrowException) as error:
            code, said = _in_words(str(error))
            denied = "DENIED" in code or "FORBIDDEN" in code.upper()
            number = errno.ENOENT if code == "NO_SUCH_KEY" else errno.EACCES if denied else errno.EIO
            raise OSError(number, said, str(self)) from None


def place(given: str | AnyPlace) -> Place:
    """A path, made absolute, or a URI; file:///FOLDER is a path. A place stays as it is.

    Raises:
        Refusal: as in `RemotePath.of`; a relative file: URI.
    """
    if isinstance(given, Place):
        return given
    text = str(given)
    if "://" not in text:
        return Folder(os.path.abspath(os.path.expanduser(text)))  # of a ~name that nobody has, a folder of that name
    if text.startswith("file://"):
        path = unquote(urlsplit(text).path)
        if urlsplit(text).netloc or not path:
            raise Refusal("a file URI is absolute: write file:///FOLDER, or the path alone")
        return Folder(path)
    return RemotePath.of(text)


def _version(info: fs.FileInfo) -> Version:
    return Version(int(info.size or 0), int(info.mtime_ns or 0))


def _in_words(error: str) -> tuple[str, str]:
    """AWS's code, empty elsewhere, and the message in one line."""
    found = _AWS.search(error)
    if found is None:
        return "", re.sub(r"://[^/@\s']*@", "://", " ".join(error.split()))[:200]
    said = re.sub(r"^curlCode: \d+, ", "", found["said"]).strip()
    return found["code"], f"{found['code']}: {said}" if said else found["code"]


def _check_known(path: RemotePath) -> None:
    """Raises Refusal where pyarrow knows no such scheme or options."""
    import pyarrow as pa

    try:
        _opened(path.root)
    except (OSError, pa.ArrowException) as error:
        raise Refusal(f"pyarrow cannot open it ({_in_words(str(error))[1]}): s3://BUCKET or gs://BUCKET") from None


@functools.lru_cache(maxsize=16)
def _opened(bucket: RemotePath, patience: Patience = WORK) -> tuple[fs.FileSystem, str]:
    """The file system of a bucket, and what it calls the bucket; made once a process and patience."""
    from pyarrow import fs

    options: dict[str, Any] = bucket._options()
    if bucket.scheme == "s3":
        user, _, secret = bucket.authority.rpartition("@")[0].partition(":")
        if user:
            options |= {"access_key": unquote(user), "secret_key": unquote(secret)}
        if not {"region", "endpoint_override"} & options.keys():
            options["region"] = fs.resolve_s3_region(bucket._bucket)
        options |= {"connect_timeout": patience.connect, "request_timeout": patience.request}
        retries = fs.AwsStandardS3RetryStrategy(max_attempts=patience.attempts)
        return fs.S3FileSystem(**options, retry_strategy=retries, allow_delayed_open=True), bucket._bucket
    uri = f"{bucket.scheme}://{bucket.authority}"
    if bucket.scheme == "gs" and "retry_limit_seconds" not in options:
        options["retry_limit_seconds"] = str(patience.gcs)
    query = "&".join(f"{name}={value}" for name, value in options.items())
    filesystem, root = fs.FileSystem.from_uri(uri + f"?{query}" * bool(query))
    return filesystem, str(root)
