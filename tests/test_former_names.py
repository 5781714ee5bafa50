"""Modules keep the names that models in MLflow and plug-ins of earlier releases refer to."""

from __future__ import annotations

import pickle

import pytest
import torch

from mvae.data import DATASETS
from mvae.models import arm
from mvae.trial import Trial

FORMER = {b"mvae.models.likelihoods": b"mvae.likelihood", b"mvae.data.faces.vision": b"mvae.data.vision"}


@pytest.mark.parametrize("dataset", ["digits", "vision_faces_small", "toy_translation", "faces19"])
def test_a_model_pickled_under_former_names_of_modules_loads(dataset: str) -> None:
    model = arm("mvae").build(Trial.create(dataset=dataset, model="mvae", latents=2), DATASETS[dataset].modalities)
    written = pickle.dumps(model, protocol=0)  # its names are plain text
    for now, before in FORMER.items():
        written = written.replace(now, before)
    again = pickle.loads(written)
    for one, other in zip(model.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(one, other)


def test_a_plug_in_may_import_gaussians_by_their_former_name() -> None:
    from mvae.gaussian import Gaussian
    from mvae.models import gaussian

    assert Gaussian is gaussian.Gaussian
