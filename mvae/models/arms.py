"""Declares the arms of the tables: their names, fields and measures. This module does not import torch.

Each `Later` names a function or class that builds or trains an arm, and imports the module only when called.
"""

from dataclasses import replace

from mvae.hyperparameters import Hyperparameter
from mvae.models.arm import ANNEALED, BINARISED, IDENTITY, NETWORKS, OPTIMISED, PAIRED, Arm, Feature, Later

NN_ARM = Arm(
    "nn",
    "NN",
    IDENTITY | PAIRED | OPTIMISED | NETWORKS | BINARISED,
    Later("classifiers", "build_neural_network"),
    frozenset({"accuracy"}),
    learner=Later("classifiers", "NeuralNetworkLearner"),
    cuda_graphs=True,
    handles=frozenset({Feature.TEXTS, Feature.MANY, Feature.VECTORS}),
    needs_labels=True,
)

LOGREG_ARM = Arm(
    "logreg",
    "LOGREG",
    IDENTITY | PAIRED,
    Later("classifiers", "build_logistic_regression"),
    frozenset({"accuracy"}),
    fit=Later("classifiers", "fit_logistic_regression"),
    handles=frozenset({Feature.MANY, Feature.VECTORS}),
    needs_labels=True,
)

RBM_ARM = Arm(
    "rbm",
    "RBM",
    IDENTITY | OPTIMISED | BINARISED,
    Later("rbm", "build_rbm"),
    frozenset({"readout"}),
    learner=Later("rbm", "RbmLearner"),
    watch=Later("rbm", "watch_reconstruction"),
    watched="validation/reconstruction_error",
    handles=frozenset(),
)

VAE_ARM = Arm(
    "vae",
    "VAE",
    IDENTITY | OPTIMISED | NETWORKS | ANNEALED | BINARISED | {"image_weight"},
    Later("vae", "build_vae"),
    frozenset({"readout", "likelihood"}),
    learner=Later("vae", "VaeLearner"),
    cuda_graphs=True,
    watch=Later("vae", "watch_elbo"),
    watched="validation/elbo",
    decodes_labels=False,
    handles=frozenset({Feature.TEXTS, Feature.ATTRIBUTES, Feature.MANY}),
)

JMVAE_ARM = Arm(
    "jmvae",
    "JMVAE",
    IDENTITY
    | PAIRED
    | OPTIMISED
    | NETWORKS
    | ANNEALED
    | BINARISED
    | {"alpha", "image_weight", "label_weight", "text_weight", "attribute_weight", "vector_weight"},
    Later("jmvae", "build_jmvae"),
    frozenset({"accuracy", "likelihood", "attributes", "translation", "coherence", "fid"}),
    learner=Later("jmvae", "JmvaeLearner"),
    infers=True,
    cuda_graphs=True,
    handles=frozenset(Feature),
    single_attributes=False,
)

MVAE_ARM = Arm(
    "mvae",
    "MVAE",
    IDENTITY
    | PAIRED
    | OPTIMISED
    | NETWORKS
    | ANNEALED
    | BINARISED
    | {"pairing", "targets", "k", "fixed_noise", "keep_probability", "keep_first", "unimodal_terms"}
    | {"image_weight", "label_weight", "text_weight", "attribute_weight", "vector_weight"},
    Later("mvae", "build_mvae"),
    frozenset({"accuracy", "likelihood", "attributes", "translation", "vision", "coherence", "fid"}),
    learner=Later("mvae", "ElboLearner"),
    infers=True,
    handles=frozenset(Feature),
    cuda_graphs=True,
)

MVAE_Q_ARM = replace(MVAE_ARM, token="mvae_q", title="MVAE-Q", build=Later("mvae", "build_mvae_q"))  # noqa: S106

