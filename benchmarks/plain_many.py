"""A simple MVAE19 to compare with: 19 encoder and 19 decoder modules, and a loop over the ELBO terms.

A step has 1 + 19 + k terms: one for all modalities, one for each modality, and k for random subsets. Each term does the
following:

1. encode every modality that the term conditions on, one module after the other, without reusing earlier results;
2. multiply the experts, including the prior, by the textbook formula, and draw z;
3. run all 19 decoders on z one after the other, although the term reconstructs only some modalities;
4. add up the cross-entropies of the term's own modalities and the KL, and add their mean over the batch to the loss.

After all terms, the loop runs one backward pass through their sum, and takes one step of torch's default Adam. Autograd
skips decoders that do not influence the loss. The batch normalisation is PyTorch's, so each pass updates its running
statistics. The authors' released code does all this too. If `every_encoder` is true, step 1 encodes all 19 modalities,
but step 2 uses only the experts of the modalities that the term conditions on.

The loop imports nothing from `mvae/`. The activation and the cross-entropies have two implementations, as in
benchmarks/plain.py. The networks equal ours layer by layer (supplement, Figures 1 and 4).

Shapes: B batch, D latents, E experts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.plain import Hand, dense, product_of_experts

ATTRIBUTES = 18
IMAGE_WEIGHT = 1.0
ATTRIBUTE_WEIGHT = 1.0


def image_networks(image_network: str, latents: int, hand: Hand) -> tuple[nn.Module, nn.Module]:
    """Returns the image's encoder and decoder: `mlp` for 28x28 (Figure 1), or `dcgan` for 3x64x64 (Figure 4)."""
    if image_network == "mlp":
        return (
            nn.Sequential(nn.Flatten(), dense(hand, 784, 512, 512, 2 * latents)),
            nn.Sequential(dense(hand, latents, 512, 512, 784), nn.Unflatten(1, (1, 28, 28))),
        )
    encoder = nn.Sequential(
        nn.Conv2d(3, 32, 4, 2, 1, bias=False),
        hand.activation(),
        nn.Conv2d(32, 64, 4, 2, 1, bias=False),
        nn.BatchNorm2d(64),
        hand.activation(),
        nn.Conv2d(64, 128, 4, 2, 1, bias=False),
        nn.BatchNorm2d(128),
        hand.activation(),
        nn.Conv2d(128, 256, 4, 1, 0, bias=False),
        nn.BatchNorm2d(256),
        hand.activation(),
        nn.Flatten(),
        nn.Linear(256 * 5 * 5, 512),
        hand.activation(),
        nn.Dropout(0.1),
        nn.Linear(512, 2 * latents),
    )
    decoder = nn.Sequential(
        nn.Linear(latents, 256 * 5 * 5),
        hand.activation(),
        nn.Unflatten(1, (256, 5, 5)),
        nn.ConvTranspose2d(256, 128, 4, 1, 0, bias=False),
        nn.BatchNorm2d(128),
        hand.activation(),
        nn.ConvTranspose2d(128, 64, 4, 2, 1, bias=False),
        nn.BatchNorm2d(64),
        hand.activation(),
        nn.ConvTranspose2d(64, 32, 4, 2, 1, bias=False),
        nn.BatchNorm2d(32),
        hand.activation(),
        nn.ConvTranspose2d(32, 3, 4, 2, 1, bias=False),
    )
    return encoder, decoder


def attribute_encoder(hidden: int, latents: int, hand: Hand) -> nn.Module:
    """Returns the encoder of one attribute, whose input is int64 [B]."""
    return nn.Sequential(nn.Embedding(2, hidden), hand.activation(), dense(hand, hidden, hidden, 2 * latents))


def attribute_decoder(hidden: int, latents: int, hand: Hand) -> nn.Module:
    """Returns the decoder of one attribute, whose output is logits [B]."""
    return nn.Sequential(dense(hand, latents, hidden, hidden, 1), nn.Flatten(0))


