"""Published coherence on PolyMNIST as data, from two studies with different protocols.

"Multi-View Representation Learning via Total Correlation Objective" (Hwang et al. 2021), figure 2: read off by eye,
within 0.01 to 0.02; 5 seeds. MultiVae's case study: means of 4 logged seeds; mopoe was read off a figure. The studies
differ in split, learning rates, epochs and networks' heads, so each cell of ours names the study next to it.
"""

from __future__ import annotations

from sweeps.table.published import Table
from sweeps.table.rounding import printed

COLUMNS = ("1 input", "2 inputs", "3 inputs", "4 inputs")
"""Conditional coherence by number of inputs."""

MVTCAE = Table(
    number="MVTCAE, figure 2",
    title="conditional coherence on PolyMNIST by number of inputs",
    source="Hwang et al. 2021, figure 2 (read off by eye), 5 seeds",
    dataset="polymnist",
    metric="test/coherence-1",
    axis="coherence",
    columns=COLUMNS,
    rows={
        "mvae": printed("0.29 0.415 0.48 0.525"),
        "mmvae": printed("0.705 0.705 0.705 0.705"),
        "mopoe": printed("0.635 0.75 0.79 0.805"),
        "mvtcae": printed("0.59 0.775 0.835 0.855"),
    },
    protocol={"epochs": 300, "image_network": "conv", "latents": 512, "batch_size": 256, "learning_rate": 1e-3},
    unstated=("seeds",),
    test_examples=10_000,
)

MULTIVAE = Table(
    number="MultiVae case study",
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

STUDIES = {"mvtcae": MVTCAE, "multivae": MULTIVAE}
"""The studies by the value of `--study`."""
