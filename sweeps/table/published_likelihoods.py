"""Tables 1 and 2 of the supplement as data: likelihood estimates and the variance of their log weights, in nats.

The published numbers use samples from q(z|x1,x2) (supplement, section 4). Our estimates with q(z|x1) are not
compared with published values, because we do not have the text of the main paper. Each `Table` here holds the values of
one data set from both published tables. Its rows are arms, and its columns are quantities.
"""

from sweeps.table.published import Quantity, Table
from sweeps.table.rounding import printed

BY_BOTH, BY_IMAGE = "q(z|x1,x2)", "q(z|x1)"

LOG_TOLERANCE, VARIANCE_TOLERANCE = 0.005, 0.1
"""Largest relative difference that counts as agreement: the first for log-likelihoods, the second for variances."""


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
"""The columns of Tables 1 and 2, in the published order."""
QUANTITIES = (
    *_quantities(BY_BOTH, ""),
    *_quantities(BY_IMAGE, "-x1"),
    Quantity("log p(x2)", "test/log_x2", 0.0),
    Quantity("log p(x2) by p(z)", "test/log_x2_prior", 0.0),
)
"""All columns that the likelihood measure fills. ESS is the effective sample size, from 1 to the number of samples. Do
not trust estimates with an ESS near 1."""

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
"""The six values of each data set and arm, in the order of `PUBLISHED_QUANTITIES`."""

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
"""Settings of each data set from section 1; CelebA's number of latents is from the authors' released code."""


def likelihood_table(dataset: str) -> Table | None:
    """Returns the values of Tables 1 and 2 for one data set; None if these tables do not contain the data set."""
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
        # Captions omit fields that do not apply to a data set. BinaryMNIST's binarisation is fixed by default, because
        # the supplement compares its numbers with reference [5], which draws bits once.
        unstated=(
            *("seeds", "targets", "label_weight", "text_weight", "binarisation"),
            *(("attribute_weight", "k", "pairing") if dataset == "celeba" else ()),  # rows may differ in these
        ),
        quantities={quantity.label: quantity for quantity in QUANTITIES},
    )
