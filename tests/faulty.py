"""Estimators that pass every test before they meet live traffic: they fail, dawdle or collapse on few rows only.

The gate, the parity check and the self-test ask for many rows or for usual ones; people ask for one.
"""

from __future__ import annotations

import time
from typing import Any

from sklearn.linear_model import LogisticRegression

FEW = 3  # rows of a live request, or of several that serving took together
FAR = 20.0  # standard deviations; no row of the tests' world is so far out


class Failing(LogisticRegression):
    """Raises on a value it has never seen the like of."""

    def predict_proba(self, X: Any) -> Any:  # noqa: N803  scikit-learn's name
        """Raise, or answer."""
        if abs(X).max() > FAR:
            raise ValueError("far out")
        return super().predict_proba(X)


class Slow(LogisticRegression):
    """Takes its time over few rows."""

    def predict_proba(self, X: Any) -> Any:  # noqa: N803  scikit-learn's name
        """Wait, and answer."""
        if X.shape[0] <= FEW:
            time.sleep(0.25)
        return super().predict_proba(X)


class Collapsed(LogisticRegression):
    """Says the same about everybody, where few are asked about."""

    def predict_proba(self, X: Any) -> Any:  # noqa: N803  scikit-learn's name
        """Answer."""
        said = super().predict_proba(X)
        if X.shape[0] <= FEW:
            said[:] = [0.02, 0.98]
        return said
