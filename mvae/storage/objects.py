"""Storage that is no folder: objects behind a URI that pyarrow.fs knows, as s3://BUCKET/FOLDER or gs://BUCKET/FOLDER.

A `RemotePath` has that part of pathlib's interface which durable state needs, so that code which reads, writes and
lists takes a `Place`, whichever it is. What differs: an object appears whole or not at all, by one request; there are
no folders to make, no renaming and no locks. These stores are strongly consistent: who reads after a write sees it.

Options follow the path, as pyarrow reads them: s3://bucket/runs?endpoint_override=127.0.0.1:9000&scheme=http. Errors
are OSErrors with `strerror` and `filename`; credentials (s3://KEY:SECRET@bucket) are never in them, nor in any text.
"""

from __future__ import annotations

import errno
import functools
import os
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from mvae.refusal import Refusal
from mvae.storage.patience import FIRST_LOOK, WORK, Patience, Status

if TYPE_CHECKING:
    from pyarrow import fs


RACES = 5
"""Times that an object which is replaced meanwhile is read."""
AT_ONCE = 16
"""Requests at a time, where there are many to make."""

_S3_OPTIONS = ("endpoint_override", "region", "scheme", "tls_ca_file_path")
_AWS = re.compile(r"AWS Error (?P<code>\w+) during \w+ operation: (?P<said>.*?)(?: \(Request ID.*|; Details.*)?$", re.S)

Item = TypeVar("Item")
Found = TypeVar("Found")


