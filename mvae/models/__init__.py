"""The arms of the tables, by the token that `--arms` takes, in the order of Table 4.

mvae.py   the MVAE; its loss is in elbo.py, the plan of its steps in layout.py, the weight of the KL in annealing.py
classifiers.py, rbm.py, vae.py, jmvae.py, cvae.py   the other arms of the paper, each with its loss
mopoe.py, mvtcae.py, mmvae.py, mmvae_plus.py   the MVAE's successors, with rows.py (their steps) and posteriors.py
multimodal.py, gaussian.py, likelihoods.py   encoders and decoders together, product of experts, p(x|z)
arms.py   the arms of the tables, declared: tokens, fields, measures
arm.py, learners.py   what an arm is and what is asked of a plug-in's, what its learner sees
pieces.py, logistic.py   sums piece by piece, logistic regression
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
    """The arm of that token.

    Raises:
        Refusal: there is none; the message names those that exist.
    """
    if token not in ARMS:
        raise Refusal(f"no arm {token!r}: there are {', '.join(ARMS)}")
    return ARMS[token]


def add(new: Arm) -> None:
    """One more arm, from outside the package (see mvae/plugins.py); in this process, for as long as it lives.

    Raises:
        Refusal: one line: no Arm, a token that is taken.
    """
    if not isinstance(new, Arm):
        raise Refusal(f"mvae.models.add takes an Arm, not {type(new).__name__}")
    if new.token in ARMS:
        raise Refusal(f"there is an arm {new.token!r} already: choose another token")
    ARMS[new.token] = new
