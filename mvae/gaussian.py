"""Old import path of `mvae.models.gaussian`, kept for plug-ins written for earlier releases."""

from mvae.models.gaussian import *  # noqa: F403
