"""Object storage, by a URI that pyarrow.fs supports: s3://BUCKET/FOLDER or gs://BUCKET/FOLDER.

Object storage differs from a disk: one request writes a whole object or nothing, and there are no folders to create, no
renames and no locks. These stores are strongly consistent: a read after a write returns the new content.

Options follow the path, as in pyarrow: s3://bucket/runs?endpoint_override=127.0.0.1:9000&scheme=http. Errors are
OSErrors with `strerror` and `filename`. Error messages never contain credentials (s3://KEY:SECRET@bucket).
"""

from __future__ import annotations

import errno
import functools
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from mvae.refusal import Refusal
from mvae.storage.files import Folder
from mvae.storage.place import AnyPlace, Keyed, Place, Version, normal

if TYPE_CHECKING:
    from pyarrow import fs


_S3_OPTIONS = ("endpoint_override", "region", "scheme", "tls_ca_file_path")
_AWS = re.compile(r"AWS Error (?P<code>\w+) during \w+ operation: (?P<text>.*?)(?: \(Request ID.*|; Details.*)?$", re.S)


@dataclass(frozen=True)
class Timeouts:
    """Timeouts and numbers of attempts for requests to object storage."""

    connect: float  # seconds until a connection
    request: float  # seconds until a response
    attempts: int  # per request to S3, with growing pauses
    gcs: int  # seconds for all attempts of a request to GCS


WORK = Timeouts(connect=10, request=60, attempts=8, gcs=60)

FIRST_LOOK = Timeouts(connect=3, request=4, attempts=2, gcs=8)
"""Timeouts for the first requests of a command, because the user is waiting and may have mistyped the endpoint."""


@dataclass(frozen=True)
class RemotePath(Keyed):
    """An object in object storage, or a folder: a common prefix of objects' names. Contains no open connection."""

    scheme: str
    authority: str = field(repr=False)
    """The bucket, preceded by credentials if the URI has any."""
    options: str = field(default="", repr=False)
    """The part of the URI after the question mark."""
    timeouts: Timeouts = field(default=WORK, repr=False, compare=False)

    is_remote = True

    @classmethod
    def of(cls, uri: str) -> RemotePath:
        """Parses a URI without making a request.

        Raises:
            Refusal: the URI has a scheme that pyarrow does not support, no bucket, or an unknown option.
        """
        parts = urlsplit(uri)
        path = cls(normal(unquote(parts.path)), parts.scheme, parts.netloc, parts.query)
        if not path._bucket or parts.fragment:
            raise Refusal("the URI has no bucket: write s3://BUCKET/FOLDER or gs://BUCKET/FOLDER")
        unknown = [name for name in path._options() if name not in _S3_OPTIONS]
        if path.scheme == "s3":
            if unknown:
                raise Refusal(f"unknown s3:// option {unknown[0]}: choose from {', '.join(_S3_OPTIONS)}")
        elif path.scheme != "gs":
            import pyarrow as pa

            try:
                _opened(path.root)
            except (OSError, pa.ArrowException) as error:
                reason = _code_and_message(str(error))[1]
                raise Refusal(f"pyarrow cannot open the URI ({reason}): use s3://BUCKET or gs://BUCKET") from None
        return path

    def __str__(self) -> str:
        return f"{self.scheme}://{self._bucket}" + f"/{self.key}" * bool(self.key)

    @property
    def uri(self) -> str:
        path = quote(f"/{self.key}") if self.key else ""
        return f"{self.scheme}://{self._bucket}{path}" + f"?{self.options}" * bool(self.options)

    @property
    def root(self) -> Self:
        """The bucket."""
        return replace(self, key="")

    @property
    def impatient(self) -> Self:
        return replace(self, timeouts=FIRST_LOOK)

    def exists(self) -> bool:
        return bool(self._info().type.name != "NotFound")

    def why_unusable(self) -> str:
        if self.impatient.root.exists():
            return ""
        return f"cannot be written (the bucket {self.root} does not exist): create it, or choose another"

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
        """Reads the content of a single version of the object.

        pyarrow first requests the size, then this number of bytes. If the object is replaced in between, the bytes are
        truncated or padded. If the object is deleted or emptied in between, pyarrow raises an unhelpful error. So this
        method compares the size afterwards, and makes up to 5 attempts.

        Raises:
            FileNotFoundError: the object does not exist.
            OSError: the store refuses, or the object was replaced during every attempt.
        """
        for _ in range(5):
            expected = -1
            try:
                with self._filesystem() as filesystem, filesystem.open_input_file(self._full()) as file:
                    expected = int(file.size())
                    data = bytes(file.read())
            except OSError:
                if expected < 0 or self.version().size == expected:
                    raise
                continue
            if self.version().size == expected:
                return data
        raise OSError(errno.EIO, "another process keeps replacing the object", str(self))

    def write_bytes(self, data: bytes | memoryview) -> int:
        """Writes `data` to the object, or leaves the old object unchanged.

        An exception from a signal (Ctrl-C) would close the stream early and create a truncated object. Python raises
        these exceptions only in the main thread, so a second thread does the writing.
        """

        def write() -> None:
            with self._filesystem() as filesystem, filesystem.open_output_stream(self._full()) as stream:
                stream.write(data)

        with ThreadPoolExecutor(1, thread_name_prefix="upload") as thread:
            thread.submit(write).result()
        return len(data)

    def replace(self, target: Self) -> Self:
        """Copies the object within the store, then deletes the original."""
        with self._filesystem() as filesystem:
            filesystem.copy_file(self._full(), target._full())
        self.unlink()
        return target

    def unlink(self, missing_ok: bool = False) -> None:
        with suppress(FileNotFoundError) if missing_ok else nullcontext(), self._filesystem() as filesystem:
            filesystem.delete_file(self._full())

    def remove_tree(self) -> None:
        """Deletes all objects of the folder. Raises OSError if the store refuses."""
        with suppress(FileNotFoundError), self._filesystem() as filesystem:
            filesystem.delete_dir(self._full())

    @property
    def _bucket(self) -> str:
        return self.authority.rpartition("@")[2]

    def _options(self) -> dict[str, str]:
        return dict(parse_qsl(self.options))

    def _full(self) -> str:
        return f"{_opened(self.root, self.timeouts)[1]}/{self.key}".rstrip("/")

    def _info(self) -> fs.FileInfo:
        with self._filesystem() as filesystem:
            return filesystem.get_file_info(self._full())

    def _listing(self, *, recursive: bool) -> list[fs.FileInfo]:
        from pyarrow import fs

        with self._filesystem() as filesystem:
            return list(
                filesystem.get_file_info(fs.FileSelector(self._full(), allow_not_found=True, recursive=recursive))
            )

    @contextmanager
    def _filesystem(self) -> Iterator[fs.FileSystem]:
        """Yields the store's file system, and converts pyarrow's errors inside the block to OSErrors."""
        import pyarrow as pa

        try:
            yield _opened(self.root, self.timeouts)[0]
        except FileNotFoundError:
            raise FileNotFoundError(errno.ENOENT, "No such object", str(self)) from None
        except (OSError, pa.ArrowException) as error:
            code, message = _code_and_message(str(error))
            denied = "DENIED" in code or "FORBIDDEN" in code.upper()
            number = errno.ENOENT if code == "NO_SUCH_KEY" else errno.EACCES if denied else errno.EIO
            raise OSError(number, message, str(self)) from None


