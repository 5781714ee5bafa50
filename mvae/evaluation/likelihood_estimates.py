"""Estimates log p(x1), log p(x1, x2) and log p(x1 | x2) by importance sampling (supplement, Tables 1 and 2).

x1 is the first modality (the image), and x2 is all other modalities together. The proposal r(z) is q(z|x1) or
q(z|x1,x2). S samples give all estimates in one pass, with one run of each decoder per sample:

marginal     log w = log p(x1|z) + log p(z) - log r(z)
joint        log w = log p(x1|z) + log p(x2|z) + log p(z) - log r(z)
conditional  The estimate is log p(x1, x2) - log p(x2). For Table 2's variance the paper prints
             var(log p(x1,z|x2) - log r(z)). With the exact p(z|x2), this variance would equal the joint's variance,
             because log p(x2) is a constant. But the two published variances differ. So we use
             log w = log p(x1|z) + log q(z|x2) - log r(z).

If x2 is a label, log p(x2) is estimated once per class, from samples of the prior. Otherwise, few samples of the prior
explain x2. So half of the samples come from q(z|x2) and half from the prior. The estimate from the
prior's half is also reported separately.

The weights of the likelihoods in the training loss, and beta, are not used. Posteriors, importance weights and sums
over pixels are float64. Decoders are float32 or float64.

Names: `log_marginal`, `se_marginal` (standard error of one example's estimate), `ess_marginal` (effective sample size),
`variance_marginal`, and the same for joint and conditional. The suffix "-x1" means that q(z|x1) was the proposal.
For sentences, `log_marginal_known`, `se_marginal_known` and so on leave out <unk> (mvae/evaluation/tokens.py).

Shapes: n examples, S samples per example, D latents.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from operator import itemgetter
from typing import Protocol

import torch
from torch import Tensor, nn

from mvae.data.examples import Dataset, Split
from mvae.evaluation.estimator import FROM_BOTH, FROM_IMAGE, PRIOR_SAMPLES, SUFFIX, Conditional, Estimator
from mvae.evaluation.tokens import per_token
from mvae.measure import check_samples
from mvae.models.multimodal import Multimodal
from mvae.models.posteriors import mapped
from mvae.refusal import Refusal

ENCODED = 500
"""Number of examples that are read and encoded at a time."""

ROWS = {"cpu": 256, "cuda": 32_768}
"""Rows (examples times samples) per decoder pass, chosen so that activations fit a CPU's cache, or fill a GPU."""


class Parts(Protocol):
    """Storage for the estimates of blocks of examples. A later process can reuse the stored blocks."""

    def read(self, name: str) -> dict[str, Tensor] | None:
        """Returns the estimates of the block with this name, or None if the block was not stored."""

    def write(self, name: str, found: dict[str, Tensor]) -> None:
        """Stores the estimates of a block. May ignore errors, because a missing block is computed again."""


def estimates_of(model: nn.Module) -> dict[str, tuple[str, ...]]:
    """Returns the names of a model's likelihood estimates, by proposal. Returns {} if the model has none."""
    if isinstance(model, Conditional):
        return {FROM_BOTH: ("conditional",)}
    if isinstance(model, Multimodal):
        if len(model.modalities) == 1:
            return {FROM_IMAGE: ("marginal",)}
        return dict.fromkeys((FROM_IMAGE, FROM_BOTH), ("marginal", "joint", "conditional"))
    return {}


def check_offered(model: nn.Module, proposals: Sequence[str] | None) -> list[str]:
    """Returns the proposals to use: the given ones, or all that the model offers if `proposals` is None.

    Raises:
        Refusal: the model offers no likelihood estimates, or does not offer a given proposal.
    """
    offered, name = estimates_of(model), type(model).__name__
    if not offered:
        raise Refusal(f"{name} has no likelihood estimates: it does not model the image with a latent variable")
    chosen = list(offered) if proposals is None else list(proposals)
    for proposal in chosen:
        if proposal not in SUFFIX:
            raise Refusal(f"unknown proposal {proposal!r}: choose {' or '.join(SUFFIX)}")
        if proposal not in offered:
            why = "the model sees only x1" if proposal == FROM_BOTH else "the model infers from x1 and x2 together"
            raise Refusal(f"{name} has no proposal {proposal}, because {why}: choose {', '.join(offered)}")
    return chosen


