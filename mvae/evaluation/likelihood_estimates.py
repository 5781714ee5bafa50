"""log p(x1), log p(x1, x2) and log p(x1 | x2) of a trained model by importance sampling (supplement, Tables 1 and 2).

x1 is the first modality, the image; x2 all others together. S samples of a proposal r(z), q(z|x1) or q(z|x1,x2), give
all estimates in one pass, each decoder run once a sample:

marginal     log w = log p(x1|z) + log p(z) - log r(z)
joint        log w = log p(x1|z) + log p(x2|z) + log p(z) - log r(z)
conditional  the estimate is the joint's less log p(x2). For the variance of Table 2 the paper prints
             var(log p(x1,z|x2) - log r(z)). With the exact p(z|x2) this is the joint's, log p(x2) being a constant, and
             the published numbers are not. We read log w = log p(x1|z) + log q(z|x2) - log r(z).

log p(x2) comes from samples of the prior where x2 is a label, once a class. Of anything larger the prior's samples know
too little: there half of the samples come from q(z|x2), and what the prior's half alone says is reported beside it.

Likelihood weights and beta do not enter. Posteriors, weights and sums over pixels are float64, decoders float32 or
float64. Names: `log_marginal`, `se_marginal` (standard error of one example's estimate), `ess_marginal` (effective
sample size), `variance_marginal`, the same for joint and conditional; with "-x1" at the end where q(z|x1) proposed.
Sentences have, without <unk>, also `log_marginal_known`, `se_marginal_known` and so on (mvae/evaluation/tokens.py).

Shapes: n examples, S samples of each, s of them in a chunk, D latents.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor, nn

from mvae.data.examples import Dataset, Split
from mvae.evaluation.estimator import FROM_BOTH, FROM_IMAGE, PRIOR_SAMPLES, SUFFIX, Conditional, Estimator
from mvae.evaluation.tokens import per_token
from mvae.measure import check_samples
from mvae.models.gaussian import Gaussian
from mvae.models.multimodal import Multimodal
from mvae.refusal import Refusal

ENCODED = 500
"""Examples that are read and encoded at a time."""

ROWS = {"cpu": 256, "cuda": 32_768}
"""Rows a decoder takes at a time, examples times samples: activations that stay in a CPU's cache, or fill a GPU."""


class Parts(Protocol):
    """Keeps what is found of some of the examples, for a later process."""

    def read(self, name: str) -> dict[str, Tensor] | None:
        """What was kept under a name; None where nothing was."""

    def write(self, name: str, found: dict[str, Tensor]) -> None:
        """Keeps it, or not."""


def estimates_of(model: nn.Module) -> dict[str, tuple[str, ...]]:
    """Which estimates a model has, by proposal; empty for one that has none. The one place that knows."""
    if isinstance(model, Conditional):
        return {FROM_BOTH: ("conditional",)}
    if isinstance(model, Multimodal):
        if len(model.modalities) == 1:
            return {FROM_IMAGE: ("marginal",)}
        return dict.fromkeys((FROM_IMAGE, FROM_BOTH), ("marginal", "joint", "conditional"))
    return {}


def check_offered(model: nn.Module, proposals: Sequence[str] | None) -> list[str]:
    """The proposals to use, all that the model has where none are named.

    Raises:
        Refusal: the model has no likelihood estimates, or lacks a proposal.
    """
    offered, name = estimates_of(model), type(model).__name__
    if not offered:
        raise Refusal(f"{name} has no likelihood estimates: it is no model of the image with a latent variable")
    chosen = list(offered) if proposals is None else list(proposals)
    for proposal in chosen:
        if proposal not in SUFFIX:
            raise Refusal(f"there is no proposal {proposal!r}: choose {' or '.join(SUFFIX)}")
        if proposal not in offered:
            lacks = "it sees x1 alone" if proposal == FROM_BOTH else "it infers from x1 and x2 together"
            raise Refusal(f"{name} has no proposal {proposal}, since {lacks}: choose {', '.join(offered)}")
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
    """Means over the test examples of everything that `split_likelihoods` gives, as metrics test/log_marginal etc., and
    of sentences also per token.

    Raises:
        Refusal: as `split_likelihoods`.
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
    """Every estimate of every example of a split. The model is left as it is: unless it is ready, a copy does the work.

    Args:
        samples: S, of each proposal. seed: of the noise, which belongs to (seed, position in the split, sample).
        examples: positions in the split, in any order; None: all. proposals: of "x1", "x1x2"; None: all there are.
        dtype: of the networks, float32 or float64. rows: that a decoder takes at a time; changes rounding alone.
        prior_samples: of which a label's log p(x2) is made.
        known: of sentences, estimate also what is left without <unk>.
        progress: told the examples done and their number, after each few.
        parts: keeps what is found of every ENCODED examples, and gives it back to a later call with the same arguments.
    Returns:
        float64 [n] each, on the CPU, by the names that the module's head lists. Where there is a joint estimate also
        log_x2 and se_x2, and log_x2_prior and se_x2_prior where x2 is more than one label.
    Raises:
        Refusal: fewer than 2 samples, a model without such estimates, or a proposal that it lacks.
    """
    check_samples(samples)
    chosen = check_offered(model, proposals)
    positions = list(range(len(split))) if examples is None else list(examples)
    device = split.values[0].device
    rows = rows or ROWS.get(device.type, ROWS["cpu"])
    few = max(1, rows // samples)
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
            for first in range(0, len(ids), few):
                part = slice(first, first + few)
                own = {name: Gaussian(q.mean[part], q.log_var[part]) for name, q in posteriors.items()}
                found.append(estimator.estimates(estimator.narrowed(values, part), own, ids[part]))
                if progress:
                    progress(start + min(first + few, len(ids)), len(positions))
            blocks.append({name: torch.cat([some[name] for some in found]).cpu() for name in found[0]})
            if parts:
                parts.write(part_name, blocks[-1])
    return {name: torch.cat([block[name] for block in blocks]) for name in blocks[0]}


def _is_ready(model: nn.Module, dtype: torch.dtype) -> bool:
    """Whether a model is in evaluation mode and in `dtype` throughout, so that it need not be copied."""
    tensors = (*model.parameters(), *model.buffers())
    return not any(module.training for module in model.modules()) and all(
        tensor.dtype == dtype for tensor in tensors if tensor.is_floating_point()
    )


@contextmanager
def _full_precision(device: torch.device) -> Iterator[None]:
    """No TF32 and no autocast: with 10 or 8 bits a likelihood is off by up to half a nat."""
    matmul, cudnn = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = matmul, cudnn
