"""The arms of the tables, by the token that `--arms` takes, in the order of Table 4.

mvae.py   the MVAE; its loss is in elbo.py, the plan of its steps in layout.py, the weight of the KL in annealing.py
classifiers.py, rbm.py, vae.py, jmvae.py, cvae.py   the other arms of the paper, each with its loss
mopoe.py, mvtcae.py, mmvae.py, mmvae_plus.py   the MVAE's successors, with rows.py (their steps) and posteriors.py
judge.py   classifiers that judge generated images
multimodal.py, gaussian.py, likelihoods.py   the model's encoders and decoders, product of experts, p(x|z)
arm.py, arms.py   class Arm with the checks of a plug-in's arm; declarations of the arms: token, fields, measures
learners.py   the examples that each step of the other arms uses
pieces.py, logistic.py   sums with gradients in pieces to save memory, logistic regression
"""

from mvae.models.arm import Arm
from mvae.models.arms import (
    CVAE_ARM,
    JMVAE_ARM,
    JUDGE_ARM,
    LOGREG_ARM,
    MMVAE_ARM,
    MMVAE_PLUS_ARM,
    MOPOE_ARM,
    MVAE_ARM,
    MVAE_Q_ARM,
    MVTCAE_ARM,
    NN_ARM,
    RBM_ARM,
    VAE_ARM,
)
from mvae.refusal import Refusal

ARMS: dict[str, Arm] = {
    known.token: known
    for known in (
        *(NN_ARM, LOGREG_ARM, RBM_ARM, VAE_ARM, JMVAE_ARM, MVAE_ARM, MVAE_Q_ARM, CVAE_ARM),
        *(MOPOE_ARM, MVTCAE_ARM, MMVAE_ARM, MMVAE_PLUS_ARM, JUDGE_ARM),
    )
}


def arm(token: str) -> Arm:
    """Returns the arm with this token.

    Raises:
        Refusal: unknown token; the message lists the known ones.
    """
    if token not in ARMS:
        raise Refusal(f"unknown arm {token!r}: choose one of {', '.join(ARMS)}")
    return ARMS[token]


def add(new: Arm) -> None:
    """Adds an arm from outside the package (see mvae/plugins.py) to this process.

    Raises:
        Refusal: not an Arm, or the token is taken.
    """
    if not isinstance(new, Arm):
        raise Refusal(f"mvae.models.add takes an Arm, not {type(new).__name__}")
    if new.token in ARMS:
        raise Refusal(f"arm {new.token!r} already exists: choose another token")
    ARMS[new.token] = new
