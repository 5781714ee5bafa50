"""The networks of Figures 1 and 2: sizes, inputs and outputs, and batch normalisation within a term."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from mvae.data import source
from mvae.data.dataset import Kind
from mvae.models import arm
from mvae.models.multimodal import decoder_of, encoder_of, width_of
from mvae.networks.attribute import AttributeDecoders, AttributeEncoders, attribute_width
from mvae.networks.dcgan import DcganDecoder, DcganEncoder
from mvae.networks.label import LabelEncoder
from mvae.networks.normalisation import TermBatchNorm, term_statistics
from mvae.networks.text import TextDecoder
from mvae.trial import Trial
from tests.small_models import PHOTO, SEVERAL


def parameters(*networks: nn.Module) -> int:
    return sum(parameter.numel() for network in networks for parameter in network.parameters())


def dense(*widths: int) -> int:
    """Number of weights and biases of fully connected layers."""
    return sum(wide * narrow + wide for narrow, wide in pairwise(widths))


def inference_networks(dataset: str, image_network: str) -> list[nn.Module]:
    """Encoders of the data set's MVAE, the image's first."""
    modalities, latents = source(dataset).modalities, source(dataset).defaults.latents
    return [encoder_of(m, image_network, width_of(modalities), 2 * latents) for m in modalities]


def generative_networks(dataset: str, image_network: str, layers: int = 2) -> list[nn.Module]:
    """Decoders of the data set's MVAE, the image's first."""
    modalities, latents = source(dataset).modalities, source(dataset).defaults.latents
    return [decoder_of(m, image_network, width_of(modalities), latents, layers) for m in modalities]


@pytest.mark.parametrize(
    ("dataset", "network", "image_encoder", "both_encoders"),
    [
        ("mnist", "mlp", 730_240, 1_063_680),
        ("binary_mnist", "mlp", 730_240, 1_063_680),
        ("fashion_mnist", "dcgan", 3_409_536, 3_742_976),
        ("multi_mnist", "dcgan", 1_316_936, 1_841_936),
    ],
)
def test_inference_networks_have_the_golden_numbers_of_parameters(
    dataset: str, network: str, image_encoder: int, both_encoders: int
) -> None:
    encoders = inference_networks(dataset, network)
    assert parameters(encoders[0]) == image_encoder
    assert parameters(*encoders) == both_encoders


def test_the_dcgan_of_64x64_images_has_the_golden_number_of_parameters_and_rebuilds_their_size() -> None:
    assert parameters(DcganEncoder((3, 64, 64), 2 * 100)) == 4_070_472
    assert DcganEncoder((3, 64, 64), 2 * 100)(torch.rand(2, 3, 64, 64)).shape == (2, 200)
    assert DcganDecoder((3, 64, 64), 100)(torch.randn(2, 100)).shape == (2, 3, 64, 64)


def test_the_inference_networks_of_celeba_have_the_golden_numbers_of_parameters() -> None:
    modalities, latents = (PHOTO, SEVERAL), 100
    image, attributes = (encoder_of(m, "dcgan", width_of(modalities), 2 * latents) for m in modalities)
    assert parameters(image) == 4_070_472
    assert parameters(image, attributes) == 4_447_504
    decoder = decoder_of(SEVERAL, "dcgan", width_of(modalities), latents, 2)
    assert parameters(decoder) == dense(latents, 512, 512, 18) + 2 * (512 + 512)
    for network in (attributes, decoder):
        assert [type(step) for step in network.layers] == 2 * [nn.Linear, TermBatchNorm, nn.SiLU] + [nn.Linear]  # type: ignore[union-attr]


@pytest.mark.parametrize("n", [0, 1, 3])
def test_networks_of_several_attributes_map_each_row_to_outputs_and_logits(n: int) -> None:
    assert encoder_of(SEVERAL, "dcgan", 512, 6)(torch.ones(n, 18, dtype=torch.int64)).shape == (n, 6)
    assert decoder_of(SEVERAL, "dcgan", 512, 3, 2)(torch.zeros(n, 3)).shape == (n, 18)


@pytest.mark.parametrize(("side", "width"), [(8, 64), (28, 64), (50, 64), (64, 512)])
def test_separate_attribute_networks_are_as_wide_as_section_1_says(side: int, width: int) -> None:
    assert attribute_width((3, side, side)) == width


@pytest.mark.parametrize(("width", "latents"), [(512, 100), (64, 64)], ids=["celeba19", "mnist19"])
def test_separate_attribute_networks_have_as_many_parameters_as_their_shapes(width: int, latents: int) -> None:
    encoders, decoders = AttributeEncoders(18, width, 2 * latents), AttributeDecoders(18, width, latents, 2)
    assert parameters(encoders) == 18 * (2 * width + dense(width, width, 2 * latents))
    assert parameters(decoders) == 18 * dense(latents, width, width, 1)


def test_the_digits_networks_have_as_many_parameters_as_their_shapes() -> None:
    image, label = inference_networks("digits", "mlp")
    assert parameters(image) == dense(64, 128, 128, 32)
    assert parameters(label) == 10 * 128 + dense(128, 128, 32)
    image, label = generative_networks("digits", "mlp")
    assert parameters(image) == dense(16, 128, 128, 64)
    assert parameters(label) == dense(16, 128, 128, 10)


@pytest.mark.parametrize("layers", [2, 3])
def test_decoders_of_the_mnist_family_have_as_many_parameters_as_their_shapes(layers: int) -> None:
    hidden = (512,) * layers
    image, label = generative_networks("mnist", "mlp", layers)
    assert parameters(image) == dense(64, *hidden, 784)
    assert parameters(label) == dense(64, *hidden, 10)
    image, label = generative_networks("fashion_mnist", "dcgan", layers)
    assert parameters(image) == dense(64, 512, 6272) + 128 * 64 * 16 + 64 * 16
    assert parameters(label) == dense(64, *hidden, 10)


def test_decoders_of_multi_mnist_have_as_many_parameters_as_their_shapes() -> None:
    image, text = generative_networks("multi_mnist", "dcgan")
    convolutions = 256 * 128 * 16 + 128 * 64 * 16 + 64 * 32 * 25 + 32 * 1 * 16
    assert parameters(image) == dense(100, 1024) + convolutions + 2 * (128 + 64 + 32)
    gru = [3 * 200 * (inputs + 200 + 2) for inputs in (300, 200)]
    assert parameters(text) == dense(100, 200) + 12 * 200 + sum(gru) + dense(300, 12)


def test_the_nn_ends_in_the_mean_head_and_the_label_decoder() -> None:
    nn_arm = arm("nn").build(Trial.create(dataset="mnist", model="nn"), source("mnist").modalities)
    assert parameters(nn_arm) == dense(784, 512, 512, 64) + dense(64, 512, 512, 10)


@pytest.mark.parametrize(
    ("dataset", "network"), [("digits", "mlp"), ("mnist", "mlp"), ("fashion_mnist", "mlp"), ("fashion_mnist", "dcgan")]
)
def test_encoders_return_a_row_of_outputs_and_decoders_the_modalitys_logits(dataset: str, network: str) -> None:
    modalities, latents = source(dataset).modalities, source(dataset).defaults.latents
    encoders, decoders = inference_networks(dataset, network), generative_networks(dataset, network)
    for modality, encoder, decoder in zip(modalities, encoders, decoders, strict=True):
        for n in (0, 3):
            image = modality.kind is Kind.IMAGE
            value = torch.rand(n, *modality.shape) if image else torch.zeros(n, dtype=torch.int64)
            assert encoder(value).shape == (n, 2 * latents)
            assert decoder(torch.zeros(n, latents)).shape == (n, *(modality.shape if image else (modality.classes,)))
    with torch.no_grad():
        assert decoders[0](100 * torch.randn(50, latents)).abs().max() > 1, "logits must not be squashed into [0, 1]"


@pytest.mark.parametrize("n", [0, 1, 3])
def test_the_networks_of_multi_mnist_return_a_row_of_outputs_and_logits(n: int) -> None:
    encoders, decoders = inference_networks("multi_mnist", "dcgan"), generative_networks("multi_mnist", "dcgan")
    image, text, z = torch.rand(n, 1, 50, 50), torch.full((n, 5), 10), torch.zeros(n, 100)
    assert encoders[0](image).shape == encoders[1](text).shape == (n, 200)
    assert decoders[0](z).shape == image.shape
    assert isinstance(decoders[1], TextDecoder)
    assert decoders[1](z, text).shape == (n, 4, 11)
    assert decoders[1].greedy(z).shape == text.shape
    assert decoders[1].sample(z, torch.Generator()).shape == text.shape


@pytest.mark.parametrize(("dataset", "network"), [("mnist", "mlp"), ("fashion_mnist", "dcgan")])
def test_every_nonlinearity_is_swish(dataset: str, network: str) -> None:
    kinds = {
        type(module)
        for network_ in [*inference_networks(dataset, network), *generative_networks(dataset, network)]
        for module in network_.modules()
        if not list(module.children())
    }
    assert nn.SiLU in kinds
    assert kinds <= {nn.SiLU, nn.Linear, nn.Conv2d, nn.ConvTranspose2d, nn.Embedding, nn.Flatten, nn.Unflatten}


@pytest.mark.parametrize("rows", [0, 1, 5, 6, 200])
def test_looking_up_encoded_labels_equals_encoding_each_row(rows: int) -> None:
    torch.manual_seed(0)
    encoder = LabelEncoder(5, 8, 6).double()
    label = torch.randint(5, (rows,))
    weights = torch.randn(rows, 6).double()
    one_by_one = [encoder.layers(encoder.embedding(label[i : i + 1])) for i in range(rows)]
    expected = torch.cat([torch.zeros(0, 6).double(), *one_by_one])
    ours = encoder(label)
    torch.testing.assert_close(ours, expected)
    if rows:
        leaves = list(encoder.parameters())
        mine = torch.autograd.grad((ours * weights).sum(), leaves)
        theirs = torch.autograd.grad((expected * weights).sum(), leaves)
        torch.testing.assert_close(mine, theirs)


def twins(dims: int) -> tuple[TermBatchNorm, nn.Module]:
    """Our and torch's normalisation, with equal parameters and running statistics."""
    torch.manual_seed(0)
    ours = TermBatchNorm(4).double()
    theirs = (nn.BatchNorm1d if dims == 2 else nn.BatchNorm2d)(4).double()
    nn.init.normal_(ours.weight)
    nn.init.normal_(ours.bias)
    theirs.load_state_dict(ours.state_dict(), strict=False)
    return ours, theirs


