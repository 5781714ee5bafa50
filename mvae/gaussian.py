"""Old import path of `mvae.models.gaussian`, which plug-ins written for earlier releases use."""

from mvae.models.gaussian import *  # noqa: F403
