"""The DCGAN of Figures 3 and 4, for images of 50x50 (MultiMNIST) and 64x64 (CelebA).

Each network has four strided convolutions without bias, with Swish between. The encoder's first convolution and the
decoder's last have no batch normalisation; all other convolutions do. The encoder has dropout before its output.
Strides and kernels depend on the image size.

On a CPU, two settings are faster for 64x64: channels-last memory saves a tenth of the time, and decoding one ELBO term
per pass saves a sixth. The networks for 50x50 do not use these settings, because MultiMNIST's existing results
would change.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mvae.data.dataset import DCGAN_SIDES
from mvae.networks.layers import Layers, Shape
from mvae.networks.normalisation import TermBatchNorm

HIDDEN = 512  # width of the encoder's fully connected layer


@dataclass(frozen=True)
class _Size:
    """Settings of the networks that depend on the image size."""

    bottom: int  # height and width of the 256 innermost channels
    stride: int  # of the innermost convolution, in encoder and decoder
    kernel: int  # of the decoder's second last transposed convolution
    rows: int  # maximum number of rows per decoder pass, in whole terms
    channels_last: bool  # whether convolutions on a CPU use the channels-last memory format


SIZES = {
    50: _Size(bottom=2, stride=2, kernel=5, rows=512, channels_last=False),
    64: _Size(bottom=5, stride=1, kernel=4, rows=128, channels_last=True),
}
"""Settings by height (equal to the width) of the image."""
assert SIZES.keys() == DCGAN_SIDES


class DcganEncoder(Layers):
    """Applies convolutions C-32-64-128-256, then FC 1024-512-outputs (50x50) or 6400-512-outputs (64x64)."""

    def __init__(self, shape: Shape, outputs: int) -> None:
        super().__init__()
        size = _size(shape)
        self.channels_last = size.channels_last
        self.layers = nn.Sequential(
            nn.Conv2d(shape[0], 32, 4, 2, 1, bias=False),
            nn.SiLU(),
            nn.Conv2d(32, 64, 4, 2, 1, bias=False),
            TermBatchNorm(64),
            nn.SiLU(),
            nn.Conv2d(64, 128, 4, 2, 1, bias=False),
            TermBatchNorm(128),
            nn.SiLU(),
            nn.Conv2d(128, 256, 4, size.stride, 0, bias=False),
            TermBatchNorm(256),
            nn.SiLU(),
            nn.Flatten(),
            nn.Linear(256 * size.bottom**2, HIDDEN),
            nn.SiLU(),
            nn.Dropout(0.1),
            nn.Linear(HIDDEN, outputs),
        )

    def forward(self, image: Tensor) -> Tensor:
        return super().forward(_channels_last(image) if self.channels_last else image)


class DcganDecoder(Layers):
    """Applies FC latents-1024 (50x50) or latents-6400 (64x64), then transposed convolutions 256-128-64-32-C."""

    def __init__(self, shape: Shape, latents: int) -> None:
        super().__init__()
        size = _size(shape)
        self.rows, self.channels_last = size.rows, size.channels_last
        self.layers = nn.Sequential(
            nn.Linear(latents, 256 * size.bottom**2),
            nn.SiLU(),
            nn.Unflatten(1, (256, size.bottom, size.bottom)),
            nn.ConvTranspose2d(256, 128, 4, size.stride, 0, bias=False),
            TermBatchNorm(128),
            nn.SiLU(),
            nn.ConvTranspose2d(128, 64, 4, 2, 1, bias=False),
            TermBatchNorm(64),
            nn.SiLU(),
            nn.ConvTranspose2d(64, 32, size.kernel, 2, 1, bias=False),
            TermBatchNorm(32),
            nn.SiLU(),
            nn.ConvTranspose2d(32, shape[0], 4, 2, 1, bias=False),
        )

    def forward(self, z: Tensor) -> Tensor:
        if not self.channels_last:
            return super().forward(z)
        logits: Tensor = self.layers[3:](_channels_last(self.layers[:3](z)))
        return logits


def _channels_last(images: Tensor) -> Tensor:
    return images.contiguous(memory_format=torch.channels_last) if images.device.type == "cpu" else images


def _size(shape: Shape) -> _Size:
    assert shape[1] == shape[2] and shape[1] in SIZES, f"no DCGAN for images of shape {shape}"
    return SIZES[shape[1]]
