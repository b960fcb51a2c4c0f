"""The lines of the prediction log's spool: JSON, each with up to some hundred rows of one model, column by column.

::

    {"h":0,"model":"iris","version":"1","x":[["petal width","float64"],…],"predict":["int64",0],"classes":3,
     "confidence":true,"labels":[0,1,2]}                                          heading: what model 0 is
    {"m":0,"n":3,"i":["id1","id2"],"c":[1,2],"f":[0,0],"t":[µs,µs],"x":[[…],…],"p":[…],"P":[[…],…],"q":[…]}
    {"l":2,"i":["id1","id2"],"r":[0,0],"v":["setosa","1"],"o":[µs,µs],"t":[µs,µs]}   labels that came in

Of a line of rows, ``i``, ``c``, ``f`` and ``t`` say for each request its id, how many rows of it are here, which is the
first, and when it was answered; ``p``, ``P`` and ``q`` are there when the request was answered that output. Missing
values are null, and so is what JSON has no number for: NaN and the infinities.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import orjson

from muelle.bundle.data import Array, Data
from muelle.bundle.signature import Scalar, Signature
from service.observations import Observation
from service.protocols.feedback import Label

#: A line has no more rows. While one is encoded no request of the worker goes on, for some 3 ms with 30 numbers a row;
#: when it is written they have their turn.
ROWS_A_LINE: Final = 512
PREDICT: Final = "predict"
PROBABILITIES: Final = "predict_proba"
CONFIDENCE: Final = "confidence"
#: In the settings: all features.
ALL_FEATURES: Final = "*"
_MICROSECONDS: Final = 1_000_000
_OPTIONS: Final = orjson.OPT_SERIALIZE_NUMPY


class Piece(NamedTuple):
    """Some rows of one request, from `first` up to `end`."""

    item: Observation
    first: int
    end: int

    def of(self, array: Array) -> Array:
        """Return these rows of an array of the request."""
        # Most requests are one whole piece, and numpy takes its time for a slice.
        return array if self.end - self.first == len(array) else array[self.first : self.end]


@dataclass(frozen=True)
class Layout:
    """What is kept of one model's rows, and how.

    Attributes
    ----------
    number : int
        Stands for the model within a segment.
    features : tuple of (str, str)
        Name and dtype of each feature that is kept.
    places : tuple of int
        Their places in the signature.
    predict : (str, int), optional
        dtype, and how many values a row has, 0 standing for one that is no list; None when it is not kept.
    classes : int
        How many probabilities a row has; 0 when there are none, or they are not kept.
    confidence : bool
        Whether the largest one is kept.
    labels : tuple of scalars, optional
        The classes, in the probabilities' order.
    """

    number: int
    model: str
    version: str
    features: tuple[tuple[str, str], ...]
    places: tuple[int, ...]
    predict: tuple[str, int] | None
    classes: int
    confidence: bool
    labels: tuple[Scalar, ...] | None

    @classmethod
    def of(cls, number: int, model: str, version: str, signature: Signature, redacted: Collection[str]) -> Layout:
        """Return what is left of a signature without some columns.

        Parameters
        ----------
        number, model, version : int, str, str
            As above.
        signature : Signature
            The model's.
        redacted : collection of str
            Names of features, or of what is answered; `ALL_FEATURES` stands for all features.
        """
        kept = [
            (place, feature)
            for place, feature in enumerate(signature.inputs)
            if ALL_FEATURES not in redacted and feature.name not in redacted
        ]
        outputs = {output.name: output for output in signature.outputs}
        predict, probabilities = outputs[PREDICT], outputs.get(PROBABILITIES)
        width = 0 if len(predict.shape) == 1 else predict.shape[1]
        return cls(
            number=number,
            model=model,
            version=version,
            features=tuple((feature.name, feature.dtype) for _, feature in kept),
            places=tuple(place for place, _ in kept),
            predict=None if PREDICT in redacted else (predict.dtype, width),
            classes=0 if probabilities is None or PROBABILITIES in redacted else probabilities.shape[1],
            confidence=probabilities is not None and CONFIDENCE not in redacted,
            labels=predict.classes,
        )

    def heading(self) -> bytes:
        """Return the line that says all this."""
        document = {
            "h": self.number,
            "model": self.model,
            "version": self.version,
            "x": self.features,
            "predict": self.predict,
            "classes": self.classes,
            "confidence": self.confidence,
            "labels": self.labels,
        }
        return orjson.dumps(document)

    @classmethod
    def from_heading(cls, found: dict[str, Any]) -> Layout:
        """Return what a heading says; raises KeyError, TypeError or ValueError when it is none."""
        predict, labels = found["predict"], found["labels"]
        return cls(
            number=found["h"],
            model=found["model"],
            version=found["version"],
            features=tuple((name, dtype) for name, dtype in found["x"]),
            places=(),
            predict=None if predict is None else (predict[0], predict[1]),
            classes=found["classes"],
            confidence=found["confidence"],
            labels=None if labels is None else tuple(labels),
        )


class Line(NamedTuple):
    """A line of rows."""

    text: bytes
    rows: int


def gather(group: Sequence[Observation]) -> Iterator[list[Piece]]:
    """Yield what goes into one line each, of requests of one model: of those that were answered the same outputs."""
    gathered: dict[tuple[str, ...], list[Piece]] = {}
    rows: Counter[tuple[str, ...]] = Counter()
    for item in group:
        answered = tuple(item.answers)
        for first in range(0, item.rows, ROWS_A_LINE):
            end = min(first + ROWS_A_LINE, item.rows)
            if rows[answered] + end - first > ROWS_A_LINE:
                yield gathered.pop(answered)
                rows[answered] = 0
            gathered.setdefault(answered, []).append(Piece(item, first, end))
            rows[answered] += end - first
    yield from gathered.values()


def row_line(layout: Layout, pieces: Sequence[Piece]) -> Line:
    """Return the line of what `gather` yields.

    Raises
    ------
    TypeError
        When JSON can't hold a value: a text that is no Unicode, say.
    """
    rows = sum(piece.end - piece.first for piece in pieces)
    # The first two in front: of a line that is cut off they tell what was lost.
    document: dict[str, Any] = {
        "m": layout.number,
        "n": rows,
        "i": [piece.item.request_id for piece in pieces],
        "c": [piece.end - piece.first for piece in pieces],
        "f": [piece.first for piece in pieces],
        "t": [round(piece.item.answered_at * _MICROSECONDS) for piece in pieces],
        "x": _feature_columns(layout, [(piece.item.data, piece) for piece in pieces]),
    }
    answered = pieces[0].item.answers
    if layout.predict is not None and PREDICT in answered:
        document["p"] = _plain(np.concatenate([piece.of(piece.item.answers[PREDICT]) for piece in pieces]))
    if (layout.classes or layout.confidence) and PROBABILITIES in answered:
        probabilities = np.concatenate([piece.of(piece.item.answers[PROBABILITIES]) for piece in pieces])
        if layout.classes:
            document["P"] = _plain(probabilities)
        if layout.confidence:
            document["q"] = probabilities.max(axis=1)
    return Line(orjson.dumps(document, option=_OPTIONS), rows)


def label_line(labels: Sequence[Label], received_at: float) -> bytes:
    """Return the line of some labels.

    Parameters
    ----------
    labels : sequence of Label
        As callers sent them.
    received_at : float
        Unix time, seconds.
    """
    document = {
        "l": len(labels),
        "i": [label.request_id for label in labels],
        "r": [label.row for label in labels],
        "v": [label_text(label.label) for label in labels],
        "o": [round(label.observed_at * _MICROSECONDS) for label in labels],
        "t": [round(received_at * _MICROSECONDS)] * len(labels),
    }
    return orjson.dumps(document)


def label_text(label: Scalar) -> str:
    """Return a label as a text: JSON's, without the quotes of strings."""
    return label if isinstance(label, str) else orjson.dumps(label).decode()


def _feature_columns(layout: Layout, parts: Sequence[tuple[Data, Piece]]) -> list[Any]:
    matrices = [piece.of(data) for data, piece in parts if isinstance(data, np.ndarray)]
    if matrices:
        kept = np.concatenate(matrices).T[list(layout.places)]
        return list(np.ascontiguousarray(kept))
    tables = [(data, piece) for data, piece in parts if not isinstance(data, np.ndarray)]
    return [_plain(np.concatenate([piece.of(data[name]) for data, piece in tables])) for name, _ in layout.features]


def _plain(array: Array) -> Any:
    """Return what orjson takes: texts and mixed columns are lists."""
    return array.tolist() if array.dtype.kind == "O" else np.ascontiguousarray(array)
