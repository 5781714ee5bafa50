"""Lists the arms of the tables, in the order of Table 4. The keys of `ARMS` are the values of `--arms`.

mvae.py        the MVAE and MVAE-Q
elbo.py        the MVAE's loss
layout.py      the plan of the MVAE's steps
annealing.py   beta, the weight of the KL
classifiers.py, rbm.py, vae.py, jmvae.py, cvae.py   the other arms of the paper, each with its loss
mopoe.py, mvtcae.py, mmvae.py, mmvae_plus.py   the MVAE's successors, each with its loss
rows.py        the steps of the successors
posteriors.py  Laplace distributions and mixtures
judge.py       classifiers that judge generated images
learners.py    the examples that each step of the other arms uses
multimodal.py  encoders and decoders of several modalities
gaussian.py    products of experts
likelihoods.py p(x|z)
arm.py         class Arm, and the checks of a plug-in's arm
arms.py        declarations of the arms: token, fields, measures
pieces.py      sums with gradients in pieces, to save memory
logistic.py    logistic regression
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
        *(MOPOE_ARM, MVTCAE_ARM, MMVAE_ARM, MMVAE_PLUS_ARM),
    )
}
"""The arms by token. `JUDGE_ARM`, which is no row of a table, is only known to `arm`."""


def arm(token: str) -> Arm:
    """Returns the arm with this token.

    Raises:
        Refusal: unknown token; the message lists the known ones.
    """
    if token == JUDGE_ARM.token:
        return JUDGE_ARM
    if token not in ARMS:
        raise Refusal(f"unknown arm {token!r}: choose one of {', '.join(ARMS)}")
    return ARMS[token]


def add(new: Arm) -> None:
    """Adds an arm from outside the package (see mvae/plugins.py) to this process.

    Raises:
        Refusal: `new` is not an Arm, or another arm has the same token.
    """
    if not isinstance(new, Arm):
        raise Refusal(f"mvae.models.add takes an Arm, not {type(new).__name__}")
    if new.token in (*ARMS, JUDGE_ARM.token):
        raise Refusal(f"arm {new.token!r} already exists: choose another token")
    ARMS[new.token] = new
