"""Logistic regression equals scikit-learn's for any classes, and sees no label outside the paired set."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression as ScikitLearn

from mvae.data import Dataset
from mvae.supervision import paired_set
from tests.digits_learners import FRACTION, digits, digits_trial, fitted, spoilt
from tests.small_models import with_labels

__all__ = ["digits", "spoilt"]


def relabelled(data: Dataset, classes: list[int]) -> Dataset:
    """A data set with only these classes."""
    return with_labels(data, np.asarray(classes)[data.train.values[1].numpy() % len(classes)])


@pytest.mark.parametrize("classes", [list(range(10)), [2, 5], [1, 4, 8]])
def test_logistic_regression_equals_scikit_learns_for_any_set_of_classes(classes: list[int], digits: Dataset) -> None:
    data = relabelled(digits, classes)
    model = fitted(data, digits_trial("logreg"))
    kept = torch.from_numpy(paired_set(1297, FRACTION, 0))
    reference = ScikitLearn(max_iter=1000).fit(
        data.train.take(0, kept).flatten(1).double().numpy(), data.train.take(1, kept).numpy()
    )
    assert reference.classes_.tolist() == classes
    image = digits.test.take(0, torch.arange(250))
    with torch.no_grad():
        ours = torch.softmax(model(image), -1).numpy()
    theirs = np.zeros((250, 10))
    theirs[:, classes] = reference.predict_proba(image.flatten(1).double().numpy())
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_logistic_regression_on_one_class_predicts_that_class(digits: Dataset) -> None:
    model = fitted(relabelled(digits, [7]), digits_trial("logreg"))
    assert model(digits.test.take(0, torch.arange(250))).argmax(-1).eq(7).all()


def test_logistic_regression_ignores_labels_outside_the_paired_set(digits: Dataset, spoilt: Dataset) -> None:
    whole, dirty = (fitted(data, digits_trial("logreg")) for data in (digits, spoilt))
    assert torch.equal(whole.linear.weight, dirty.linear.weight)
    assert torch.equal(whole.linear.bias, dirty.linear.bias)
