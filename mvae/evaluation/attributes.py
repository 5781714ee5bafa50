"""Attributes predicted from the image (supplement section 6, Figure 5 a): accuracy, balanced accuracy, majority rate.

The figure's accuracy is that of samples: z ~ q(z|x1), then each attribute from p(x_i|z). Beside it stand the likeliest
values at z = the mean of q(z|x1). Most attributes are rare, which makes raw accuracy flattering: so there are also the
balanced accuracy, and what always saying the more frequent value scores.

Noise belongs to (seed, position in the split), so that neither order nor chunks matter.

Shapes: n examples, N of a split, A attributes, D latents.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from mvae.data.dataset import ATTRIBUTE_KINDS, Kind, Modality, attribute_names
from mvae.data.examples import Dataset, Split
from mvae.evaluation.accuracy import evaluated
from mvae.models.gaussian import Gaussian
from mvae.models.multimodal import Multimodal
from mvae.streams import numpy_generator

ROWS = 1000
"""Images a pass."""


def attribute_values(modalities: tuple[Modality, ...], split: Split) -> Tensor:
    """Which attributes each example has: bool [N, A], in the order of their names."""
    values = [
        value.reshape(len(value), -1)
        for modality, value in zip(modalities, split.values, strict=True)
        if modality.kind in ATTRIBUTE_KINDS
    ]
    return torch.cat(values, dim=1).bool()


def attribute_logits(model: Multimodal, z: Tensor) -> Tensor:
    """Logits [n, A] of all attributes at z [n, D]."""
    return model.all_attributes(z) if model.stacked else model.decode(model.index(Kind.ATTRIBUTES), z)


def scores(guess: Tensor, truth: Tensor) -> dict[str, Tensor]:
    """How well each attribute is predicted, from predictions and true values, each bool [N, A].

    Returns:
        accuracy: share of examples whose value is the predicted one;
        balanced_accuracy: mean of that share among those that have the attribute and of that among those that have not;
        where a split has examples of one kind alone, that kind's. Float64 [A] each, on the CPU.
    """
    right = guess == truth
    rates = torch.stack([(right & of_kind).double().sum(0) / of_kind.sum(0) for of_kind in (truth, ~truth)])
    balanced = rates.nanmean(0)  # 0 / 0: there are none of a kind
    return {"accuracy": right.double().mean(0).cpu(), "balanced_accuracy": balanced.cpu()}


@torch.no_grad()
def likeliest_attributes(model: Multimodal, split: Split) -> Tensor:
    """The likelier value of each attribute at z = the mean of q(z | image): bool [N, A]. The module's mode stays."""
    with evaluated(model):
        posteriors = _posteriors(model, split, range(len(split)))
        return torch.cat([attribute_logits(model, q.mean) > 0 for _, q in posteriors])


@torch.no_grad()
def sampled_attributes(model: Multimodal, split: Split, seed: int, examples: Sequence[int] | None = None) -> Tensor:
    """Attributes drawn from p(x_i | z), with z ~ q(z | image): bool [n, A]. The module's mode stays.

    Args:
        seed: of the noise, which belongs to (seed, position in the split).
        examples: positions in the split, in any order; None: all.
    """
    drawn = []
    with evaluated(model):
        for ids, q in _posteriors(model, split, range(len(split)) if examples is None else examples):
            normal, uniform = (noise.to(q.mean.device) for noise in _noise(seed, ids, model))
            probability = torch.sigmoid(attribute_logits(model, q.rsample(normal.to(q.mean.dtype))).double())
            drawn.append(uniform < probability)
    return torch.cat(drawn)


def attribute_metrics(model: Multimodal, data: Dataset, seed: int) -> dict[str, float]:
    """What is measured on the test split.

    Returns:
        test/attribute_accuracy and test/attribute_balanced_accuracy of sampled attributes, the same of the likeliest
        ones with "_likeliest" at the end, and test/attribute_majority, the accuracy of always saying the value that is
        more frequent in the training split, whatever of it a trial keeps: each a mean over attributes, and each with
        "/<name>" of every attribute.
    """
    truth = attribute_values(data.modalities, data.test)
    found = {}
    for end, guess in (
        ("", sampled_attributes(model, data.test, seed)),
        ("_likeliest", likeliest_attributes(model, data.test)),
    ):
        for name, of_each in scores(guess, truth).items():
            found[f"attribute_{name}{end}"] = of_each
    frequent = attribute_values(data.modalities, data.train).double().mean(0) > 0.5
    found["attribute_majority"] = scores(frequent.expand_as(truth), truth)["accuracy"]
    names = attribute_names(data.modalities)
    means = {f"test/{name}": float(of_each.mean()) for name, of_each in found.items()}
    return means | {
        f"test/{name}/{attribute}": value
        for name, of_each in found.items()
        for attribute, value in zip(names, of_each.tolist(), strict=True)
    }


def validation_attribute_metrics(model: Multimodal, data: Dataset) -> dict[str, float]:
    """validation/attribute_accuracy and validation/attribute_balanced_accuracy of the likeliest attributes, means."""
    found = scores(likeliest_attributes(model, data.validation), attribute_values(data.modalities, data.validation))
    return {f"validation/attribute_{name}": float(of_each.mean()) for name, of_each in found.items()}


def _posteriors(model: Multimodal, split: Split, examples: Sequence[int]) -> Iterator[tuple[Sequence[int], Gaussian]]:
    """The examples, ROWS at a time, with their q(z | image)."""
    image = model.index(Kind.IMAGE)
    device = split.values[image].device
    for start in range(0, len(examples), ROWS):
        ids = examples[start : start + ROWS]
        yield ids, model.infer_at({image: split.take(image, torch.tensor(ids, device=device))})


def _noise(seed: int, ids: Sequence[int], model: Multimodal) -> tuple[Tensor, Tensor]:
    """Of each example, standard normal [n, D] for z and uniform [n, A] for the attributes, float64, on the CPU."""
    generators = [numpy_generator(seed, "sampled attributes", example) for example in ids]
    normal = np.stack([generator.standard_normal(model.latents) for generator in generators])
    uniform = np.stack([generator.random(len(attribute_names(model.modalities))) for generator in generators])
    return torch.from_numpy(normal), torch.from_numpy(uniform)
