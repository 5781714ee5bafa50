"""Readable names of metrics, axes and data sets: "test accuracy" for test/accuracy.

Plots, LaTeX tables and headings use these names. In names that are not listed, for example a plug-in's, slashes and
underscores are replaced by spaces.
"""

import re

from mvae.measure import AND, GIVEN

SPLITS = ("test", "validation", "train", "best")
"""First parts of metric names that are kept in the readable name."""

NAMES = {
    "log_marginal": ("log p(x1)", "nats"),
    "log_joint": ("log p(x1,x2)", "nats"),
    "log_conditional": ("log p(x1|x2)", "nats"),
    "log_x2": ("log p(x2)", "nats"),
    "log_x2_prior": ("log p(x2) by p(z)", "nats"),
    "log_marginal_known": ("log p(x1) without <unk>", "nats"),
    "log_joint_known": ("log p(x1,x2) without <unk>", "nats"),
    "log_x2_known": ("log p(x2) without <unk>", "nats"),
    "variance_marginal": ("variance of the marginal log weights", ""),
    "variance_joint": ("variance of the joint log weights", ""),
    "variance_conditional": ("variance of the conditional log weights", ""),
    "ess_marginal": ("effective sample size, marginal", ""),
    "ess_joint": ("effective sample size, joint", ""),
    "ess_conditional": ("effective sample size, conditional", ""),
    "attribute_accuracy": ("accuracy of sampled attributes", ""),
    "attribute_balanced_accuracy": ("balanced accuracy of sampled attributes", ""),
    "attribute_accuracy_likeliest": ("accuracy of the likeliest attributes", ""),
    "attribute_balanced_accuracy_likeliest": ("balanced accuracy of the likeliest attributes", ""),
    "attribute_majority": ("accuracy of the more frequent value", ""),
    "empty_masks": ("share of images without a face", ""),
    "loss": ("loss", "nats"),
    "elbo": ("ELBO", "nats"),
    "kl": ("KL to the prior", "nats"),
    "kl_per_token": ("KL to the prior per token", "nats"),
    "reconstruction_error": ("squared reconstruction error", ""),
    "psnr": ("PSNR", "dB"),
    "psnr_input": ("PSNR of the input", "dB"),
    "psnr_mean": ("PSNR of the mean image", "dB"),
    "ssim": ("SSIM", ""),
    "ssim_input": ("SSIM of the input", ""),
    "ssim_mean": ("SSIM of the mean image", ""),
    "bleu": ("BLEU", ""),
    "chrf": ("chrF", ""),
    "active_units": ("share of active latent dimensions", ""),
    "examples_per_second": ("training examples per second", ""),
}
"""Readable name and unit of a metric; the key is the part WHAT of the metric's name (see `metric_words`)."""

WITHOUT_SPLIT = frozenset(name for name in NAMES if name.startswith(("log_", "variance_", "ess_", "attribute_")))
"""Metrics that are computed on test data only, so their readable names omit "test"."""

PER_TOKEN = "_per_token"  # noqa: S105 (a token of a sentence)

AXES = {
    "paired fraction": "share of paired examples",
    "keep_probability": "probability of keeping a value",
    "random subsets a step": "random subsets per step",
    "of test images": "answer on test images",
    "epoch": "epochs",
}
"""Readable names of axes, for tables that use a short name."""

DATASETS = {
    "mnist": "MNIST",
    "binary_mnist": "binarised MNIST",
    "fashion_mnist": "FashionMNIST",
    "multi_mnist": "MultiMNIST",
    "celeba": "CelebA",
    "mnist19": "MNIST with 18 attributes",
}
"""Data sets whose usual name differs from their token."""


def metric_words(metric: str) -> str:
    """Returns the readable name and unit of a metric: "log p(x1) (nats)" for test/log_marginal.

    The name of a metric has the form SPLIT/WHAT-VARIANT/OF. All parts except WHAT are optional.
    """
    split, _, rest = metric.partition("/")
    if split not in SPLITS:
        split, rest = "", metric.removeprefix("speed/")
    what, _, of = rest.partition("/")
    base, dash, variant = what.partition("-")
    per_token = base.endswith(PER_TOKEN) and base not in NAMES
    base = base.removesuffix(PER_TOKEN) if per_token else base
    if split == "validation" and f"{base}_likeliest" in NAMES:
        base += "_likeliest"  # during training, attributes are not sampled
    words, unit = NAMES.get(base, (_spaced(base), ""))
    if split and not (split == "test" and base in WITHOUT_SPLIT):
        words = f"{split} {words}"
    if per_token:
        words += " per token"
    if dash:
        words += _variant(variant)
    if of:
        words += f", {_spaced(of)}"
    return f"{words} ({unit})" if unit else words


def axis_words(axis: str) -> str:
    """Returns the readable name of an axis: "share of paired examples" for "paired fraction"."""
    return AXES.get(axis, axis.replace("_", " "))


def dataset_words(dataset: str) -> str:
    """Returns the usual name of a data set: FashionMNIST for fashion_mnist."""
    return DATASETS.get(dataset, _spaced(dataset))


def capitalised(words: str) -> str:
    """Returns the words with a capital first letter, unless they start with a formula."""
    return words if re.match(r"(log )?[pq]\(", words) else words[:1].upper() + words[1:]


def _variant(variant: str) -> str:
    if f"-{variant}".startswith(GIVEN):
        *names, last = variant.removeprefix(GIVEN.removeprefix("-")).split(AND)
        return f" given {' and '.join([', '.join(names), last] if names else [last])}"
    if variant == "x1":
        return " by q(z|x1)"
    if share := re.fullmatch(r"f([\d.e-]+)", variant):
        return f" of a read-out, {float(share[1]) * 100:.6g}% of the labels"
    return f", {_spaced(variant)}"


def _spaced(name: str) -> str:
    return name.replace("/", " ").replace("_", " ")
