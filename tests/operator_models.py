"""Estimators as an operator of Muelle would bring them: not on the allow-list, named in MUELLE_ALLOWED_MODULES.

What they do wrong is decided by their rows and by files, so that a test can hold a server in a state for as long as it
looks at it, without counting on time.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, RegressorMixin

#: A row with this value never comes back.
STUCK = 1e6
#: One with this ends the process that predicts it, as a fault in a native library would.
FATAL = 1e9


class Factor(RegressorMixin, BaseEstimator):
    """Multiplies its one feature; waits for files where it is told to, sleeps for minutes on `STUCK`,
    and dies of `FATAL`.

    Parameters
    ----------
    factor : float
        Of the answers.
    load_gate, predict_gate : str
        Files without which the estimator can't be loaded, or doesn't answer a row of 1000 or more; empty for none.
    """

    def __init__(self, factor: float = 2.0, load_gate: str = "", predict_gate: str = "") -> None:
        self.factor = factor
        self.load_gate = load_gate
        self.predict_gate = predict_gate

    def fit(self, X: Any, y: Any = None) -> Self:
        self.n_features_in_ = 1
        return self

    def predict(self, X: Any) -> NDArray[np.float64]:
        column: NDArray[np.float64] = np.asarray(X, dtype=np.float64)[:, 0]
        if column.max() >= FATAL:
            os._exit(5)
        if column.max() >= STUCK:
            time.sleep(600)
        elif column.max() >= 1000:
            _wait_for(self.predict_gate)
        return column * self.factor

    def __setstate__(self, state: dict[str, Any]) -> None:
        _wait_for(state["load_gate"])
        self.__dict__.update(state)


def _wait_for(gate: str) -> None:
    deadline = time.monotonic() + 60
    while gate and not Path(gate).exists() and time.monotonic() < deadline:
        time.sleep(0.01)
