"""The former name of `mvae.models.gaussian`: plug-ins written for earlier releases import it."""

from mvae.models.gaussian import *  # noqa: F403
