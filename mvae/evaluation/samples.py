"""Draws samples of a trained model for people to look at: reconstructions, conditional samples, samples of the prior.

`sample_grids` draws sheets of images. `sample_words` lists the labels, texts or attributes of the same examples.
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
from mvae.models.multimodal import Multimodal
from mvae.models.posteriors import Component
from mvae.streams import torch_generator

IMAGES_PER_ROW = 8
MOST_CLASSES = 50
"""Largest number of classes on the sheet `image_given_label`. Later classes are not drawn."""


@torch.no_grad()
def sample_grids(model: Multimodal, split: Split, seed: int) -> dict[str, Sheet]:
    """Draws sheets of images with the trial's seed.

    Returns:
        Sheets by name. Sheets for modalities that the model lacks are absent.
        - reconstructions: test images, and below them their reconstructions from q(z | image).
        - image_given_label: each row shows images of one class, with z ~ q(z | label); at most `MOST_CLASSES` rows.
        - image_given_text: each row shows the image of a test example, then images with z ~ q(z | the example's text).
        - image_given_attributes: like image_given_text, if all attributes are one modality.
        - image_given_attribute: each row shows images with z ~ q(z | one attribute is present).
        - prior: images with z from the model's prior, the same z as in `sample_words`.
    """
    model.eval()
    image = model.index(Kind.IMAGE)
    device = split.values[image].device
    noise = torch_generator(seed, "samples", 0, device)

    def drawn(q: Component) -> Tensor:
        z = q.rsample(torch.randn(q.mean.shape, generator=noise, device=device))
        return model.likelihoods[image].mean(model.decode(image, z))

    kinds = {modality.kind for modality in model.modalities}
    truth = split.take(image, _shown(split))
    reconstructed = model.likelihoods[image].mean(model.decode(image, model.infer_at({image: truth}).mean))
    sheets = {"reconstructions": _reconstructions(truth, reconstructed)}
    if model.stacked:
        one = torch.ones(IMAGES_PER_ROW, dtype=torch.int64, device=device)
        given = [model.infer_at({m: one}) for m in model.stacked]
        images = drawn(type(given[0])(*map(torch.cat, zip(*given, strict=True))))
        rows = tuple(f"given {model.modalities[m].name.replace('_', ' ')}" for m in model.stacked)
        sheets["image_given_attribute"] = Sheet(images, IMAGES_PER_ROW, "Images drawn given one attribute", rows)
    if kinds & {Kind.TEXT, Kind.ATTRIBUTES}:
        other = model.index(Kind.TEXT if Kind.TEXT in kinds else Kind.ATTRIBUTES)
        values = split.take(other, _shown(split)[:IMAGES_PER_ROW])
        images = drawn(model.infer_at({other: values.repeat_interleave(IMAGES_PER_ROW - 1, dim=0)}))
        sheets[f"image_given_{model.modalities[other].name}"] = _conditional(truth, images, model, other, values)
    if Kind.LABEL in kinds:
        label = model.index(Kind.LABEL)
        classes = torch.arange(min(model.modalities[label].classes, MOST_CLASSES), device=device)
        images = drawn(model.infer_at({label: classes.repeat_interleave(IMAGES_PER_ROW)}))
        title = f"Images drawn given the {model.modalities[label].name}"
        sheets["image_given_label"] = Sheet(images, IMAGES_PER_ROW, title, _row_labels(model, label, classes))
    images = model.likelihoods[image].mean(model.decode(image, _prior(model, seed, device)))
    return {**sheets, "prior": Sheet(images, IMAGES_PER_ROW, "Images drawn from the prior")}


@torch.no_grad()
def conditional_grids(model: CVAE, split: Split, seed: int) -> dict[str, Sheet]:
    """Draws sheets of images with a CVAE and the trial's seed.

    Returns:
        Sheets by name.
        - reconstructions: test images, and below them their reconstructions from the mean of q(z | image, x2).
        - image_given_<x2>: each row shows the image of a test example, then images given the example's x2, with
          z ~ N(0, I).
    """
    model.eval()
    device = split.values[0].device
    truth, given = (split.take(m, _shown(split)) for m in (0, 1))
    repeated = given[:IMAGES_PER_ROW].repeat_interleave(IMAGES_PER_ROW - 1, dim=0)
    images = model.likelihood.mean(model.decode(_prior(model, seed, device)[: len(repeated)], repeated))
    name = model.modalities[1].name
    return {
        "reconstructions": _reconstructions(truth, model(truth, given), f", given their {name}"),
        f"image_given_{name}": _conditional(truth, images, model, 1, given[:IMAGES_PER_ROW]),
    }


def _reconstructions(truth: Tensor, reconstructed: Tensor, given: str = "") -> Sheet:
    title = f"Test images and their reconstructions{given}"
    return Sheet(torch.cat([truth, reconstructed]), len(truth), title, ("input", "reconstruction"))


def _conditional(truth: Tensor, drawn: Tensor, model: Multimodal | CVAE, m: int, values: Tensor) -> Sheet:
    """Lays out rows: each row has the image of a test example, then images drawn given the example's modality m."""
    shown = truth[: len(values)]
    rows = torch.cat([shown[:, None], drawn.view(len(values), IMAGES_PER_ROW - 1, *shown.shape[1:])], dim=1)
    title = f"First column: test images. Other columns: drawn given the test image's {model.modalities[m].name}"
    return Sheet(rows.flatten(0, 1), IMAGES_PER_ROW, title, _row_labels(model, m, values))


def _row_labels(model: Multimodal | CVAE, m: int, values: Tensor) -> tuple[str, ...]:
    """Returns the rows' labels, for example "given label 3", "given text 314", "given bald, smile"."""
    modality = model.modalities[m]
    words = _words(model, m, values)
    if modality.kind is Kind.ATTRIBUTES:
        return tuple("given no attribute" if word == "-" else f"given {word.replace('_', ' ')}" for word in words)
    return tuple(f"given no {modality.name}" if word == "-" else f"given {modality.name} {word}" for word in words)


@torch.no_grad()
def sample_words(model: Multimodal, split: Split, seed: int) -> tuple[WordTable, ...]:
    """Returns two tables of x2: the label, the text or the attributes. Returns () if the model has none of these.

    The first table has a row for each test image of the sheet `reconstructions`: the true x2, the likeliest x2 at the
    mean of q(z | image), and an x2 drawn from p(x2 | z) with z ~ q(z | image). The second table has a cell for each
    image of the sheet `prior`: an x2 drawn at the same z. If x2 is attributes, the tables list the attributes that are
    present.
    """
    kinds = {modality.kind for modality in model.modalities}
    shown_kind = next((kind for kind in (Kind.LABEL, Kind.TEXT, *ATTRIBUTE_KINDS) if kind in kinds), None)
    if shown_kind is None:
        return ()
    model.eval()
    image, other = model.index(Kind.IMAGE), model.index(shown_kind)
    device = split.values[image].device
    noise = torch_generator(seed, "sampled words", 0, device)
    rows = _shown(split)
    q = model.infer_at({image: split.take(image, rows)})
    z = q.rsample(torch.randn(q.mean.shape, generator=noise, device=device))
    of_attributes = shown_kind in ATTRIBUTE_KINDS
    truth = attribute_values(model.modalities, split)[rows] if of_attributes else split.take(other, rows)
    columns = (truth, _predicted(model, other, q.mean, None), _predicted(model, other, z, noise))
    given = zip(*(_words(model, other, values) for values in columns), strict=True)
    of_prior = _words(model, other, _predicted(model, other, _prior(model, seed, device), noise))
    sheet = tuple(tuple(of_prior[start : start + IMAGES_PER_ROW]) for start in range(0, len(of_prior), IMAGES_PER_ROW))
    name = "attributes" if of_attributes else model.modalities[other].name
    return (
        WordTable(
            f"{name} given image (of `reconstructions`, left to right)", ("truth", "likeliest", "drawn"), tuple(given)
        ),
        WordTable(f"{name} of the prior (laid out as `prior`)", ("",) * IMAGES_PER_ROW, sheet),
    )


def _shown(split: Split) -> Tensor:
    return torch.arange(min(IMAGES_PER_ROW * 2, len(split)), device=split.values[0].device)


def _prior(model: Multimodal | CVAE, seed: int, device: torch.device) -> Tensor:
    generator = torch_generator(seed, "prior samples", 0, device)
    noise = torch.randn(IMAGES_PER_ROW * IMAGES_PER_ROW, model.latents, generator=generator, device=device)
    return model.prior_at(noise) if isinstance(model, Multimodal) else noise


def _predicted(model: Multimodal, m: int, z: Tensor, generator: torch.Generator | None) -> Tensor:
    """Predicts labels [n], texts [n, L] or attributes [n, A] at z [n, D]: the likeliest if `generator` is None."""
    kind = model.modalities[m].kind
    if kind is Kind.TEXT:
        return model.text_at(m, z, generator)
    logits = attribute_logits(model, z) if kind in ATTRIBUTE_KINDS else model.decode(m, z)
    if generator is not None:
        return model.likelihoods[m].sample(logits, generator)
    return logits > 0 if kind in ATTRIBUTE_KINDS else logits.argmax(-1)


def _words(model: Multimodal | CVAE, m: int, values: Tensor) -> list[str]:
    """Returns each value as text: label, text or names of the present attributes. An empty text or list becomes "-"."""
    modality, rows = model.modalities[m], values.tolist()
    match modality.kind:
        case Kind.LABEL:
            return [str(label) for label in rows]
        case Kind.TEXT:
            return [text_of(row, modality.classes) or "-" for row in rows]
        case _:
            names = attribute_names(model.modalities)
            return [", ".join(name for name, holds in zip(names, row, strict=True) if holds) or "-" for row in rows]
