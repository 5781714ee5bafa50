"""Fits a multinomial logistic regression with scikit-learn, on pixels (LOGREG) or on a model's features (read-out)."""

import warnings
from typing import NamedTuple

import numpy as np


class LinearFit(NamedTuple):
    """A fitted logistic regression. The logits of features x [n, F] are x @ weight.T + bias."""

    weight: np.ndarray
    """float64 [C, F]"""
    bias: np.ndarray
    """float64 [C]; minus infinity for classes without examples in the fit."""
    iterations: int

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Returns the class with the largest logit for each row, int64 [n]."""
        return np.asarray((features.astype(np.float64) @ self.weight.T + self.bias).argmax(1))


def fit_linear(features: np.ndarray, labels: np.ndarray, classes: int) -> LinearFit:
    """Fits a logistic regression with an L2 penalty (scikit-learn's defaults).

    If `labels` contains only one class, the fit always predicts this class.

    Args:
        features: [n, F].
        labels: [n], whole numbers below `classes`.
    """
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    seen = np.unique(labels)
    weight, bias = np.zeros((classes, features.shape[1])), np.full(classes, -np.inf)
    if len(seen) == 1:
        bias[seen[0]] = 0.0
        return LinearFit(weight, bias, 0)
    fit = LogisticRegression(max_iter=1000)  # the default of 100 stops early on 50,000 images
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit.fit(features.astype(np.float64), labels)
    if len(seen) == 2:
        weight[seen[1]], bias[seen[1]] = fit.coef_[0], fit.intercept_[0]
        bias[seen[0]] = 0.0
    else:
        weight[seen], bias[seen] = fit.coef_, fit.intercept_
    return LinearFit(weight, bias, int(np.max(fit.n_iter_)))
