"""The benchmark of MVAE19: both sides do the same work, and its figures are right."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from benchmarks import many_modalities, plain, timing
from benchmarks.plain_many import PlainMvae19, elbo_loss
from mvae.data import source
from mvae.models.elbo import negative_elbo
from mvae.models.mvae import MVAE, ElboLearner, build_mvae

ROWS = 6
K = 3


def copied(ours: MVAE, theirs: PlainMvae19) -> None:
    """Copies our parameters into the plain loop's 38 modules."""
    encoders, decoders = ours.attribute_encoders, ours.attribute_decoders
    assert encoders is not None
    assert decoders is not None

    def layer(weight: Tensor, bias: Tensor, a: int) -> list[Tensor]:
        return [weight[a].T, bias[a, 0]]

    pairs: list[tuple[nn.Module, list[Tensor]]] = [
        (theirs.encoders[0], list(ours.encoders[0].parameters())),
        (theirs.decoders[0], list(ours.decoders[0].parameters())),
    ]
    for a in range(len(ours.stacked)):
        encoder = [encoders.embedding[a]]
        for linear in (encoders.hidden, encoders.output):
            encoder += layer(linear.weight, linear.bias, a)
        decoder = [one for linear in decoders.layers for one in layer(linear.weight, linear.bias, a)]  # type: ignore[arg-type]
        pairs += [(theirs.encoders[1 + a], encoder), (theirs.decoders[1 + a], decoder)]
    for module, parameters in pairs:
        for copy, parameter in zip(module.parameters(), parameters, strict=True):
            assert copy.shape == parameter.shape
            copy.data.copy_(parameter.data)


@pytest.mark.parametrize(
    ("every_encoder", "hand"),
    [(True, plain.RELEASED), (False, plain.RELEASED), (False, plain.MODERN)],
    ids=["every", "given", "modern"],
)
@pytest.mark.parametrize("dataset", ["mnist19", "celeba19"])
def test_the_plain_loop_over_19_modalities_has_our_networks_and_our_loss(
    dataset: str, every_encoder: bool, hand: plain.Hand
) -> None:
    trial = many_modalities.trial_of(dataset, K, ROWS)
    data = timing.random_data(dataset, source(dataset).modalities, ROWS)
    ours = build_mvae(trial, data.modalities)
    theirs = many_modalities.plain_model(trial, hand, every_encoder=every_encoder)
    copied(ours, theirs)
    ours.eval()  # evaluation mode: equal running statistics on both sides, and no dropout
    theirs.eval()
    learner = ElboLearner(ours, trial, data)
    batch = next(learner.batches(0))
    terms = next(many_modalities.terms_of_steps(trial))
    torch.manual_seed(3)
    noise = torch.stack([torch.randn(ROWS, trial.latents) for _ in terms])
    loss = negative_elbo(ours, batch.plan, batch.values, noise, beta=0.5, weights=learner.weights, batch_size=ROWS)
    torch.manual_seed(3)
    other_loss = elbo_loss(theirs, hand, batch.values, terms, beta=0.5)
    torch.testing.assert_close(loss.total, other_loss, rtol=1e-5, atol=0)
    loss.total.backward()  # type: ignore[no-untyped-call]
    other_loss.backward()  # type: ignore[no-untyped-call]
    for mine, other in ((ours.encoders[0], theirs.encoders[0]), (ours.decoders[0], theirs.decoders[0])):
        for parameter, copy in zip(mine.parameters(), other.parameters(), strict=True):
            assert parameter.grad is not None
            assert copy.grad is not None
            torch.testing.assert_close(parameter.grad, copy.grad, rtol=0, atol=1e-4 * float(copy.grad.abs().max()))


def test_both_contenders_take_the_same_subsets_at_every_step() -> None:
    trial = many_modalities.trial_of("mnist19", K, ROWS)
    data = timing.random_data("mnist19", source("mnist19").modalities, many_modalities.BATCHES * ROWS)
    learner = ElboLearner(build_mvae(trial, data.modalities), trial, data)
    theirs = many_modalities.terms_of_steps(trial)
    for epoch in range(2):
        for batch in learner.batches(epoch):
            terms = batch.plan.members[0].numpy()
            assert next(theirs) == [np.flatnonzero(term).tolist() for term in terms]


def test_a_line_fitted_to_times_gives_slope_intercept_and_r_squared() -> None:
    assert many_modalities.line_through((0, 1, 2), [5.0, 7.0, 9.0]) == pytest.approx((2.0, 5.0, 1.0))
    slope, start, r_squared = many_modalities.line_through((0, 1, 2), [0.0, 3.0, 0.0])
    assert (slope, start, r_squared) == pytest.approx((0.0, 1.0, 0.0))


def test_the_benchmark_of_many_modalities_prints_and_writes_its_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(many_modalities, "KS", (0, 4, 8))
    out = tmp_path / "numbers.json"
    many_modalities.main(many_modalities.Options(quick=True, blocks=3, batch=2, out=out))
    printed = capsys.readouterr().out
    told = json.loads(out.read_text(encoding="utf-8"))
    assert (told["threads"], told["claim"]) == (1, many_modalities.CLAIM)
    compared = told["compared"]
    assert [(line["networks"], line["k"]) for line in compared["lines"]] == [
        ("mnist19 (MLP), k = 8", 8),
        ("64x64 (DCGAN), k = 1", 1),
    ]
    for line in compared["lines"]:
        assert line["networks"] in printed
        for contender in ("every", "given", "modern"):
            assert 0 < line[contender]["low"] <= line[contender]["median"] <= line[contender]["high"]
    assert compared["growth"]["ks"] == [0, 4, 8]
    assert len(compared["growth"]["ours_ms"]) == 3
    medians = [spread["median"] for spread in compared["growth"]["ours_ms"]]
    slope, _, r_squared = many_modalities.line_through((0, 4, 8), medians)
    assert (compared["growth"]["term_ms"], compared["growth"]["r_squared"]) == pytest.approx(
        (slope, r_squared), rel=5e-3
    )
    assert 0.1 < compared["peak_gib"] < many_modalities.CLAIM_GIB
    assert printed.count("claim: ") == 3
