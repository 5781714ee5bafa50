"""Modules keep the names used by models in MLflow and by plug-ins of earlier releases."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch

from mvae import plugins
from mvae.data import DATASETS
from mvae.models import ARMS, arm
from mvae.refusal import Refusal
from mvae.trial import Trial

FORMER = {b"mvae.models.likelihoods": b"mvae.likelihood", b"mvae.data.faces.vision": b"mvae.data.vision"}


@pytest.mark.parametrize("dataset", ["digits", "vision_faces_small", "toy_translation", "faces19"])
def test_a_model_pickled_with_former_module_names_loads(dataset: str) -> None:
    model = arm("mvae").build(Trial.create(dataset=dataset, model="mvae", latents=2), DATASETS[dataset].modalities)
    written = pickle.dumps(model, protocol=0)  # its module names are plain text
    for now, before in FORMER.items():
        written = written.replace(now, before)
    again = pickle.loads(written)
    for one, other in zip(model.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(one, other)


def test_a_plug_in_may_import_gaussians_from_their_former_module() -> None:
    from mvae.gaussian import Gaussian
    from mvae.models import gaussian

    assert Gaussian is gaussian.Gaussian


AN_ARM = """import mvae.models
from mvae.models.arm import Arm

mvae.models.add(Arm("own", "Own", frozenset(), None, frozenset(), fit=print{}))
"""


@pytest.mark.parametrize(
    ("former", "line"),
    [
        (", attributes=True, many=True", "attributes, many: write handles=frozenset({TEXTS, ATTRIBUTES, MANY})"),
        (", texts=False, recorded=True", "recorded, texts: write handles=frozenset({}), cuda_graphs=True"),
        (", many=False, imageless=True", "many, imageless: write handles=frozenset({TEXTS, IMAGELESS})"),
    ],
)
def test_a_plug_in_with_outdated_keywords_is_told_what_to_write_instead(former: str, line: str, tmp_path: Path) -> None:
    path = tmp_path / "own.py"
    path.write_text(AN_ARM.format(former), encoding="utf-8")
    with pytest.raises(Refusal) as refused:
        plugins.load(plugins.read([path]))
    said = str(refused.value).replace("Feature.", "")
    assert said == f"{path}, line 4: Arm no longer takes {line} (from mvae.models.arm import Feature)"
    assert "own" not in ARMS
