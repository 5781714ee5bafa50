"""Declares the arms of the tables: their names, fields and measures. Imports no torch.

`Later` names the code that builds or trains an arm, and imports this code when it is called.
"""

from __future__ import annotations

from dataclasses import replace

from mvae.models.arm import ANNEALED, BINARISED, IDENTITY, NETWORKS, OPTIMISED, PAIRED, Arm, Feature, Later

NN_ARM = Arm(
    "nn",
    "NN",
    IDENTITY | PAIRED | OPTIMISED | NETWORKS | BINARISED,
    Later("classifiers", "build_neural_network"),
    frozenset({"accuracy"}),
    learner=Later("classifiers", "NeuralNetworkLearner"),
    cuda_graphs=True,
)

LOGREG_ARM = Arm(
    "logreg",
    "LOGREG",
    IDENTITY | PAIRED,
    Later("classifiers", "build_logistic_regression"),
    frozenset({"accuracy"}),
    fit=Later("classifiers", "fit_logistic_regression"),
    handles=frozenset(),
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
    | {"alpha", "image_weight", "label_weight", "text_weight", "attribute_weight"},
    Later("jmvae", "build_jmvae"),
    frozenset({"accuracy", "likelihood", "attributes", "translation"}),
    learner=Later("jmvae", "JmvaeLearner"),
    cuda_graphs=True,
    handles=frozenset({Feature.TEXTS, Feature.ATTRIBUTES, Feature.IMAGELESS}),
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
    | {"pairing", "targets", "k", "fixed_noise", "keep_probability"}
    | {"image_weight", "label_weight", "text_weight", "attribute_weight"},
    Later("mvae", "build_mvae"),
    frozenset({"accuracy", "likelihood", "attributes", "translation", "vision"}),
    learner=Later("mvae", "ElboLearner"),
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
