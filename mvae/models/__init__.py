"""Lists the arms (the methods that the tables compare) in the order of Table 4. `--arms` accepts the keys of `ARMS`.

mvae.py        the MVAE and MVAE-Q
elbo.py        the MVAE's loss
layout.py      plans which rows each network of the MVAE processes in a step
annealing.py   beta, the weight of the KL
classifiers.py, rbm.py, vae.py, jmvae.py, cvae.py   the other arms of the paper, each with its loss
mopoe.py, mvtcae.py, mmvae.py, mmvae_plus.py   the MVAE's successors, each with its loss
rows.py        training steps of these successors
posteriors.py  Laplace distributions and mixtures
judge.py       classifiers that judge generated images
learners.py    training batches of the paper's other arms
multimodal.py  encoders and decoders of several modalities
gaussian.py    products of experts
likelihoods.py p(x|z)
arm.py         class Arm, and checks of the arms of plug-ins
arms.py        declarations of the arms: token, fields, measures
pieces.py      sums whose gradients are computed piece by piece, to save memory
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
"""The arms by token. `JUDGE_ARM` is not included, because no table has a row for it; `arm` also returns `JUDGE_ARM`."""


def arm(token: str) -> Arm:
    """Returns the arm with the given token, for example `mvae`.

    Raises:
        Refusal: unknown token; the message lists the known ones.
    """
    if token == JUDGE_ARM.token:
        return JUDGE_ARM
    if token not in ARMS:
        raise Refusal(f"unknown arm {token!r}: choose one of {', '.join(ARMS)}")
    return ARMS[token]


def add(new: Arm) -> None:
    """Registers an arm of a plug-in (see mvae/plugins.py) for the current process.

    Raises:
        Refusal: `new` is not an Arm, or another arm has the same token.
    """
    if not isinstance(new, Arm):
        raise Refusal(f"mvae.models.add takes an Arm, not {type(new).__name__}")
    if new.token in (*ARMS, JUDGE_ARM.token):
        raise Refusal(f"arm {new.token!r} already exists: choose another token")
    ARMS[new.token] = new
