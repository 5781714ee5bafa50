"""An S3 bucket for tests, in a local server process of moto."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from mvae.storage.objects import RemotePath, place

IDENTITY = {"AWS_ACCESS_KEY_ID": "AKTEST", "AWS_SECRET_ACCESS_KEY": "hidden", "AWS_EC2_METADATA_DISABLED": "true"}


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """Yields HOST:PORT of an S3 server with an empty bucket named bucket; sets its credentials in the environment."""
    pytest.importorskip("moto")
    port = free_port()
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        with pytest.MonkeyPatch.context() as environment:
            for name, value in IDENTITY.items():
                environment.setenv(name, value)
            wait_for(port, server)
            from pyarrow import fs

            address = f"127.0.0.1:{port}"
            store = fs.S3FileSystem(
                endpoint_override=address, scheme="http", region="us-east-1", allow_bucket_creation=True
            )
            store.create_dir("bucket")
            yield address
    finally:
        server.terminate()
        server.wait()


def uri(endpoint: str, path: str, identity: str = "") -> str:
    return f"s3://{identity}{path}?endpoint_override={endpoint}&scheme=http&region=us-east-1"


def remote(endpoint: str, path: str, identity: str = "") -> RemotePath:
    found = place(uri(endpoint, path, identity))
    assert isinstance(found, RemotePath)
    return found


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def wait_for(port: int, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while True:
        assert server.poll() is None and time.monotonic() < deadline, "moto's server does not start"
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except OSError:
            time.sleep(0.1)
