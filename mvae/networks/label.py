"""Label encoder and decoder (Figures 1 and 2, c and d)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mvae.networks.layers import Layers, mlp


class LabelEncoder(nn.Module):
    """Applies Embedding(classes, hidden), FC hidden-hidden and FC hidden-outputs, with Swish between.

    If a batch has more rows than classes, each class is encoded once, and all rows of the class reuse the result.
    """

    def __init__(self, classes: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(classes, hidden)
        self.layers = nn.Sequential(nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, outputs))

    def forward(self, label: Tensor) -> Tensor:
        """Maps labels int64 [n] to [n, outputs]."""
        classes = self.embedding.num_embeddings
        few = len(label) <= classes
        encoded: Tensor = self.layers(self.embedding(label if few else torch.arange(classes, device=label.device)))
        return encoded if few else F.embedding(label, encoded)


class LabelDecoder(Layers):
    """An MLP with `layers` hidden layers, from latents to class logits."""

    def __init__(self, classes: int, hidden: int, latents: int, layers: int) -> None:
        super().__init__()
        self.layers = mlp(latents, hidden, layers, classes)