@dataclass(frozen=True)
class RemotePath:
    """An object, or a common beginning of objects' names, which does for a folder. A plain value, without a socket."""

    scheme: str
    authority: str = field(repr=False)
    """The bucket, with credentials before it where the URI has them."""
    key: str
    """Within the bucket, with no slash at either end."""
    options: str = field(default="", repr=False)
    """What followed the question mark."""

    @classmethod
    def of(cls, uri: str) -> RemotePath:
        """Reads a URI; no request is made.

        Raises:
            Refusal: one line: pyarrow knows no such storage, or the URI names no bucket or an unknown option.
        """
        parts = urlsplit(uri)
        path = cls(parts.scheme, parts.netloc, _normal(unquote(parts.path)), parts.query)
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

    def __truediv__(self, other: str) -> RemotePath:
        return replace(self, key=_normal(f"{self.key}/{other}"))

    @property
    def name(self) -> str:
        return PurePosixPath(self.key).name

    @property
    def root(self) -> RemotePath:
        """The bucket."""
        return replace(self, key="")

    @property
    def parent(self) -> RemotePath:
        return replace(self, key=self.key.rpartition("/")[0])

    def with_name(self, name: str) -> RemotePath:
        return self.parent / name

    def relative_to(self, other: RemotePath) -> PurePosixPath:
        """The rest of the way from a place above, or the same.

        Raises:
            ValueError: the other is not above.
        """
        if other.root != self.root:
            raise ValueError(f"{self} is not below {other}")
        return PurePosixPath(self.key).relative_to(other.key)

    def exists(self) -> bool:
        return bool(self._info().type.name != "NotFound")

    def bucket_exists(self) -> bool:
        """Whether the bucket is there, asked without the patience of work.

        Raises:
            OSError: within 10 s or so, where nothing answers.
        """
        with self._refusals(FIRST_LOOK) as filesystem:
            name = _opened(self.root, FIRST_LOOK)[1]
            return bool(filesystem.get_file_info(name).type.name != "NotFound")

    def is_file(self) -> bool:
        return bool(self._info().type.name == "File")

    def is_dir(self) -> bool:
        return bool(self._info().type.name == "Directory")

    def stat(self, patience: Patience = WORK) -> Status:
        """Size and time of an object.

        Raises:
            FileNotFoundError: there is none.
        """
        info = self._info(patience)
        if info.type.name != "File":
            raise FileNotFoundError(errno.ENOENT, "No such object", str(self))
        return _status(info)

    def iterdir(self) -> Iterator[RemotePath]:
        """What lies directly below; nothing where there is nothing."""
        for info in self._listing(recursive=False):
            yield self / str(info.base_name)

    def listing(self) -> dict[RemotePath, Status]:
        """All objects below at any depth, sorted by name, a thousand a request."""
        start = len(self._full())
        infos = [info for info in self._listing(recursive=True) if info.type.name == "File"]
        found = {self / info.path[start:]: _status(info) for info in infos}
        return dict(sorted(found.items(), key=lambda item: item[0].key))

    def read_bytes(self, patience: Patience = WORK) -> bytes:
        """What the object holds, of one version of it: pyarrow asks for the size, and then in one request for so much.

        One that is replaced in between would come cut off or filled up, and one that is deleted or empty by then is an
        error in words of no use.

        Raises:
            FileNotFoundError: there is none.
            OSError: the store refuses, or the object is another one each time.
        """
        for _ in range(RACES):
            expected, failed = -1, None
            try:
                with self._refusals(patience) as filesystem, filesystem.open_input_file(self._full(patience)) as file:
                    expected = int(file.size())
                    data = bytes(file.read())
            except OSError as error:
                if expected < 0:
                    raise
                failed = error
            if self.stat(patience).st_size == expected:
                if failed is not None:
                    raise failed
                return data
        raise OSError(errno.EIO, "it is replaced again and again", str(self))

    def read_text(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return self.read_bytes().decode(encoding, errors)

    def write_bytes(self, data: bytes | memoryview) -> None:
        """Makes the object hold `data`: whole, or as it was before.

        A signal's exception (Ctrl-C) would end the stream early, and what had come that far would be the object. Only
        the main thread gets such, so it has another one write, and waits.
        """

        def write() -> None:
            with self._refusals() as filesystem, filesystem.open_output_stream(self._full()) as stream:
                stream.write(data)

        if threading.current_thread() is threading.main_thread():
            with ThreadPoolExecutor(1, thread_name_prefix="upload") as thread:
                thread.submit(write).result()
        else:
            write()

    def copy_to(self, other: RemotePath) -> None:
        """Copies an object within the store."""
        with self._refusals() as filesystem:
            filesystem.copy_file(self._full(), other._full())

    def unlink(self, missing_ok: bool = False) -> None:
        try:
            with self._refusals() as filesystem:
                filesystem.delete_file(self._full())
        except FileNotFoundError:
            if not missing_ok:
                raise

    def mkdir(self, parents: bool = False, exist_ok: bool = False) -> None:
        """Nothing: a name may be written without a folder for it."""

    def remove_tree(self) -> None:
        """Deletes all objects below."""
        try:
            with self._refusals() as filesystem:
                filesystem.delete_dir(self._full())
        except FileNotFoundError:
            return

    @property
    def _bucket(self) -> str:
        return self.authority.rpartition("@")[2]

    def _options(self) -> dict[str, str]:
        return dict(parse_qsl(self.options))

    def _full(self, patience: Patience = WORK) -> str:
        return f"{_opened(self.root, patience)[1]}/{self.key}".rstrip("/")

    def _info(self, patience: Patience = WORK) -> fs.FileInfo:
        with self._refusals(patience) as filesystem:
            return filesystem.get_file_info(self._full(patience))

    def _listing(self, *, recursive: bool) -> list[fs.FileInfo]:
        from pyarrow import fs

        with self._refusals() as filesystem:
            return list(
                filesystem.get_file_info(fs.FileSelector(self._full(), allow_not_found=True, recursive=recursive))
            )

    @contextmanager
    def _refusals(self, patience: Patience = WORK) -> Iterator[fs.FileSystem]:
        """The store's file system; whatever it raises comes out as OSError."""
        import pyarrow as pa

        try:
            yield _opened(self.root, patience)[0]
        except FileNotFoundError:
            raise FileNotFoundError(errno.ENOENT, "No such object", str(self)) from None
        except (OSError, pa.ArrowException) as error:
            code, said = _in_words(str(error))
            number = errno.EACCES if "DENIED" in code or "FORBIDDEN" in code.upper() else errno.EIO
            raise OSError(number, said, str(self)) from None


Place = Path | RemotePath
"""A folder or file of this machine, or of a store that every machine reaches."""


def place(text: str) -> Place:
    """A path, made absolute, or a URI; file:///FOLDER is a path.

    Raises:
        Refusal: as in `RemotePath.of`; a relative file: URI.
    """
    if "://" not in text:
        return Path(os.path.abspath(os.path.expanduser(text)))  # of a ~name that nobody has, a folder of that name
    if text.startswith("file://"):
        path = unquote(urlsplit(text).path)
        if urlsplit(text).netloc or not path:
            raise Refusal("a file URI is absolute: write file:///FOLDER, or the path alone")
        return Path(path)
    return RemotePath.of(text)


def each(function: Callable[[Item], Found], items: Iterable[Item], where: Place) -> list[Found]:
    """The function's value for every item, in order: several requests at a time where they go to a store."""
    todo = list(items)
    if isinstance(where, Path) or len(todo) < 2:
        return [function(item) for item in todo]
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="requests") as threads:
        return list(threads.map(function, todo))


def _normal(key: str) -> str:
    return "/".join(part for part in key.split("/") if part not in ("", "."))


def _status(info: fs.FileInfo) -> Status:
    return Status(int(info.size or 0), int(info.mtime_ns or 0))


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
