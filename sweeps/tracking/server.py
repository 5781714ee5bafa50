"""One request to an MLflow server, or one connection to a database: is it there, and does it let us in?"""

from __future__ import annotations

import base64
import json
import os
import socket
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urlsplit, urlunsplit
from urllib.request import Request, urlopen

from sweeps.cli.tracking_uri import DATABASES

CHECK_SECONDS = 5.0
"""Seconds in which a server must answer the one request before the start."""


def request_to(uri: str, path: str) -> Request:
    """A request to the server's REST interface, with the user or token of the URI or of the environment."""
    parts = urlsplit(uri)
    address = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path.rstrip("/"), "", ""))
    request = Request(f"{address}/api/2.0/mlflow/{path}")  # noqa: S310  http by `check`
    user = unquote(parts.username or "") or os.environ.get("MLFLOW_TRACKING_USERNAME")
    if user:
        password = unquote(parts.password or "") or os.environ.get("MLFLOW_TRACKING_PASSWORD", "")
        request.add_header("Authorization", "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode())
    elif token := os.environ.get("MLFLOW_TRACKING_TOKEN"):
        request.add_header("Authorization", f"Bearer {token}")
    return request


def ask(uri: str) -> str:
    """What is wrong with the server at `uri`, in words that go after its name; "" if all is well."""
    request = request_to(uri, "experiments/search?max_results=1")
    try:
        with urlopen(request, timeout=CHECK_SECONDS) as reply:  # noqa: S310
            json.load(reply)
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
    """Like `ask`, for a database: is its driver installed and its port open?"""
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
        return f"is no address of a database ({error})"
    except OSError as error:
        return f"cannot be reached ({error})"
    return ""
