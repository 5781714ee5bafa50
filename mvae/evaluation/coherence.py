"""Measures coherence: whether generated images show the same class as the given images. Used on PolyMNIST.

A classifier per modality decides which class a generated image shows. The classifiers are trained as separate trials.
A generated image is the mean of p(x_m | z), unclipped. For a subset S of the M modalities, z is drawn once from
q(z | x_S) per test example.

coherence-n       share of images that show the class of the n given modalities, averaged over subsets and generated
                  modalities
reconstruction    share of images that keep their class when reconstructed from all M modalities
joint_coherence   share of samples from the prior whose M images show one class
probe-n           accuracy of a logistic regression on z, fitted on 500 training examples, averaged over all subsets
                  of n modalities
real              accuracy of the classifiers on real test images, an upper limit
shuffled          coherence-1 with the given examples shuffled, the chance level
frechet-NAME      Frechet distance between prior samples and real test images of the modality NAME, in the features of
                  that modality's classifier

Shapes: n examples, M modalities, D latents, F features.
"""

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from mvae.data.examples import Dataset, Split
from mvae.evaluation.accuracy import evaluated
from mvae.models.judge import Judge, judge_accuracy, labels
from mvae.models.logistic import fit_linear
from mvae.models.multimodal import Multimodal
from mvae.models.posteriors import Mixture, Posterior
from mvae.streams import numpy_generator, torch_generator

PROBE_EXAMPLES = 500
"""Number of training examples of the linear probe."""
MOST_MODALITIES = 8
"""Largest number of modalities for which coherence is measured. Each further modality doubles the number of subsets."""


def drawn(q: Posterior, generator: torch.Generator) -> Tensor:
    """Returns one sample per example, [n, D]. For a mixture, first draws a component uniformly."""
    n, latents = q.mean.shape
    noise = torch.randn(n, latents, generator=generator, device=q.mean.device)
    if isinstance(q, Mixture):
        which = torch.randint(q.components, (n,), generator=generator, device=q.mean.device)
        rows = torch.arange(n, device=q.mean.device)
        chosen = type(q.parts)(*(part[rows, which] for part in q.parts))
        return chosen.rsample(noise)
    return q.rsample(noise)


def frechet_distance(one: np.ndarray, other: np.ndarray) -> float:
    """Returns the squared Frechet distance of the normal distributions fitted to two sets of features, [n, F] each.

    The distance is |mean difference|^2 + trace(A + B - 2 (A B)^(1/2)), for covariances A and B.
    """
    mean = one.mean(0) - other.mean(0)
    a, b = np.cov(one, rowvar=False), np.cov(other, rowvar=False)
    root = np.linalg.eigvals(a @ b)
    return float(mean @ mean + np.trace(a + b) - 2 * np.sqrt(np.clip(root.real, 0, None)).sum())


class _Images:
    """Generates images with a model, and classifies the images."""

    def __init__(self, model: Multimodal, judges: Sequence[Judge]) -> None:
        self.model, self.judges = model, judges

    def at(self, m: int, z: Tensor) -> Tensor:
        return self.model.likelihoods[m].mean(self.model.decode(m, z))

    def classes(self, m: int, z: Tensor) -> Tensor:
        """Returns the class of the image that modality m's decoder generates at each z: int64 [n]."""
        logits: Tensor = self.judges[m](self.at(m, z))
        return logits.argmax(-1)


@torch.no_grad()
def coherence_metrics(
    model: Multimodal,
    data: Dataset,
    judges: Sequence[Judge],
    seed: int,
    heard: Callable[[int, int], None] = lambda _done, _of: None,
) -> dict[str, float]:
    """Returns all metrics listed in this module's docstring, as test/NAME, over the whole test split.

    Args:
        judges: one trained classifier per modality, in the order of the model's modalities.
        seed: seed of all random draws.
        heard: called after every subset with the number of finished subsets and the number of all subsets.
    """
    count = len(model.modalities)
    assert len(judges) == count <= MOST_MODALITIES and all(not judge.training for judge in judges)
    images, device = _Images(model, judges), data.test.values[0].device
    sizes = range(1, count + 1)
    given = [subset for size in sizes for subset in itertools.combinations(range(count), size)]
    right: dict[int, list[float]] = {size: [] for size in sizes}
    probe: dict[int, list[float]] = {size: [] for size in sizes}
    shuffled: list[float] = []
    order = torch.from_numpy(numpy_generator(seed, "shuffled classes").permutation(len(data.test))).to(device)
    fitted_on = torch.from_numpy(numpy_generator(seed, "probe").permutation(len(data.train))[:PROBE_EXAMPLES]).to(
        device
    )
    truth = labels(data.test, torch.arange(len(data.test), device=device))
    classes = int(truth.max()) + 1
    with evaluated(model):
        for position, subset in enumerate(given):
            generator = torch_generator(seed, "coherence", position, device)
            z = torch.cat([_latents(model, data.test, subset, rows, generator) for rows in data.test.passes()])
            targets = [m for m in range(count) if m not in subset] or list(subset)
            for m in targets:
                shown = torch.cat([images.classes(m, part) for part in torch.split(z, 1000)])
                right[len(subset)].append(float((shown == truth).double().mean()))
                if len(subset) == 1:
                    shuffled.append(float((shown == truth[order]).double().mean()))
            of_train = _latents(model, data.train, subset, fitted_on, generator)
            fit = fit_linear(of_train.cpu().numpy(), labels(data.train, fitted_on).cpu().numpy(), classes)
            probe[len(subset)].append(float((fit.predict(z.cpu().numpy()) == truth.cpu().numpy()).mean()))
            heard(position + 1, len(given))
        joint, distances = _of_prior(images, data.test, seed)
        real = [judge_accuracy(judge, m, data.test) for m, judge in enumerate(judges)]
    found = {f"coherence-{size}": float(np.mean(right[size])) for size in sizes if size < count}
    found |= {f"probe-{size}": float(np.mean(probe[size])) for size in sizes}
    found |= {"reconstruction": float(np.mean(right[count])), "joint_coherence": joint}
    found |= {"real": float(np.mean(real)), "shuffled": float(np.mean(shuffled)), **distances}
    return {f"test/{name}": value for name, value in found.items()}


def _latents(
    model: Multimodal, split: Split, subset: tuple[int, ...], rows: Tensor, generator: torch.Generator
) -> Tensor:
    return drawn(model.infer_at({m: split.take(m, rows) for m in subset}), generator)


def _of_prior(images: _Images, split: Split, seed: int) -> tuple[float, dict[str, float]]:
    """Returns joint coherence and Frechet distances, from as many samples of the prior as there are test examples."""
    model, device = images.model, split.values[0].device
    generator = torch_generator(seed, "coherence of the prior", 0, device)
    noise = torch.randn(len(split), model.latents, generator=generator, device=device)
    z = model.prior_at(noise)
    parts = torch.split(z, 1000)
    shown = torch.stack([torch.cat([images.classes(m, part) for part in parts]) for m in range(len(model.modalities))])
    alike = float((shown == shown[:1]).all(0).double().mean())
    distances = {}
    for m, modality in enumerate(model.modalities):
        judge = images.judges[m]
        ours = torch.cat([judge.features(images.at(m, part)) for part in parts])
        theirs = torch.cat([judge.features(split.take(m, rows)) for rows in split.passes()])
        distances[f"frechet-{modality.name}"] = frechet_distance(
            ours.cpu().double().numpy(), theirs.cpu().double().numpy()
        )
    return alike, distances
