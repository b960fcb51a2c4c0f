"""Which of three irises, from four lengths in cm, by a random forest of 100 trees."""

from __future__ import annotations

from typing import Any

from training import data
from training.evaluate import SEED
from training.recipe import Recipe


def estimator() -> Any:
    """Return the forest; the seed fixes its trees."""
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(n_estimators=100, random_state=SEED)


RECIPE = Recipe(
    name="iris",
    description="Tells setosa (0), versicolor (1) and virginica (2) by the length and width of sepal and petal in cm.",
    data=data.iris,
    estimator=estimator,
)
