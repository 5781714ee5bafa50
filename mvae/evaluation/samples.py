"""Samples of a trained model, to look at: reconstructions, each modality given the other, and the prior, both at once.

`sample_grids` makes sheets of images; `sample_words` makes tables of what the model reads in them: labels, texts or
attributes.
"""

import torch
from torch import Tensor

from mvae.data.dataset import ATTRIBUTE_KINDS, Kind, attribute_names
from mvae.data.examples import Split
from mvae.data.sentences.text import text_of
from mvae.evaluation.attributes import attribute_logits, attribute_values
from mvae.evaluation.sheets import Sheet
from mvae.evaluation.words import WordTable
from mvae.models.cvae import CVAE
from mvae.models.gaussian import Gaussian
from mvae.models.multimodal import Multimodal, written
from mvae.streams import torch_generator

ROWS = 8
"""Images a class or a row of a grid."""


@torch.no_grad()
def sample_grids(model: Multimodal, split: Split, seed: int) -> dict[str, Sheet]:
    """Named sheets of images, drawn with the trial's seed.

    Returns:
        reconstructions: test images above their reconstruction from q(z | image);
        image_given_label: a row a class, z ~ q(z | label), where the model has labels;
        image_given_text: a row a test example, its image first and then images by z ~ q(z | its text), where it has
        texts; image_given_attributes: the same of several attributes as one modality;
        image_given_attribute: a row a single attribute, z ~ q(z | it is there), all else unknown;
        prior: z ~ N(0, I), the same z as in `sample_words`.
    """
    model.eval()
    image = model.index(Kind.IMAGE)
    device = split.values[image].device
    noise = torch_generator(seed, "samples", 0, device)

    def drawn(q: Gaussian) -> Tensor:
        z = q.rsample(torch.randn(q.mean.shape, generator=noise, device=device))
        return model.likelihoods[image].mean(model.decode(image, z))

    kinds = {modality.kind for modality in model.modalities}
    truth = split.take(image, _shown(split))
    rebuilt = model.likelihoods[image].mean(model.decode(image, model.infer_at({image: truth}).mean))
    sheets = {"reconstructions": _reconstructions(truth, rebuilt)}
    if model.stacked:
        one = torch.ones(ROWS, dtype=torch.int64, device=device)
        given = [model.infer_at({m: one}) for m in model.stacked]
        images = drawn(Gaussian(*map(torch.cat, zip(*given, strict=True))))
        rows = tuple(f"given {_spaced(model.modalities[m].name)}" for m in model.stacked)
        sheets["image_given_attribute"] = Sheet(images, ROWS, "Images drawn given one attribute", rows)
    if kinds & {Kind.TEXT, Kind.ATTRIBUTES}:
        other = model.index(Kind.TEXT if Kind.TEXT in kinds else Kind.ATTRIBUTES)
        values = split.take(other, _shown(split)[:ROWS])
        of_other = drawn(model.infer_at({other: values.repeat_interleave(ROWS - 1, dim=0)}))
        sheets[f"image_given_{model.modalities[other].name}"] = _beside(truth, of_other, model, other, values)
    if Kind.LABEL in kinds:
        label = model.index(Kind.LABEL)
        classes = torch.arange(model.modalities[label].classes, device=device)
        images = drawn(model.infer_at({label: classes.repeat_interleave(ROWS)}))
        name = model.modalities[label].name
        rows = _given(model, label, classes)
        sheets["image_given_label"] = Sheet(images, ROWS, f"Images drawn given the {name}", rows)
    of_prior = model.likelihoods[image].mean(model.decode(image, _prior(model, seed, device)))
    return {**sheets, "prior": Sheet(of_prior, ROWS, "Images drawn from the prior")}


@torch.no_grad()
def conditional_grids(model: CVAE, split: Split, seed: int) -> dict[str, Sheet]:
    """What a CVAE has to show, as in `sample_grids`: reconstructions, and images given x2 with z ~ N(0, I).

    Returns:
        reconstructions: test images above their reconstruction from the mean of q(z | image, x2);
        image_given_<x2>: a row a test example, its image first and then images by its x2.
    """
    model.eval()
    device = split.values[0].device
    truth, given = (split.take(m, _shown(split)) for m in (0, 1))
    repeated = given[:ROWS].repeat_interleave(ROWS - 1, dim=0)
    images = model.likelihood.mean(model.decode(_prior(model, seed, device)[: len(repeated)], repeated))
    name = model.modalities[1].name
    return {
        "reconstructions": _reconstructions(truth, model(truth, given), f", given their {name}"),
        f"image_given_{name}": _beside(truth, images, model, 1, given[:ROWS]),
    }


def _reconstructions(truth: Tensor, rebuilt: Tensor, given: str = "") -> Sheet:
    title = f"Test images and their reconstructions{given}"
    return Sheet(torch.cat([truth, rebuilt]), len(truth), title, ("input", "reconstruction"))


