"""MLPs for vectors of real numbers, with the width of the image networks (Figure 1)."""

from mvae.networks.layers import Layers, mlp


class MlpVectorEncoder(Layers):
    """An MLP with two hidden layers, from vectors, float [n, D], to [n, outputs]."""

    def __init__(self, numbers: int, width: int, outputs: int) -> None:
        super().__init__()
        self.layers = mlp(numbers, width, 2, outputs)


class MlpVectorDecoder(Layers):
    """An MLP with `layers` hidden layers, from latents to the mean of each number."""

    def __init__(self, numbers: int, width: int, latents: int, layers: int) -> None:
        super().__init__()
        self.layers = mlp(latents, width, layers, numbers)
