"""MLflow: makes a tracking store hold what the views of sweeps/tracking/view.py say. Nothing outside imports mlflow.

Storage is the truth and MLflow a view of it, so there is one operation: compare what MLflow holds of a key with what is
known of it, and write what is missing. A live update, the clean-up after a killed driver, a rebuilt database and a
sweep's first appearance on a new server are all that operation. One parent run a (namespace, sweep) and one child run a
(namespace, key) are found by their tags, however often anything was killed.

Import this in the writing thread only (sweeps/tracking/tracker.py): it takes two seconds, and importing it silences
MLflow.
"""

from __future__ import annotations

import logging
import os

# Read by MLflow when it is imported.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "CRITICAL")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")  # the caller tries again, once a minute
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")

from mlflow.utils import environment

from sweeps.tracking.mirror.mirror import Mirror
from sweeps.tracking.mirror.stored import open_database
from sweeps.tracking.mirror.uploads import LoadModel

__all__ = ["LoadModel", "Mirror", "open_database"]

for _logger in ("mlflow", "alembic"):
    logging.getLogger(_logger).setLevel(logging.CRITICAL)  # what fails is raised, and said once by the caller
# It looks through all installed packages, for seconds, to warn of versions that we do not ask for.
vars(environment)["warn_dependency_requirement_mismatches"] = lambda _: None
