"""A model with closed-form likelihoods: z ~ N(0, I), x_m = W_m z + b_m + noise, everything Gaussian, in float64.

The columns of each W_m are orthogonal, so every posterior is a diagonal Gaussian and can be the proposal itself. The
closed forms do not use this: they are multivariate normal densities of the stacked x.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, Normal

from mvae.data.dataset import Kind, Modality
from mvae.data.examples import Split
from mvae.models.gaussian import Gaussian
from mvae.models.multimodal import Multimodal

LATENTS = 3
WIDTHS = (6, 4)
DEVIATIONS = (0.7, 1.1)
"""Standard deviation of the noise on x1 and x2."""


class LinearGaussian(Multimodal):
    """A model of one or two modalities. `inflation` widens the variance of every posterior from `infer`; 1 is exact."""

    def __init__(self, modalities: int = 2, inflation: float = 1.0) -> None:
        names = ("first", "second")[:modalities]
        shapes = [Modality(name, Kind.IMAGE, (width,)) for name, width in zip(names, WIDTHS, strict=False)]
        super().__init__(tuple(shapes), [], [], LATENTS)
        self.inflation = inflation
        draw = torch.Generator().manual_seed(0)
        of_first = 2 + 2 * torch.rand(LATENTS, generator=draw, dtype=torch.float64)
        precisions = (of_first, 0.35 * (1 + of_first))  # joint precision: 1.35 to 1.5 times that of p(z|x1)
        for m, (width, deviation, precision) in enumerate(zip(WIDTHS, DEVIATIONS, precisions, strict=True)):
            square = torch.randn(width, width, generator=draw, dtype=torch.float64)
            columns = torch.linalg.qr(square).Q[:, :LATENTS]
            self.register_buffer(f"weight_{m}", columns * deviation * precision.sqrt())
            self.register_buffer(f"bias_{m}", torch.randn(width, generator=draw, dtype=torch.float64))

    def part(self, m: int) -> tuple[Tensor, Tensor, float]:
        """W_m [d, D], b_m [d] and the standard deviation of the noise."""
        return self.get_buffer(f"weight_{m}"), self.get_buffer(f"bias_{m}"), DEVIATIONS[m]

    def infer_at(self, values: dict[int, Tensor]) -> Gaussian:
        precision, weighted = torch.ones(LATENTS).double(), torch.zeros(LATENTS).double()
        for m, value in values.items():
            weight, bias, deviation = self.part(m)
            precision = precision + (weight**2).sum(0) / deviation**2
            weighted = weighted + (value - bias) @ weight / deviation**2
        return Gaussian(weighted / precision, (self.inflation / precision).log().expand_as(weighted))

    def log_prob(self, m: int, z: Tensor, target: Tensor) -> Tensor:
        weight, bias, deviation = self.part(m)
        return normal_log_prob(target, z @ weight.T + bias, torch.tensor(deviation, dtype=torch.float64)).sum(-1)

    def posterior(self, mean: Tensor, spread: Tensor, members: Tensor) -> Gaussian:
        raise AssertionError("infer needs no experts")

    def examples(self, n: int, seed: int = 1) -> FloatSplit:
        """Draws examples from the model."""
        draw = torch.Generator().manual_seed(seed)
        z = torch.randn(n, LATENTS, generator=draw, dtype=torch.float64)
        values = []
        for m in range(len(self.modalities)):
            weight, bias, deviation = self.part(m)
            noise = torch.randn(n, len(bias), generator=draw, dtype=torch.float64)
            values.append(z @ weight.T + bias + deviation * noise)
        return FloatSplit(tuple(values))

    def closed_form(self, split: Split, *chosen: int) -> Tensor:
        """log p of the chosen modalities together, [n], from the density of the stacked x."""
        weight = torch.cat([self.part(m)[0] for m in chosen])
        bias = torch.cat([self.part(m)[1] for m in chosen])
        noise = torch.cat([torch.full_like(self.part(m)[1], self.part(m)[2] ** 2) for m in chosen])
        density = MultivariateNormal(bias, covariance_matrix=weight @ weight.T + torch.diag(noise))
        found: Tensor = density.log_prob(torch.cat([split.values[m] for m in chosen], dim=1))  # type: ignore[no-untyped-call]
        return found

    def truth(self, split: Split) -> dict[str, Tensor]:
        """Exact values of every estimate for two modalities, by name."""
        first, second, both = (self.closed_form(split, *chosen) for chosen in ((0,), (1,), (0, 1)))
        return {"marginal": first, "joint": both, "conditional": both - second, "x2": second}


def normal_log_prob(x: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
    """Element-wise log-density of a normal distribution."""
    density = Normal(mean, deviation, validate_args=False)
    found: Tensor = density.log_prob(x)  # type: ignore[no-untyped-call]
    return found


class FloatSplit(Split):
    """A split whose values are float64, not bytes."""

    def take(self, modality: int, index: Tensor) -> Tensor:
        chosen: Tensor = self.values[modality][index]
        return chosen
