"""Image encoders and decoders: the MLP of Figure 1, and the small DCGAN of Figure 2.

`image_encoder` and `image_decoder` choose a network by its name and the image size.

Encoders return [n, outputs]: concatenated mean and spread for a VAE, only the mean for a classifier. Decoders return
logits [n, C, H, W]. All networks use Swish (SiLU) and PyTorch's default initialisation.
"""

from math import prod

from torch import Tensor, nn

from mvae.networks.convolutional import ConvolutionalDecoder, ConvolutionalEncoder
from mvae.networks.dcgan import SIZES, DcganDecoder, DcganEncoder
from mvae.networks.layers import Layers, Shape, mlp


def hidden_width(shape: Shape) -> int:
    """Returns the width of the fully connected layers: 512 (section 1), or 128 for the 8x8 digits."""
    return 128 if prod(shape) <= 64 else 512


class MlpImageEncoder(Layers):
    """An MLP with two hidden layers, from images to [n, outputs] (Figure 1 a)."""

    def __init__(self, shape: Shape, outputs: int) -> None:
        super().__init__()
        self.layers = mlp(prod(shape), hidden_width(shape), 2, outputs)

    def forward(self, image: Tensor) -> Tensor:
        return super().forward(image.flatten(1))


class MlpImageDecoder(Layers):
    """An MLP with `layers` hidden layers, from latents to logits [n, C, H, W] (Figure 1 b)."""

    def __init__(self, shape: Shape, latents: int, layers: int) -> None:
        super().__init__()
        self.shape = shape
        self.layers = mlp(latents, hidden_width(shape), layers, prod(shape))

    def forward(self, z: Tensor) -> Tensor:
        return super().forward(z).view(len(z), *self.shape)


class MiniDcganEncoder(Layers):
    """Encodes 28x28 images: two strided convolutions without bias or BatchNorm, FC 6272-512-outputs (Figure 2 a)."""

    def __init__(self, shape: Shape, outputs: int) -> None:
        super().__init__()
        assert shape[1:] == (28, 28), "the miniature DCGAN is made for 28x28 images"
        self.layers = nn.Sequential(
            nn.Conv2d(shape[0], 64, 4, 2, 1, bias=False),
            nn.SiLU(),
            nn.Conv2d(64, 128, 4, 2, 1, bias=False),
            nn.SiLU(),
            nn.Flatten(),
            nn.Linear(128 * 7 * 7, 512),
            nn.SiLU(),
            nn.Linear(512, outputs),
        )


class MiniDcganDecoder(Layers):
    """Decodes 28x28 images: FC latents-512-6272, two transposed convolutions without bias or BatchNorm (Figure 2 b)."""

    def __init__(self, shape: Shape, latents: int) -> None:
        super().__init__()
        assert shape[1:] == (28, 28), "the miniature DCGAN is made for 28x28 images"
        self.layers = nn.Sequential(
            nn.Linear(latents, 512),
            nn.SiLU(),
            nn.Linear(512, 128 * 7 * 7),
            nn.SiLU(),
            nn.Unflatten(1, (128, 7, 7)),
            nn.ConvTranspose2d(128, 64, 4, 2, 1, bias=False),
            nn.SiLU(),
            nn.ConvTranspose2d(64, shape[0], 4, 2, 1, bias=False),
        )


def image_encoder(network: str, shape: Shape, outputs: int) -> nn.Module:
    """Builds the image encoder named `network`: `mlp`, `dcgan` or `conv`.

    The image size selects the variant of `dcgan`.
    """
    match network:
        case "mlp":
            return MlpImageEncoder(shape, outputs)
        case "dcgan":
            return DcganEncoder(shape, outputs) if shape[1] in SIZES else MiniDcganEncoder(shape, outputs)
        case "conv":
            return ConvolutionalEncoder(shape, outputs)
    raise AssertionError(f"a trial with the image network {network!r} should have been refused")


def image_decoder(network: str, shape: Shape, latents: int, layers: int) -> nn.Module:
    """Builds the image decoder named `network`: `mlp`, `dcgan` or `conv`.

    `layers` is the number of hidden layers of `mlp`.
    """
    match network:
        case "mlp":
            return MlpImageDecoder(shape, latents, layers)
        case "dcgan":
            return DcganDecoder(shape, latents) if shape[1] in SIZES else MiniDcganDecoder(shape, latents)
        case "conv":
            return ConvolutionalDecoder(shape, latents)
    raise AssertionError(f"a trial with the image network {network!r} should have been refused")
