"""Labels are texts, predictions what the model answers: what of both means the same class or number."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from muelle.bundle.data import Array
from muelle.bundle.signature import Scalar
from muelle.quality.scores import Classification, Regression

_TRUTHS: Final = {"true": 1.0, "false": 0.0}


class Scorer:
    """Compares the predictions of one version with labels.

    Parameters
    ----------
    classes : sequence of scalars, optional
        That the version predicts, in the order of its probabilities; None when it predicts numbers.
    """

    def __init__(self, classes: Sequence[Scalar] | None) -> None:
        self._classes = None if classes is None else [_class_text(value) for value in classes]
        #: Integers as they are: from 2**53 on, several are the same float.
        self._by_number: dict[Scalar, str] | None = None
        if classes is not None and not any(isinstance(value, str) for value in classes):
            self._by_number = {value: _class_text(value) for value in classes}

    def start(self, seed: int) -> Classification | Regression:
        """Return scores of nothing yet."""
        return Regression(seed) if self._classes is None else Classification(seed)

    def add(
        self,
        scores: Classification | Regression,
        texts: Array,
        predicted: Array,
        probabilities: NDArray[np.float64] | None,
    ) -> NDArray[np.bool_]:
        """Add rows.

        Parameters
        ----------
        scores : Classification or Regression
            What `start` returned.
        texts : array of shape (n,)
            The labels.
        predicted : array of shape (n,)
            Numbers, booleans, or texts and None.
        probabilities : array of shape (n, n_classes), optional
            NaN in rows that have none.

        Returns
        -------
        array of shape (n,) bool
            Which rows were added: those whose label and prediction can be compared.
        """
        if isinstance(scores, Regression):
            actual = _by_distinct(texts, _number)
            numbers = predicted.astype(np.float64)
            usable = np.isfinite(actual) & np.isfinite(numbers)
            scores.add(actual[usable], numbers[usable])
            return usable
        actual = _by_distinct(texts, self._label_class, object)
        answered = _by_distinct(predicted, self._predicted_class, object)
        usable = np.array([a is not None and p is not None for a, p in zip(actual, answered, strict=True)], np.bool_)
        scores.add(actual[usable].tolist(), answered[usable].tolist())
        if probabilities is not None:
            self._add_probabilities(scores, actual, probabilities, usable)
        return usable

    def _add_probabilities(
        self, scores: Classification, actual: Array, probabilities: Array, usable: NDArray[np.bool_]
    ) -> None:
        places = {text: place for place, text in enumerate(self._classes or ())}
        there = usable & ~np.isnan(probabilities).any(axis=1)
        columns = _by_distinct(actual[there], lambda text: places.get(text, -1), np.intp)
        values = probabilities[there][np.arange(len(columns)), columns]
        # A class that the model doesn't know has no probability.
        scores.add_probabilities(np.where(columns >= 0, values, 0.0))

    def _predicted_class(self, value: object) -> str | None:
        """Return the text of an answer; None of a row that was not answered the class."""
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return None
        if self._by_number is None or not isinstance(value, int | float):
            return _class_text(value)
        return self._by_number.get(value, _class_text(value))

    def _label_class(self, text: str) -> str | None:
        """Return the class that a label names; None when it can be none. One that the model doesn't know is a class."""
        if self._by_number is None:
            return text
        number = _exact(text)
        return None if number is None else self._by_number.get(number, text)


def _class_text(value: object) -> str:
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    return str(value)


def _exact(text: str) -> float | None:
    """Return an integer as it is, another number as a float; None when it is none."""
    try:
        return int(text)
    except ValueError:
        number = _number(text)
        return None if math.isnan(number) else number


def _number(text: str) -> float:
    try:
        known = _TRUTHS.get(text.lower())
        return float(text) if known is None else known
    except ValueError:
        return math.nan


def _by_distinct(values: Array, function: Callable[[Any], object], dtype: type = float) -> Array:
    """Return the function of each value, called once for each distinct one."""
    codes, distinct = pd.factorize(values, use_na_sentinel=False)
    found: Array = np.empty(len(distinct), dtype)
    found[:] = [function(value) for value in distinct.tolist()]
    chosen: Array = found[codes]
    return chosen
