"""Writes views (sweeps/tracking/view.py) to MLflow. No other package imports mlflow.

There is one operation: compare MLflow's run of a key with its view, and write what is missing. This operation serves
live updates, the clean-up after a killed driver, a rebuilt database, and the first write to a new server. Storage holds
the data; MLflow only shows it.

Each sweep has one parent run. Each key, and each cell of the sweep's table, has one child run. Runs are found by their
tags (namespace, and sweep, key or cell), so a restart after a kill never creates a second run.

Import this package only in the tracker's thread, because the import takes two seconds. The import also silences MLflow.
"""

import logging
import os

# MLflow reads these variables when it is imported.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "CRITICAL")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")  # the tracker retries once a minute
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")

from mlflow.utils import environment

from sweeps.tracking.mirror.mirror import Mirror
from sweeps.tracking.mirror.removal import Removal
from sweeps.tracking.mirror.stored import open_database
from sweeps.tracking.mirror.uploads import LoadModel

__all__ = ["LoadModel", "Mirror", "Removal", "open_database"]

for _logger in ("mlflow", "alembic"):
    logging.getLogger(_logger).setLevel(logging.CRITICAL)  # errors are raised, and the tracker reports them once
# This check takes seconds: it compares all installed packages with versions that we do not use.
vars(environment)["warn_dependency_requirement_mismatches"] = lambda _: None