def place(given: str | AnyPlace) -> Place:
    """Turns a path or URI into a Place. A Place is returned unchanged.

    Paths become absolute. file:///FOLDER becomes the path /FOLDER.

    Raises:
        Refusal: the URI is invalid (see `RemotePath.of`), or a file: URI is relative.
    """
    if isinstance(given, Place):
        return given
    text = str(given)
    if "://" not in text:
        return Folder(os.path.abspath(os.path.expanduser(text)))  # ~name of an unknown user is a folder of that name
    if text.startswith("file://"):
        path = unquote(urlsplit(text).path)
        if urlsplit(text).netloc or not path:
            raise Refusal("a file URI must be absolute: write file:///FOLDER, or only the path")
        return Folder(path)
    return RemotePath.of(text)


def _version(info: fs.FileInfo) -> Version:
    return Version(int(info.size or 0), int(info.mtime_ns or 0))


def _code_and_message(error: str) -> tuple[str, str]:
    """Returns AWS's error code (empty for other stores) and the message as one line."""
    found = _AWS.search(error)
    if found is None:
        return "", re.sub(r"://[^/@\s']*@", "://", " ".join(error.split()))[:200]
    text = re.sub(r"^curlCode: \d+, ", "", found["text"]).strip()
    return found["code"], f"{found['code']}: {text}" if text else found["code"]


@functools.lru_cache(maxsize=16)
def _opened(bucket: RemotePath, timeouts: Timeouts = WORK) -> tuple[fs.FileSystem, str]:
    """Returns a bucket's file system, and the bucket's name in this file system. Cached per process."""
    from pyarrow import fs

    options: dict[str, Any] = bucket._options()
    if bucket.scheme == "s3":
        user, _, secret = bucket.authority.rpartition("@")[0].partition(":")
        if user:
            options |= {"access_key": unquote(user), "secret_key": unquote(secret)}
        if not {"region", "endpoint_override"} & options.keys():
            options["region"] = fs.resolve_s3_region(bucket._bucket)
        options |= {"connect_timeout": timeouts.connect, "request_timeout": timeouts.request}
        retries = fs.AwsStandardS3RetryStrategy(max_attempts=timeouts.attempts)
        return fs.S3FileSystem(**options, retry_strategy=retries, allow_delayed_open=True), bucket._bucket
    uri = f"{bucket.scheme}://{bucket.authority}"
    if bucket.scheme == "gs" and "retry_limit_seconds" not in options:
        options["retry_limit_seconds"] = str(timeouts.gcs)
    query = "&".join(f"{name}={value}" for name, value in options.items())
    filesystem, root = fs.FileSystem.from_uri(uri + f"?{query}" * bool(query))
    return filesystem, str(root)
