"""Predicts attributes from the image and scores the predictions (supplement section 6, Figure 5 a).

Figure 5 a shows the accuracy of samples: z ~ q(z|x1), then each attribute ~ p(x_i|z). We also score the likeliest
values at z = the mean of q(z|x1). Most attributes are rare, so plain accuracy is high even for poor predictions.
Therefore we also report the balanced accuracy, and the accuracy of always predicting the more frequent value.

Noise is a function of (seed, position in the split), so it does not depend on the order of the examples or on the batch
size.

Shapes: n examples, N examples of a split, A attributes, D latents.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from mvae.data.dataset import ATTRIBUTE_KINDS, Kind, Modality, attribute_names, first_input
from mvae.data.examples import Dataset, Split
from mvae.evaluation.accuracy import evaluated
from mvae.models.gaussian import Gaussian
from mvae.models.multimodal import Multimodal
from mvae.streams import numpy_generator

IMAGES_PER_PASS = 1000


def attribute_values(modalities: tuple[Modality, ...], split: Split) -> Tensor:
    """Returns which attributes each example has: bool [N, A], in the order of `attribute_names`."""
    values = [
        value.reshape(len(value), -1)
        for modality, value in zip(modalities, split.values, strict=True)
        if modality.kind in ATTRIBUTE_KINDS
    ]
    return torch.cat(values, dim=1).bool()


def attribute_logits(model: Multimodal, z: Tensor) -> Tensor:
    """Returns the logits [n, A] of all attributes at z [n, D]."""
    return model.all_attributes(z) if model.stacked else model.decode(model.index(Kind.ATTRIBUTES), z)


def scores(guess: Tensor, truth: Tensor) -> dict[str, Tensor]:
    """Scores the prediction of each attribute.

    Args:
        guess, truth: predicted and true values, bool [N, A].
    Returns:
        Two scores, each float64 [A] on the CPU.
        - accuracy: share of correct predictions.
        - balanced_accuracy: mean of two accuracies, over the examples with the attribute and over the examples
          without the attribute. If the split has only one of these groups, the score is that group's accuracy.
    """
    correct = guess == truth
    rates = torch.stack([(correct & group).double().sum(0) / group.sum(0) for group in (truth, ~truth)])
    balanced = rates.nanmean(0)  # an empty group has rate 0 / 0 = nan
    return {"accuracy": correct.double().mean(0).cpu(), "balanced_accuracy": balanced.cpu()}


@torch.no_grad()
def likeliest_attributes(model: Multimodal, split: Split) -> Tensor:
    """Returns each attribute's likelier value at the mean of q(z | image): bool [N, A].

    Restores the model's former mode (training or evaluation).
    """
    with evaluated(model):
        posteriors = _posteriors(model, split, range(len(split)))
        return torch.cat([attribute_logits(model, q.mean) > 0 for _, q in posteriors])


@torch.no_grad()
def sampled_attributes(model: Multimodal, split: Split, seed: int, examples: Sequence[int] | None = None) -> Tensor:
    """Draws attributes from p(x_i | z) with z ~ q(z | image): bool [n, A].

    Restores the model's former mode (training or evaluation).

    Args:
        seed: seed of the noise, which is a function of (seed, position in the split).
        examples: positions in the split, in any order. None means all examples.
    """
    drawn = []
    with evaluated(model):
        for ids, q in _posteriors(model, split, range(len(split)) if examples is None else examples):
            normal, uniform = (noise.to(q.mean.device) for noise in _noise(seed, ids, model))
            probability = torch.sigmoid(attribute_logits(model, q.rsample(normal.to(q.mean.dtype))).double())
            drawn.append(uniform < probability)
    return torch.cat(drawn)


def attribute_metrics(model: Multimodal, data: Dataset, seed: int) -> dict[str, float]:
    """Returns the attribute metrics of the test split.

    Returns:
        Each metric is a mean over attributes. The suffix "/<attribute>" marks the same metric of one attribute.
        - test/attribute_accuracy, test/attribute_balanced_accuracy: scores of sampled attributes.
        - the same two names with the suffix "_likeliest": scores of the likeliest attributes.
        - test/attribute_majority: accuracy of always predicting the more frequent value. Frequencies come from the
          whole training split, even if a trial keeps only a share of it.
    """
    truth = attribute_values(data.modalities, data.test)
    guesses = {
        "": sampled_attributes(model, data.test, seed),
        "_likeliest": likeliest_attributes(model, data.test),
    }
    per_attribute = {
        f"attribute_{name}{suffix}": values
        for suffix, guess in guesses.items()
        for name, values in scores(guess, truth).items()
    }
    frequent = attribute_values(data.modalities, data.train).double().mean(0) > 0.5
    per_attribute["attribute_majority"] = scores(frequent.expand_as(truth), truth)["accuracy"]
    names = attribute_names(data.modalities)
    means = {f"test/{name}": float(values.mean()) for name, values in per_attribute.items()}
    return means | {
        f"test/{name}/{attribute}": value
        for name, values in per_attribute.items()
        for attribute, value in zip(names, values.tolist(), strict=True)
    }


def validation_attribute_metrics(model: Multimodal, data: Dataset) -> dict[str, float]:
    """Scores the likeliest attributes on the validation split.

    Returns:
        validation/attribute_accuracy and validation/attribute_balanced_accuracy, each a mean over attributes.
    """
    found = scores(likeliest_attributes(model, data.validation), attribute_values(data.modalities, data.validation))
    return {f"validation/attribute_{name}": float(values.mean()) for name, values in found.items()}


def _posteriors(model: Multimodal, split: Split, examples: Sequence[int]) -> Iterator[tuple[Sequence[int], Gaussian]]:
    image = first_input(model.modalities)
    device = split.values[image].device
    for start in range(0, len(examples), IMAGES_PER_PASS):
        ids = examples[start : start + IMAGES_PER_PASS]
        yield ids, model.infer_at({image: split.take(image, torch.tensor(ids, device=device))})


def _noise(seed: int, ids: Sequence[int], model: Multimodal) -> tuple[Tensor, Tensor]:
    """Returns standard normal noise [n, D] for z and uniform noise [n, A] for the attributes, float64 on the CPU."""
    generators = [numpy_generator(seed, "sampled attributes", example) for example in ids]
    normal = np.stack([generator.standard_normal(model.latents) for generator in generators])
    uniform = np.stack([generator.random(len(attribute_names(model.modalities))) for generator in generators])
    return torch.from_numpy(normal), torch.from_numpy(uniform)
