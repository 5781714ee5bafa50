"""Published coherence on PolyMNIST as data, from two studies with different protocols.

"Multi-View Representation Learning via Total Correlation Objective" (Hwang et al. 2021), figure 2: 5 seeds, values
read off by eye, within 0.01 to 0.02. MultiVae's case study: means of 4 logged seeds, except `mopoe`, whose values were
read off a figure. The studies differ in data split, learning rates, epochs and networks' heads, so our tables name the
study that they compare with.
"""

from sweeps.table.published import Table
from sweeps.table.rounding import printed

COLUMNS = ("1 input", "2 inputs", "3 inputs", "4 inputs")
"""Conditional coherence by number of inputs."""

PROBES = tuple(f"probe {n}" for n in range(1, 6))
"""Accuracy of a linear probe by number of inputs."""

MVTCAE = Table(
    number="MVTCAE, figure 2",
    label="MVTCAE paper, figure 2",
    title="conditional coherence on PolyMNIST by number of inputs",
    source="Hwang et al. 2021, figure 2 (read off by eye), 5 seeds",
    dataset="polymnist",
    metric="test/coherence-1",
    axis="coherence",
    columns=(*COLUMNS, *PROBES),
    rows={
        "mvae": printed("0.29 0.415 0.48 0.525 0.695 0.835 0.906 0.934 0.948"),
        "mmvae": printed("0.705 0.705 0.705 0.705 0.824 0.824 0.824 0.824 0.824"),
        "mopoe": printed("0.635 0.75 0.79 0.805 0.82 0.905 0.93 0.942 0.951"),
        "mvtcae": printed("0.59 0.775 0.835 0.855 0.94 0.988 0.994 0.997 0.998"),
    },
    protocol={"epochs": 300, "image_network": "conv", "latents": 512, "batch_size": 256, "learning_rate": 1e-3},
    unstated=("seeds",),
    test_examples=10_000,
)

MULTIVAE = Table(
    number="MultiVae case study",
    label="MultiVae's case study",
    title="conditional coherence on PolyMNIST by number of inputs",
    source="MultiVae's case study, means of 4 logged seeds",
    dataset="polymnist",
    metric="test/coherence-1",
    axis="coherence",
    columns=COLUMNS,
    rows={
        "mvae": printed("0.213 0.319 0.419 0.513"),
        "mmvae": printed("0.805 0.803 0.803 0.804"),
        "mopoe": printed("0.615 0.75 0.80 0.83"),
        "mvtcae": printed("0.535 0.715 0.793 0.830"),
        "jmvae": printed("0.631 0.715 0.793 0.828"),
    },
    protocol={"image_network": "conv", "latents": 512, "learning_rate": 1e-3},
    unstated=("seeds",),
    test_examples=10_000,
)

MISSING = {
    0.2: {
        "mvae": printed("0.40 0.545 0.635 0.695"),
        "mmvae": printed("0.795 0.795 0.795 0.795"),
        "mopoe": printed("0.595 0.725 0.785 0.81"),
        "mvtcae": printed("0.49 0.66 0.745 0.79"),
    },
    0.5: {
        "mvae": printed("0.28 0.395 0.465 0.515"),
        "mmvae": printed("0.76 0.76 0.76 0.76"),
        "mopoe": printed("0.50 0.63 0.695 0.735"),
        "mvtcae": printed("0.385 0.535 0.63 0.69"),
    },
}
"""MultiVae's case study, 4 seeds: values of `COLUMNS` by share of missing training values and arm.

In this study, the first modality is never missing, and the MVAE has only the joint term. The study gives one number for
`mmvae`.
"""

STUDIES = {"mvtcae": MVTCAE, "multivae": MULTIVAE}
"""The studies by the value of `--study`."""

BESIDE = {"mvtcae": "MVTCAE study", "multivae": "MultiVae study"}
"""Name of each study, as shown in the heading of a row."""


def published(study: str, arm: str, column: str, missing: float = 0.0) -> float | None:
    """Returns the value that a study published for an arm in a column; None if the study has no such value.

    Args:
        missing: fraction of the training values that are missing.
    """
    if not missing:
        return STUDIES[study].published(arm, column)
    values = MISSING.get(missing, {}).get(arm, ()) if study == "multivae" else ()
    return dict(zip(COLUMNS, values, strict=False)).get(column)
