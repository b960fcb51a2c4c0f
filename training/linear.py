"""y = 2x by linear regression, the smallest model to serve: ``{"input": [6]}`` gives ``{"output": [12.0]}``."""

from __future__ import annotations

from typing import Any

from training import data
from training.recipe import Recipe


def estimator() -> Any:
    """Return ordinary least squares."""
    from sklearn.linear_model import LinearRegression

    return LinearRegression()


RECIPE = Recipe(
    name="linear",
    description="Learned y = 2x from 24 rows. It is there to try the way from training to an answer.",
    data=data.linear,
    estimator=estimator,
)
