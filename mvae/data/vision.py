"""Former name of `mvae.data.faces.vision`, needed to unpickle models that earlier releases logged to MLflow."""

from mvae.data.faces.vision import *  # noqa: F403
