"""Estimates the log-likelihoods of a batch of examples under one model, by importance sampling."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from mvae.data.dataset import Kind
from mvae.data.sentences.sentences import trimmed
from mvae.evaluation.importance import (
    Estimate,
    LogWeights,
    Noise,
    density,
    importance_estimates,
    proposal_of,
    with_prior,
)
from mvae.measure import KNOWN
from mvae.models.gaussian import Gaussian, standard_log_prob
from mvae.models.likelihoods import Categorical
from mvae.models.multimodal import Multimodal
from mvae.models.posteriors import Mixture, Posterior, mapped

FROM_IMAGE, FROM_BOTH = "x1", "x1x2"
"""The proposals q(z|x1) and q(z|x1,x2)."""

X2 = "x2"
"""Name of q(z|x2) and of log p(x2)."""

SUFFIX = {FROM_IMAGE: "-x1", FROM_BOTH: ""}
"""Suffix that each proposal adds to the names of its estimates."""

PRIOR_SAMPLES = 100_000
"""Number of samples of the prior for estimating log p(x2) of each class, if x2 is a label."""


@runtime_checkable
class Conditional(Protocol):
    """A model of x1 given x2 (CVAE). The prior of z is N(0, I) for every x2."""

    def infer_at(self, values: dict[int, Tensor]) -> Gaussian:
        """Returns q(z | x1, x2), [n, D], from {0: x1, 1: x2}."""

    def image_log_prob(self, z: Tensor, condition: Tensor, image: Tensor) -> Tensor:
        """Returns log p(x1 | z, x2) of each row, [n]."""


@dataclass
class Estimator:
    """Estimates log-likelihoods under one model, a few examples at a time."""

    model: Multimodal | Conditional
    proposals: Sequence[str]
    samples: int
    seed: int
    rows: int
    dtype: torch.dtype
    device: torch.device
    known: bool = False
    """For sentences: whether to add estimates without the token <unk>."""
    class_log_p: Estimate | None = None
    """Estimates of log p(x2) of each class [C], if x2 is a label. `prepare` computes them."""

    @property
    def modalities(self) -> range:
        """Positions of the modalities: x1 first, then all modalities of x2."""
        return range(len(self.model.modalities) if isinstance(self.model, Multimodal) else 2)

    @property
    def joint(self) -> bool:
        """Whether the model also models x2, so that log p(x2) is needed."""
        return isinstance(self.model, Multimodal) and len(self.modalities) > 1

    def narrowed(self, values: Sequence[Tensor], part: slice) -> list[Tensor]:
        """Returns the values of a slice of the examples. Sentences are trimmed to the longest sentence of the slice."""
        parts = [value[part] for value in values]
        if not isinstance(self.model, Multimodal):
            return parts
        pairs = zip(self.model.modalities, parts, strict=True)
        return [trimmed(value, modality.classes) if modality.sentences else value for modality, value in pairs]

    def encoded(self, values: Sequence[Tensor]) -> dict[str, Posterior]:
        """Returns the posteriors of the examples by name: the proposals, and q(z|x2) if x2 is modelled."""
        conditions = {FROM_IMAGE: [0], FROM_BOTH: list(self.modalities), X2: list(self.modalities)[1:]}
        wanted = [*self.proposals, *([X2] if self.joint else [])]
        inputs = [value.to(self.dtype) if value.is_floating_point() else value for value in values]
        found = {name: self.model.infer_at({m: inputs[m] for m in conditions[name]}) for name in wanted}
        return {name: mapped(q, Tensor.double) for name, q in found.items()}

    def estimates(self, values: Sequence[Tensor], q: dict[str, Posterior], ids: Sequence[int]) -> dict[str, Tensor]:
        """Returns the estimates for each example: tensors [n], by name."""
        x2 = self._log_x2(values, q[X2], ids) if self.joint else {}
        named: dict[str, Tensor] = {}
        for name, estimate in x2.items():
            named |= {f"log_{name}": estimate.log_mean, f"se_{name}": estimate.standard_error}
        weights = self._log_weights(values, q)
        for proposal in self.proposals:
            found = self._importance(q[proposal], weights, ids)
            for name, own in found.items():
                if not name.endswith(KNOWN):
                    named[f"variance_{name}{SUFFIX[proposal]}"] = own.variance
                    if name == "conditional" and self.joint:  # log joint - log p(x2), with independent noise
                        joint, error = found["joint"], torch.hypot(found["joint"].standard_error, x2[X2].standard_error)
                        own = joint._replace(log_mean=joint.log_mean - x2[X2].log_mean, standard_error=error)
                    named[f"ess_{name}{SUFFIX[proposal]}"] = own.effective_samples
                named[f"log_{name}{SUFFIX[proposal]}"] = own.log_mean
                named[f"se_{name}{SUFFIX[proposal]}"] = own.standard_error
        return named

    def _log_weights(self, values: Sequence[Tensor], q: dict[str, Posterior]) -> LogWeights:
        def conditional(z: Tensor, log_r: Tensor) -> dict[str, Tensor]:
            assert isinstance(self.model, Conditional)
            n, s = log_r.shape
            image, condition = (_target(value, s) for value in values)
            log_image = self.model.image_log_prob(z.flatten(0, 1).to(self.dtype), condition, image).double().view(n, s)
            return {"conditional": log_image + standard_log_prob(z) - log_r}

        def multimodal(z: Tensor, log_r: Tensor) -> dict[str, Tensor]:
            assert isinstance(self.model, Multimodal)
            images, log_prior = self._log_probs([0], values, z), self.model.prior_log_prob(z)
            found = {f"marginal{of}": log_image + log_prior - log_r for of, log_image in images.items()}
            if self.joint:
                others = self._log_probs(self.modalities[1:], values, z)
                found |= {f"joint{of}": found[f"marginal{of}"] + log_rest for of, log_rest in others.items()}
                found["conditional"] = images[""] + density(q[X2], z) - log_r
            return found

        return conditional if isinstance(self.model, Conditional) else multimodal

    def _log_probs(self, chosen: Sequence[int], values: Sequence[Tensor], z: Tensor) -> dict[str, Tensor]:
        """Returns {"": result of `_log_prob`}. If `self.known`, adds `KNOWN`: the sum without <unk>."""
        if not self.known:
            return {"": self._log_prob(chosen, values, z)}
        assert isinstance(self.model, Multimodal)
        n, s, _ = z.shape
        flat = z.flatten(0, 1).to(self.dtype)
        each = [self.model.sentence_log_probs(m, flat, _target(values[m], s)).double() for m in chosen]
        both = torch.stack(each).sum(0).view(n, s, 2)
        return {"": both[..., 0], KNOWN: both[..., 1]}

    def _log_prob(self, chosen: Sequence[int], values: Sequence[Tensor], z: Tensor) -> Tensor:
        """Returns the sum of log p(x_m | z) over the chosen modalities m, float64 [n, s], for z [n, s, D].

        `chosen` must contain all single attributes or none, because one network decodes all of them together.
        """
        model = self.model
        assert isinstance(model, Multimodal)
        n, s, _ = z.shape
        flat = z.flatten(0, 1).to(self.dtype)
        apart = [m for m in chosen if m not in model.stacked]
        wide = {m: values[m].double() if model.modalities[m].kind is Kind.ATTRIBUTES else values[m] for m in apart}
        each = [model.log_prob(m, flat, _target(wide[m], s)).double() for m in apart]
        attributes = [m for m in chosen if m in model.stacked]
        if attributes:
            assert attributes == list(model.stacked)
            targets = _target(torch.stack([values[m] for m in attributes], dim=1), s).T
            found = model.attributes_log_prob(flat.expand(len(attributes), -1, -1), targets)
            each.append(found.sum(0, dtype=torch.float64))
        return torch.stack(each).sum(0).view(n, s)

    def _importance(
        self, q: Posterior, weights: LogWeights, ids: Sequence[int], *, of_x2: bool = False
    ) -> dict[str, Estimate]:
        """Returns the estimates from `self.samples` samples of the proposal q.

        If `of_x2`, the proposal is an equal mixture of q and the prior. Each draw of noise gives one sample of
        every mixture component.
        """
        proposal, stream = proposal_of(q), "likelihood"
        width = q.components if isinstance(q, Mixture) else 1
        if of_x2:
            assert isinstance(self.model, Multimodal)
            proposal, stream = with_prior(q, self.model.prior_at, self.model.prior_log_prob), "likelihood of x2"
            width *= 2
        noise = Noise(self.seed, stream, ids, width * q.mean.shape[-1], self.device)
        draws, chunk = max(2, self.samples // width), max(1, self.rows // (width * len(ids)))
        stratified = not isinstance(q, Gaussian)
        return importance_estimates(proposal, weights, noise, samples=draws, chunk=chunk, stratified=stratified)

    def _log_x2(self, values: Sequence[Tensor], q: Posterior, ids: Sequence[int]) -> dict[str, Estimate]:
        """Returns estimates of log p(x2) of each example.

        Unless x2 is a label, adds an estimate from the samples of the prior alone.
        """
        if self.class_log_p is not None:
            return {X2: Estimate(*(part[values[1]] for part in self.class_log_p))}

        def weights(z: Tensor, log_r: Tensor) -> dict[str, Tensor]:
            assert isinstance(self.model, Multimodal)
            others, log_prior = self._log_probs(self.modalities[1:], values, z), self.model.prior_log_prob(z)
            found = {f"{X2}{of}": log_rest + log_prior - log_r for of, log_rest in others.items()}
            return {**found, f"{X2}_prior": others[""][:, z.shape[1] // 2 :]}

        return self._importance(q, weights, ids, of_x2=True)

    def prepare(self, prior_samples: int) -> None:
        """Estimates log p(x2) for every class. Call this method before `estimates`.

        All classes use the same samples of the prior. Does nothing unless x2 is a label.
        """
        model = self.model
        if not isinstance(model, Multimodal) or [other.kind for other in model.modalities[1:]] != [Kind.LABEL]:
            return

        def weights(z: Tensor, _log_r: Tensor) -> dict[str, Tensor]:
            logits = model.decode(1, z.squeeze(0).to(self.dtype))
            likelihood = model.likelihoods[1]
            assert isinstance(likelihood, Categorical)
            return {X2: likelihood.log_prob_of_each(logits).T.contiguous().double()}

        def prior(noise: Tensor) -> tuple[Tensor, Tensor]:
            return model.prior_at(noise), noise[..., 0]

        noise = Noise(self.seed, "prior of x2", [0], model.latents, self.device)
        self.class_log_p = importance_estimates(prior, weights, noise, samples=prior_samples, chunk=self.rows)[X2]


def _target(value: Tensor, samples: int) -> Tensor:
    """Repeats each example's value once per sample: [n, ...] to [n s, ...], example by example.

    Floating-point values become float64, because a likelihood is summed in the precision of its target. A single
    example is expanded as a view, without copies.
    """
    wide = value.double() if value.is_floating_point() else value
    if len(wide) == 1:
        return wide.expand(samples, *wide.shape[1:])
    return wide.unsqueeze(1).expand(-1, samples, *wide.shape[1:]).flatten(0, 1)