CVAE_ARM = Arm(
    "cvae",
    "CVAE",
    IDENTITY | PAIRED | OPTIMISED | NETWORKS | ANNEALED | BINARISED | {"image_weight"},
    Later("cvae", "build_cvae"),
    frozenset({"likelihood"}),
    learner=Later("cvae", "CvaeLearner"),
    cuda_graphs=True,
    watch=Later("cvae", "watch_bound"),
    watched="validation/elbo",
    decodes_labels=False,
    handles=frozenset({Feature.TEXTS, Feature.ATTRIBUTES}),
)

_SUCCESSOR = replace(
    MVAE_ARM,
    reads=MVAE_ARM.reads - ANNEALED - {"targets", "k", "fixed_noise", "unimodal_terms"},
    measures=frozenset({"accuracy", "likelihood", "coherence", "fid"}),
    handles=frozenset(Feature) - {Feature.IMAGELESS},
)
"""Shared settings of the arms that compute one loss per example, over the example's modalities (mvae/models/rows.py).

Steps of these arms may be recorded as CUDA graphs, as tests/test_recordable.py checks without a GPU.
"""

_BETA = Hyperparameter("beta", 1.0, "Weight of the KL after annealing.", least=0.0, searched=(0.1, 10.0), log=True)
_SAMPLES = Hyperparameter("samples", 1, "Number of samples K per unimodal posterior and step.", least=1, most=1000)
_POSTERIOR = Hyperparameter(
    "posterior", "laplace", "Distribution family of the posteriors and the prior.", choices=("laplace", "normal")
)

MOPOE_ARM = replace(
    _SUCCESSOR,
    token="mopoe",  # noqa: S106
    title="MoPoE",
    reads=_SUCCESSOR.reads | ANNEALED,
    build=Later("mopoe", "build_mopoe"),
    learner=Later("mopoe", "MoPoELearner"),
    hyperparameters=(
        _BETA,
        Hyperparameter(
            "full_subset_prior", False, "Include the prior in the product of all experts, as in the authors' code."
        ),
    ),
    most_modalities=10,
)

MVTCAE_ARM = replace(
    _SUCCESSOR,
    token="mvtcae",  # noqa: S106
    title="MVTCAE",
    reads=_SUCCESSOR.reads | ANNEALED,
    build=Later("mvtcae", "build_mvtcae"),
    learner=Later("mvtcae", "MvtcaeLearner"),
    hyperparameters=(
        _BETA,
        Hyperparameter("a", 5 / 6, "Weight of the KLs to the unimodal posteriors.", least=0.0, most=1.0),
    ),
)

MMVAE_ARM = replace(
    _SUCCESSOR,
    token="mmvae",  # noqa: S106
    title="MMVAE",
    build=Later("mmvae", "build_mmvae"),
    learner=Later("mmvae", "MmvaeLearner"),
    hyperparameters=(
        _SAMPLES,
        _POSTERIOR,
        Hyperparameter("learn_prior", True, "Learn the scales of the prior."),
        Hyperparameter("gradient", "dreg", "Gradient estimator if samples > 1.", choices=("dreg", "exact")),
    ),
)

MMVAE_PLUS_ARM = replace(
    _SUCCESSOR,
    token="mmvae_plus",  # noqa: S106
    title="MMVAE+",
    build=Later("mmvae_plus", "build_mmvae_plus"),
    learner=Later("mmvae_plus", "MmvaePlusLearner"),
    hyperparameters=(
        replace(_BETA, about="Weight of the log-ratio of the latents' prior and posterior."),
        _SAMPLES,
        Hyperparameter("private_latents", 32, "Number of private latents per modality.", least=1, most=10_000),
        _POSTERIOR,
    ),
)

JUDGE_ARM = Arm(
    "judge",
    "Classifier",
    IDENTITY | OPTIMISED,
    Later("judge", "build_judge"),
    frozenset({"real"}),
    learner=Later("judge", "JudgeLearner"),
    watch=Later("judge", "watch_accuracy"),
    watched="validation/accuracy",
    decodes_labels=False,
    handles=frozenset({Feature.MANY}),
    hyperparameters=(Hyperparameter("modality", "m0", "Name of the modality whose images are classified."),),
)
"""Classifier that judges generated images. No table has a row for it."""
