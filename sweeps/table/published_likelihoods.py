"""Tables 1 and 2 of the supplement as data: likelihood estimates and the variance of their log weights, in nats.

The published numbers are by q(z|x1,x2) (supplement, section 4). The same quantities by q(z|x1) stand in the main paper,
whose text we do not have, so ours are shown without a published value beside them. One `Table` here is one data set's
column of both tables, turned: its arms are rows, its quantities columns.
"""

from __future__ import annotations

from sweeps.table.published import Quantity, Table
from sweeps.table.rounding import printed

BY_BOTH, BY_IMAGE = "q(z|x1,x2)", "q(z|x1)"

LOG_TOLERANCE, VARIANCE_TOLERANCE = 0.005, 0.1
"""Largest difference that counts as agreement, as a share of the published value: of log-likelihoods, of variances."""


def _quantities(proposal: str, suffix: str) -> tuple[Quantity, ...]:
    named = (
        ("log p(x1)", "log_marginal", LOG_TOLERANCE),
        ("log p(x1,x2)", "log_joint", LOG_TOLERANCE),
        ("log p(x1|x2)", "log_conditional", LOG_TOLERANCE),
        ("var marginal", "variance_marginal", VARIANCE_TOLERANCE),
        ("var joint", "variance_joint", VARIANCE_TOLERANCE),
        ("var conditional", "variance_conditional", VARIANCE_TOLERANCE),
        ("ESS marginal", "ess_marginal", 0.0),
        ("ESS joint", "ess_joint", 0.0),
    )
    return tuple(
        Quantity(f"{label} by {proposal}", f"test/{name}{suffix}", tolerance) for label, name, tolerance in named
    )


PUBLISHED_QUANTITIES = _quantities(BY_BOTH, "")[:6]
"""The columns of Tables 1 and 2, in their order."""
QUANTITIES = (
    *_quantities(BY_BOTH, ""),
    *_quantities(BY_IMAGE, "-x1"),
    Quantity("log p(x2)", "test/log_x2", 0.0),
    Quantity("log p(x2) by p(z)", "test/log_x2_prior", 0.0),
)
"""All columns that the likelihood measure fills. ESS, the effective sample size, from 1 to S, says how far to trust the
estimates beside it."""

PUBLISHED: dict[str, dict[str, tuple[float, ...]]] = {
    "binary_mnist": {
        "jmvae": printed("-86.234 -86.304 -83.820 22.387 23.309 40.646"),
        "mvae": printed("-86.051 -86.278 -83.940 21.791 21.917 23.035"),
    },
    "mnist": {
        "jmvae": printed("-90.962 -91.031 -88.436 24.962 26.767 40.086"),
        "mvae": printed("-90.616 -90.851 -88.558 25.741 26.057 27.652"),
    },
    "fashion_mnist": {
        "jmvae": printed("-232.401 -232.700 -230.651 28.443 29.874 56.452"),
        "mvae": printed("-232.539 -233.007 -230.699 18.092 18.263 19.934"),
    },
    "multi_mnist": {
        "jmvae": printed("-153.026 -153.320 -145.761 35.822 38.298 92.683"),
        "mvae": printed("-152.826 -153.478 -147.009 16.437 16.672 28.649"),
    },
    "celeba": {
        "jmvae": printed("-6234.542 -6238.280 -6235.330 80.808 81.312 335.046"),
        "mvae": printed("-6237.104 -6241.621 -6235.368 73.871 74.968 77.516"),
        "mvae19": printed("-6236.113 -6239.957 -6233.330 71.546 71.953 71.603"),
    },
}
"""Data set to arm to the six values, in the order of `PUBLISHED_QUANTITIES`."""

PROTOCOL = {"epochs": 500, "batch_size": 100, "learning_rate": 1e-3, "annealing": 200, "samples": 1000}
NETWORKS = {
    "binary_mnist": {"image_network": "mlp", "latents": 64},
    "mnist": {"image_network": "mlp", "latents": 64},
    "fashion_mnist": {"image_network": "dcgan", "latents": 64},
    "multi_mnist": {"image_network": "dcgan", "latents": 100},
    "celeba": {
        "image_network": "dcgan",
        "latents": 100,
        "epochs": 100,
        "learning_rate": 1e-4,
        "annealing": 20,
    },
}
"""What section 1 says of each data set; CelebA's latents are the authors' released code's."""


def likelihood_table(dataset: str) -> Table | None:
    """A data set's column of Tables 1 and 2, None where the supplement has none."""
    if dataset not in PUBLISHED:
        return None
    return Table(
        number="1 and 2",
        title=f"likelihoods and variances of their log weights on {dataset}",
        source="supplement, section 4, Tables 1 and 2; set-up in section 1",
        dataset=dataset,
        metric="test/log_marginal",
        axis="quantity, in nats",
        columns=tuple(quantity.label for quantity in PUBLISHED_QUANTITIES),
        rows=PUBLISHED[dataset],
        protocol={**PROTOCOL, **NETWORKS[dataset]},
        # A caption leaves out fields that mean nothing on a data set. BinaryMNIST's binarisation is fixed by default,
        # since the supplement aligns its numbers with reference [5], which draws bits once.
        unstated=(
            *("seeds", "targets", "label_weight", "text_weight", "binarisation"),
            *(("attribute_weight", "k", "pairing") if dataset == "celeba" else ()),  # a row may differ in these
        ),
        quantities={quantity.label: quantity for quantity in QUANTITIES},
    )
