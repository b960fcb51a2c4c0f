"""What it takes to train one model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from training.data import Dataset


@dataclass(frozen=True)
class Recipe:
    """A model's name, its data, and how to make the estimator.

    Attributes
    ----------
    name : str
        The bundle's name: the model's name in the repository, in URLs and in metrics.
    description : str
        One or two sentences that open the model card.
    data : callable
        Returns the `Dataset`.
    estimator : callable
        Returns the estimator or Pipeline, not fitted, with its seed fixed.
    """

    name: str
    description: str
    data: Callable[[], Dataset]
    estimator: Callable[[], Any]
