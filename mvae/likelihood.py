"""The former name of `mvae.models.likelihoods`: models that earlier releases logged to MLflow are pickled with it."""

from mvae.models.likelihoods import *  # noqa: F403
