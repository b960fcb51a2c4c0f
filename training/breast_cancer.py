"""Malignant or benign, from 30 measurements of cell nuclei, by logistic regression on standardised features."""

from __future__ import annotations

from typing import Any

from training import data
from training.recipe import Recipe


def estimator() -> Any:
    """Return the Pipeline; without the scaler the solver would not converge on features of such different size."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))


RECIPE = Recipe(
    name="breast-cancer",
    description=(
        "Tells malignant (0) from benign (1) breast masses by 30 measurements of cell nuclei in fine needle aspirates "
        "(Wisconsin diagnostic data). An example, not a medical device."
    ),
    data=data.breast_cancer,
    estimator=estimator,
)
