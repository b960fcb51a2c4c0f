"""The models that ``muelle train NAME`` knows.

To add your own, copy `training.iris` to ``training/churn.py``, say; let its ``RECIPE`` name a function that returns
your `training.data.Dataset` and one that returns your estimator or Pipeline, not fitted; then add ``churn.RECIPE`` to
`_RECIPES` below. ``muelle train churn`` splits the data, cross-validates, fits, scores on the rows held out, and writes
the bundle.

A model that is fitted elsewhere needs nothing of this: ``muelle bundle fitted.joblib --sample rows.csv``.
"""

from __future__ import annotations

from typing import Final

from training import breast_cancer, iris, linear
from training.recipe import Recipe

_RECIPES: Final = (linear.RECIPE, breast_cancer.RECIPE, iris.RECIPE)


def recipes() -> dict[str, Recipe]:
    """Return all recipes by name."""
    return {recipe.name: recipe for recipe in _RECIPES}