def rows(n: int, dims: int, seed: int = 1) -> Tensor:
    shape = (n, 4) if dims == 2 else (n, 4, 3, 2)
    return 2 + 3 * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("dims", [2, 4])
def test_outside_terms_batch_normalisation_equals_torchs(dims: int) -> None:
    ours, theirs = twins(dims)
    for step in range(3):
        x, y = (rows(7, dims, step).requires_grad_() for _ in range(2))
        mine, their = ours(x), theirs(y)
        torch.testing.assert_close(mine, their)
        gradients = torch.autograd.grad(mine.sin().sum(), [x, *ours.parameters()])
        torch.testing.assert_close(gradients, torch.autograd.grad(their.sin().sum(), [y, *theirs.parameters()]))
        torch.testing.assert_close(dict(ours.named_buffers()), _statistics(theirs))
    x = rows(7, dims, 9)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))
    torch.testing.assert_close(ours(x[:1]), theirs(x[:1]))


@pytest.mark.parametrize("dims", [2, 4])
def test_within_terms_each_group_is_normalised_separately(dims: int) -> None:
    ours, theirs = twins(dims)
    x = rows(12, dims)
    with term_statistics(ours) as next_groups:
        next_groups([5, 4, 3])
        together = ours(x)
    apart = torch.cat([theirs(part) for part in torch.split(x, [5, 4, 3])])
    torch.testing.assert_close(together, apart)