def _beside(truth: Tensor, drawn: Tensor, model: Multimodal | CVAE, m: int, values: Tensor) -> Sheet:
    """A row a test example: its image, then images drawn given its value of modality m."""
    shown = truth[: len(values)]
    rows = torch.cat([shown[:, None], drawn.view(len(values), ROWS - 1, *shown.shape[1:])], dim=1)
    title = f"First column: test images. Others: drawn given the test image's {model.modalities[m].name}"
    return Sheet(rows.flatten(0, 1), ROWS, title, _given(model, m, values))


def _given(model: Multimodal | CVAE, m: int, values: Tensor) -> tuple[str, ...]:
    """Labels of the values beside a row: given label 3, given text 314, given bald, smile."""
    modality = model.modalities[m]
    words = _words(model, m, values)
    if modality.kind is Kind.ATTRIBUTES:
        return tuple("given no attribute" if word == "-" else f"given {_spaced(word)}" for word in words)
    return tuple(f"given no {modality.name}" if word == "-" else f"given {modality.name} {word}" for word in words)


def _spaced(name: str) -> str:
    return name.replace("_", " ")


@torch.no_grad()
def sample_words(model: Multimodal, split: Split, seed: int) -> tuple[WordTable, ...]:
    """Returns tables of the x2 that the model gives: label, text or attributes; none if it has none of them.

    For each image of the grid `reconstructions` the truth, the likeliest x2 at the mean of q(z | image), and one that
    is drawn from p(x2 | z) with z ~ q(z | image). For each image of the grid `prior` an x2 drawn at the same z. Of
    attributes those are named that hold.
    """
    kinds = {modality.kind for modality in model.modalities}
    spoken = next((kind for kind in (Kind.LABEL, Kind.TEXT, *ATTRIBUTE_KINDS) if kind in kinds), None)
    if spoken is None:
        return ()
    model.eval()
    image, other = model.index(Kind.IMAGE), model.index(spoken)
    device = split.values[image].device
    noise = torch_generator(seed, "sampled words", 0, device)
    rows = _shown(split)
    q = model.infer_at({image: split.take(image, rows)})
    z = q.rsample(torch.randn(q.mean.shape, generator=noise, device=device))
    truth = attribute_values(model.modalities, split)[rows] if spoken in ATTRIBUTE_KINDS else split.take(other, rows)
    columns = (truth, _emitted(model, other, q.mean, None), _emitted(model, other, z, noise))
    given = zip(*(_words(model, other, values) for values in columns), strict=True)
    of_prior = _words(model, other, _emitted(model, other, _prior(model, seed, device), noise))
    sheet = tuple(tuple(of_prior[start : start + ROWS]) for start in range(0, len(of_prior), ROWS))
    name = "attributes" if spoken in ATTRIBUTE_KINDS else model.modalities[other].name
    return (
        WordTable(
            f"{name} given image (of `reconstructions`, left to right)", ("truth", "likeliest", "drawn"), tuple(given)
        ),
        WordTable(f"{name} of the prior (laid out as `prior`)", ("",) * ROWS, sheet),
    )


def _shown(split: Split) -> Tensor:
    """Positions of the examples that are shown: the first two rows' worth, or as many as there are."""
    return torch.arange(min(ROWS * 2, len(split)), device=split.values[0].device)


def _prior(model: Multimodal | CVAE, seed: int, device: torch.device) -> Tensor:
    noise = torch_generator(seed, "prior samples", 0, device)
    return torch.randn(ROWS * ROWS, model.latents, generator=noise, device=device)


def _emitted(model: Multimodal, m: int, z: Tensor, generator: torch.Generator | None) -> Tensor:
    """Labels [n], texts [n, L] or attributes [n, A] at z [n, D]: the likeliest, or drawn where a generator is given."""
    kind = model.modalities[m].kind
    if kind is Kind.TEXT:
        return written(model.decoders[m], z, generator)
    logits = attribute_logits(model, z) if kind in ATTRIBUTE_KINDS else model.decode(m, z)
    if generator is not None:
        return model.likelihoods[m].sample(logits, generator)
    return logits > 0 if kind in ATTRIBUTE_KINDS else logits.argmax(-1)


def _words(model: Multimodal | CVAE, m: int, values: Tensor) -> list[str]:
    """Each value as a reader wants it: a label's number, a text's characters, the names of the attributes that hold; a
    dash where there is nothing to say."""
    modality, rows = model.modalities[m], values.tolist()
    match modality.kind:
        case Kind.LABEL:
            return [str(label) for label in rows]
        case Kind.TEXT:
            return [text_of(row, modality.classes) or "-" for row in rows]
        case _:
            names = attribute_names(model.modalities)
            return [", ".join(name for name, holds in zip(names, row, strict=True) if holds) or "-" for row in rows]
