"""What must hold of an arm before it is taken from outside the package; tests hold the package's own to the same."""

from mvae.data.checks import NAME
from mvae.measure import NAMES
from mvae.models.arm import IDENTITY, OPTIMISED, Arm
from mvae.refusal import Refusal
from mvae.settings import Settings


def check_arm(new: Arm) -> None:
    """Refuses an arm that the rest of the code could not work with.

    Raises:
        Refusal: one line.
    """
    if not NAME.fullmatch(new.token):
        raise Refusal(f"arm {new.token!r}: its token is of letters, digits, '_', '.' and '-', beginning with one")
    if unknown := sorted(new.reads - set(Settings.model_fields)):
        raise Refusal(f"arm {new.token} reads {unknown[0]}, which is no field of a trial")
    needed = IDENTITY | (OPTIMISED if new.learner else frozenset())
    if missing := sorted(needed - new.reads):
        raise Refusal(
            f"arm {new.token} must read {missing[0]}: begin its reads with IDENTITY"
            + " | OPTIMISED, as every arm that is trained by steps" * bool(new.learner)
        )
    if unknown := sorted(new.measures - NAMES):
        raise Refusal(f"arm {new.token} has a measure {unknown[0]}: choose among {', '.join(sorted(NAMES))}")
    if new.version < 1:
        raise Refusal(f"arm {new.token}: version = {new.version} is not from 1 on")
