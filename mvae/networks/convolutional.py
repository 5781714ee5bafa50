"""Convolutional networks for square images of at least 16x16 pixels, as in PolyMNIST's published results.

Encoder: three convolutions C-32-64-128 (kernel 3, stride 2, padding 1, ReLU), then fully connected
layers with D and 2 D outputs for D latents. Decoder: FC from D to 128*s*s, where s is the side of the smallest feature
map, then three transposed convolutions 128-64-32-C. Their output paddings restore the size of the image. For 28x28
images, s is 4, and the output paddings are 0, 1 and 1 (Sutter et al. 2021, Hwang et al. 2021).
"""

from itertools import pairwise

from torch import nn

from mvae.networks.layers import Layers, Shape

CHANNELS = (32, 64, 128)


def sides(side: int) -> tuple[int, ...]:
    """Returns the sides of the image and of each convolution's output, for example (28, 14, 7, 4)."""
    found = [side]
    for _ in CHANNELS:
        found.append((found[-1] + 1) // 2)
    return tuple(found)


class ConvolutionalEncoder(Layers):
    """Maps images [n, C, H, H] to [n, outputs]. The hidden layer has half as many units as the output layer."""

    def __init__(self, shape: Shape, outputs: int) -> None:
        super().__init__()
        last, hidden = sides(shape[1])[-1], max(1, outputs // 2)
        convolutions = [
            layer
            for wide, narrow in pairwise((shape[0], *CHANNELS))
            for layer in (nn.Conv2d(wide, narrow, 3, 2, 1), nn.ReLU())
        ]
        flat = CHANNELS[-1] * last * last
        self.layers = nn.Sequential(
            *convolutions, nn.Flatten(), nn.Linear(flat, hidden), nn.ReLU(), nn.Linear(hidden, outputs)
        )


class ConvolutionalDecoder(Layers):
    """Maps latents [n, D] to the parameters of the image's likelihood [n, C, H, H]."""

    def __init__(self, shape: Shape, latents: int) -> None:
        super().__init__()
        *_, last = down = sides(shape[1])
        widths = (*reversed(CHANNELS), shape[0])
        layers: list[nn.Module] = [nn.Linear(latents, CHANNELS[-1] * last * last), nn.ReLU()]
        layers.append(nn.Unflatten(1, (CHANNELS[-1], last, last)))
        for (narrow, wide), (small, large) in zip(pairwise(widths), pairwise(reversed(down)), strict=True):
            layers += [nn.ConvTranspose2d(narrow, wide, 3, 2, 1, output_padding=large - 2 * small + 1), nn.ReLU()]
        self.layers = nn.Sequential(*layers[:-1])
