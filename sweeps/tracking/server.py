"""Checks whether MLflow can use a tracking URI. Sends one request to a server or database, or reads a SQLite file."""

import base64
import json
import os
import socket
import threading
from collections.abc import Callable
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urlsplit, urlunsplit
from urllib.request import Request, urlopen

from mvae.refusal import Refusal
from sweeps.cli.tracking_uri import DATABASES, without_credentials
from sweeps.store.sqlite import sqlite_path
from sweeps.tracking.database import check_file

CHECK_SECONDS = 5.0
"""Seconds within which a server must answer, without the DNS look-up."""
CHECK_LIMIT = 8.0
"""Seconds within which a server must answer, including the DNS look-up, which has no timeout of its own."""
NOTICE_SECONDS = 2.0
"""Seconds of waiting for a server before a progress line is shown."""


def check(uri: str, say: Callable[[str], None] = lambda _: None) -> None:
    """Checks within 10 seconds that MLflow can use the tracking URI. Sends one request, and writes nothing.

    Args:
        say: shows a progress line if a server does not answer at once.
    Raises:
        Refusal: MLflow cannot use the URI. The message is one line that says what to do.
    """
    path = sqlite_path(uri)
    if path is not None:
        check_file(path)
        return
    asks = ask if uri.startswith(("http://", "https://")) else ask_database if "://" in uri else None
    if asks is not None and not uri.startswith("databricks"):
        outcome: list[str] = []
        server = f"tracking server {without_credentials(uri)}"
        request = threading.Thread(target=lambda: outcome.append(asks(uri)), daemon=True)
        request.start()
        request.join(NOTICE_SECONDS)
        if request.is_alive():
            say(f"Waiting for the {server}, which usually answers within 1 s (at most {CHECK_LIMIT:.0f} s)")
            request.join(CHECK_LIMIT - NOTICE_SECONDS)
        wrong = outcome[0] if outcome else f"did not answer within {CHECK_LIMIT:.0f} s"
        if wrong:
            raise Refusal(
                f"{server} {wrong}: start it, correct --tracking-uri or $MLFLOW_TRACKING_URI, or leave both out to use"
                " a file in the storage folder"
            )


def reply(uri: str, path: str, seconds: float, body: dict[str, Any] | None = None) -> Any:
    """Sends a request to a server's REST interface, with the user or token from the URI or the environment.

    Args:
        uri: tracking URI of the server.
        path: path of the request, after `/api/2.0/mlflow/`.
        seconds: longest time to wait.
        body: JSON to send, or None for a GET request.
    Returns:
        The server's JSON.
    Raises:
        OSError: no answer, or an HTTP error.
        json.JSONDecodeError: the answer is not JSON.
    """
    parts = urlsplit(uri)
    address = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path.rstrip("/"), "", ""))
    request = Request(f"{address}/api/2.0/mlflow/{path}")  # noqa: S310  http by `check`
    user = unquote(parts.username or "") or os.environ.get("MLFLOW_TRACKING_USERNAME")
    if user:
        password = unquote(parts.password or "") or os.environ.get("MLFLOW_TRACKING_PASSWORD", "")
        request.add_header("Authorization", "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode())
    elif token := os.environ.get("MLFLOW_TRACKING_TOKEN"):
        request.add_header("Authorization", f"Bearer {token}")
    if body is not None:
        request.data = json.dumps(body).encode()
        request.add_header("Content-Type", "application/json")
    with urlopen(request, timeout=seconds) as answer:  # noqa: S310
        return json.load(answer)


def ask(uri: str) -> str:
    """Checks the server at `uri`. Returns what is wrong, as the end of a sentence, or "" if the server works."""
    try:
        reply(uri, "experiments/search?max_results=1", CHECK_SECONDS)
    except HTTPError as error:
        return f"refused the request ({error.code} {error.reason})"
    except OSError as error:
        why = error.reason if isinstance(error, URLError) else error
        if isinstance(why, TimeoutError):
            return f"did not answer within {CHECK_SECONDS:.0f} s"
        return f"cannot be reached ({why})"
    except ValueError:
        return "is not an MLflow server"
    return ""


def ask_database(uri: str) -> str:
    """Checks the database at `uri`: address, Python driver and open port. Returns what is wrong, or "" if it works."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url(uri)
        url.get_dialect().import_dbapi()
        port = url.port or DATABASES[url.get_backend_name()]
        socket.create_connection((url.host or "localhost", port), timeout=CHECK_SECONDS).close()
    except ImportError as error:
        return f"needs a Python package that is not installed ({error})"
    except (ArgumentError, ValueError) as error:
        return f"is not the address of a database ({error})"
    except OSError as error:
        return f"cannot be reached ({error})"
    return ""