def test_within_terms_running_statistics_are_updated_once_by_the_mean_over_groups() -> None:
    ours, theirs = twins(2)
    x, y = rows(9, 2), rows(3, 2, 2)
    with term_statistics(ours) as next_groups:
        next_groups([5, 4])
        ours(x)
        next_groups([3])
        ours(y)
        assert ours.running_mean.eq(0).all()
        assert ours.running_var.eq(1).all()
    after = []
    for part in (*torch.split(x, [5, 4]), y):
        fresh = twins(2)[1]
        fresh(part)
        after.append(_statistics(fresh))
    mean = {name: torch.stack([a[name] for a in after]).mean(0) for name in after[0]}
    torch.testing.assert_close(dict(ours.named_buffers()), mean)
    ours(x)
    theirs.load_state_dict({**theirs.state_dict(), **mean})
    theirs(x)
    torch.testing.assert_close(dict(ours.named_buffers()), _statistics(theirs), msg="the block left something behind")


@pytest.mark.parametrize("dims", [2, 4])
def test_fewer_than_two_rows_use_the_running_statistics_and_update_nothing(dims: int) -> None:
    ours, theirs = twins(dims)
    ours(rows(7, dims))
    theirs(rows(7, dims))
    x = rows(1, dims, 4)
    expected, before = theirs.eval()(x), {name: buffer.clone() for name, buffer in ours.named_buffers()}
    with term_statistics(ours) as next_groups:
        next_groups([1])
        torch.testing.assert_close(ours(x), expected)
    torch.testing.assert_close(ours(x), expected)
    assert ours(x[:0]).shape == x[:0].shape
    torch.testing.assert_close(dict(ours.named_buffers()), before, rtol=0, atol=0)


def test_an_error_within_terms_does_not_affect_the_next_step() -> None:
    ours, theirs = twins(2)

    def pass_of_the_wrong_size() -> None:
        with term_statistics(ours) as next_groups:
            next_groups([3])
            ours(rows(5, 2))

    with pytest.raises(AssertionError, match="do not add up"):
        pass_of_the_wrong_size()
    torch.testing.assert_close(ours(rows(5, 2)), theirs(rows(5, 2)))


def _statistics(norm: nn.Module) -> dict[str, Tensor]:
    return {name: buffer for name, buffer in norm.named_buffers() if name.startswith("running")}