class PlainMvae19(nn.Module):
    """An MVAE of an image (modality 0) and 18 attributes, with one encoder and one decoder per modality."""

    def __init__(self, image_network: str, latents: int, hidden: int, hand: Hand, *, every_encoder: bool) -> None:
        """Builds the networks. `hidden` is the width of the attributes' networks."""
        super().__init__()
        self.latents, self.every_encoder = latents, every_encoder
        image_encoder, image_decoder = image_networks(image_network, latents, hand)
        attributes = range(ATTRIBUTES)
        self.encoders = nn.ModuleList([image_encoder, *(attribute_encoder(hidden, latents, hand) for _ in attributes)])
        self.decoders = nn.ModuleList([image_decoder, *(attribute_decoder(hidden, latents, hand) for _ in attributes)])

    def forward(self, values: Sequence[Tensor], given: Sequence[int]) -> tuple[list[Tensor], Tensor, Tensor]:
        """Returns the reconstructions of every modality, and mean and log-variance [B, D] of q(z | given)."""
        prior = torch.zeros(len(values[0]), self.latents, device=values[0].device)
        means, log_vars = [prior], [prior]
        for m in range(len(values)) if self.every_encoder else given:
            mean, log_var = self.encoders[m](values[m]).chunk(2, dim=1)
            if m in given:
                means.append(mean)
                log_vars.append(log_var)
        mean, log_var = product_of_experts(torch.stack(means), torch.stack(log_vars))
        z = mean + torch.randn_like(mean) * torch.exp(0.5 * log_var)
        return [decoder(z) for decoder in self.decoders], mean, log_var


def elbo_loss(
    model: PlainMvae19, hand: Hand, values: Sequence[Tensor], terms: Sequence[Sequence[int]], beta: float
) -> Tensor:
    """Returns the sum of the terms' negative ELBOs. Each ELBO is a mean over the batch.

    Args:
        values: images float32 [B, C, H, W], and int64 [B] for each attribute.
        terms: for each term, the modalities that it conditions on and reconstructs.
    """
    total = torch.zeros((), device=values[0].device)
    for given in terms:
        rebuilt, mean, log_var = model(values, given)
        loss = -0.5 * beta * (1 + log_var - mean.pow(2) - log_var.exp()).sum(1)
        for m in given:
            if m == 0:
                loss = loss + IMAGE_WEIGHT * hand.pixels(rebuilt[m], values[m]).flatten(1).sum(1)
            else:
                loss = loss + ATTRIBUTE_WEIGHT * hand.pixels(rebuilt[m], values[m].float())
        total = total + loss.mean()
    return total


class PlainTraining19:
    """Runs the plain training loop a few steps at a time."""

    def __init__(
        self,
        model: PlainMvae19,
        hand: Hand,
        images: Tensor,
        attributes: Tensor,
        terms: Iterator[list[list[int]]],
        batch_size: int,
    ) -> None:
        """Prepares the training.

        Args:
            images: uint8 [N, C, H, W].
            attributes: [N, 18].
            terms: yields the ELBO terms of each step.
        """
        self.model, self.hand, self.terms = model, hand, terms
        self.optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        examples = TensorDataset(images.float() / 255, attributes.long())
        self.loader = DataLoader(examples, batch_size=batch_size, shuffle=True)
        self._batches = self._forever()

    def run(self, steps: int) -> float:
        """Takes the given number of steps. Returns their mean loss, which a simple loop would print."""
        self.model.train()
        losses = []
        for _ in range(steps):
            images, attributes = next(self._batches)
            values = [images, *attributes.unbind(1)]
            loss = elbo_loss(self.model, self.hand, values, next(self.terms), beta=0.5)
            self.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            losses.append(loss.item())
        return sum(losses) / len(losses)

    def _forever(self) -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            yield from self.loader
