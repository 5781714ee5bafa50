"""Old import path of `mvae.models.likelihoods`, kept for the pickled models that earlier releases logged to MLflow."""

from mvae.models.likelihoods import *  # noqa: F403