def likelihood_metrics(
    model: nn.Module,
    data: Dataset,
    *,
    samples: int,
    seed: int,
    known: bool = False,
    progress: Callable[[int, int], None] | None = None,
    parts: Parts | None = None,
) -> dict[str, float]:
    """Returns the means of `split_likelihoods` over the test examples, as metrics test/log_marginal and so on.

    For sentences, adds the means per token.

    Raises:
        Refusal: in the same cases as `split_likelihoods`.
    """
    found = split_likelihoods(
        model,
        data.test,
        samples=samples,
        seed=seed,
        known=known,
        progress=progress,
        parts=parts,
    )
    means = {f"test/{name}": float(values.mean()) for name, values in found.items()}
    return means | (per_token(means, data.test) if data.test.lengths is not None else {})


@torch.no_grad()
def split_likelihoods(
    model: nn.Module,
    split: Split,
    *,
    samples: int,
    seed: int,
    examples: Sequence[int] | None = None,
    proposals: Sequence[str] | None = None,
    dtype: torch.dtype = torch.float32,
    rows: int | None = None,
    prior_samples: int = PRIOR_SAMPLES,
    known: bool = False,
    progress: Callable[[int, int], None] | None = None,
    parts: Parts | None = None,
) -> dict[str, Tensor]:
    """Estimates the likelihoods of each example of a split. Does not change the model.

    If the model is not in evaluation mode or has another dtype, a copy of the model is used.

    Args:
        samples: S, number of samples per proposal.
        seed: seed of the noise, which is a function of (seed, position in the split, sample).
        examples: positions in the split, in any order. None means all examples.
        proposals: "x1", "x1x2" or both. None means all proposals that the model offers.
        dtype: type of the networks' computations, float32 or float64.
        rows: rows per decoder pass. Changes only rounding.
        prior_samples: number of samples for log p(x2), if x2 is a label.
        known: whether to add estimates without the token <unk>, for sentences.
        progress: called after every few examples with the number of finished examples and the total.
        parts: storage for the estimates of each block of ENCODED examples. A later call with the same arguments reuses
            the stored blocks.
    Returns:
        The estimates by the names in the module docstring, float64 [n] each, on the CPU. If there are joint
        estimates, log_x2 and se_x2 are added. If x2 is also not a single label, log_x2_prior and se_x2_prior are added
        too.
    Raises:
        Refusal: there are fewer than 2 samples, or the model has no likelihood estimates or lacks a given proposal.
    """
    check_samples(samples)
    chosen = check_offered(model, proposals)
    positions = list(range(len(split))) if examples is None else list(examples)
    device = split.values[0].device
    rows = rows or ROWS.get(device.type, ROWS["cpu"])
    examples_per_pass = max(1, rows // samples)
    blocks: list[dict[str, Tensor]] = []
    with _full_precision(device):
        worker = model if _is_ready(model, dtype) else copy.deepcopy(model).to(dtype).eval()
        assert isinstance(worker, Multimodal | Conditional)
        estimator = Estimator(worker, chosen, samples, seed, rows, dtype, device, known)
        estimator.prepare(prior_samples)
        for start in range(0, len(positions), ENCODED):
            ids = positions[start : start + ENCODED]
            part_name = f"{start}-{start + len(ids)}"
            kept = parts.read(part_name) if parts else None
            if kept is not None:
                blocks.append(kept)
                continue
            found: list[dict[str, Tensor]] = []
            values = [split.take(m, torch.tensor(ids, device=device)) for m in estimator.modalities]
            posteriors = estimator.encoded(values)
            for first in range(0, len(ids), examples_per_pass):
                part = slice(first, first + examples_per_pass)
                own = {name: mapped(q, itemgetter(part)) for name, q in posteriors.items()}
                found.append(estimator.estimates(estimator.narrowed(values, part), own, ids[part]))
                if progress:
                    progress(start + min(first + examples_per_pass, len(ids)), len(positions))
            blocks.append({name: torch.cat([estimates[name] for estimates in found]).cpu() for name in found[0]})
            if parts:
                parts.write(part_name, blocks[-1])
    return {name: torch.cat([block[name] for block in blocks]) for name in blocks[0]}


def _is_ready(model: nn.Module, dtype: torch.dtype) -> bool:
    tensors = (*model.parameters(), *model.buffers())
    return not any(module.training for module in model.modules()) and all(
        tensor.dtype == dtype for tensor in tensors if tensor.is_floating_point()
    )


@contextmanager
def _full_precision(device: torch.device) -> Iterator[None]:
    """Disables TF32 and autocast. Their 10 or 8 bits of precision would change a likelihood by up to half a nat."""
    matmul, cudnn = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = matmul, cudnn
