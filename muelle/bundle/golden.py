"""Golden rows: a few inputs and the estimator's own outputs, which every loaded engine must reproduce."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from muelle.bundle import fields
from muelle.bundle.data import NUMPY_DTYPES, Array, Data, column_array, largest_error, normalise, row_count, rows, take
from muelle.bundle.engines import Engine
from muelle.bundle.signature import Output, Signature
from muelle.errors import EngineError, EstimatorError, GoldenMismatchError, ManifestError

#: Enough to meet most branches of a model, few enough to check at every start.
GOLDEN_ROWS: Final = 16
#: Engines and processors differ in the last bits; a wrong model differs by far more.
TOLERANCE: Final = 1e-6


@dataclass(frozen=True)
class Golden:
    """Golden inputs and outputs.

    Attributes
    ----------
    inputs : list of rows
        JSON-ready, None for missing.
    outputs : mapping
        Output name to one JSON-ready answer a row.
    """

    inputs: list[list[Any]]
    outputs: dict[str, list[Any]]

    def to_bytes(self) -> bytes:
        """Return golden.json's bytes; floats keep their full precision."""
        document = {"inputs": self.inputs, "outputs": self.outputs}
        return (json.dumps(document, ensure_ascii=False, allow_nan=False) + "\n").encode()

    @classmethod
    def from_bytes(cls, data: bytes, signature: Signature) -> Golden:
        """Parse golden.json; raises `ManifestError` with the field's place."""
        raw = fields.mapping(fields.document(data, "golden.json"), "golden.json", ("inputs", "outputs"))
        inputs = fields.sequence(raw["inputs"], "golden.json: inputs")
        for i, row in enumerate(inputs):
            if not isinstance(row, list) or len(row) != len(signature.inputs):
                raise ManifestError(f"golden.json: inputs[{i}]: expected {len(signature.inputs)} values")
        outputs = fields.mapping(raw["outputs"], "golden.json: outputs", signature.output_names)
        for name, answers in outputs.items():
            if len(fields.sequence(answers, f"golden.json: outputs.{name}")) != len(inputs):
                raise ManifestError(f"golden.json: outputs.{name}: expected {len(inputs)} answers, got {len(answers)}")
        if not inputs:
            raise ManifestError("golden.json: inputs: expected at least one row")
        return cls(inputs=inputs, outputs=outputs)

    def data(self, signature: Signature) -> Data:
        """Return the inputs as an engine takes them."""
        cells = zip(*self.inputs, strict=True)
        try:
            arrays = {f.name: column_array(f, list(c)) for f, c in zip(signature.inputs, cells, strict=True)}
        except (TypeError, ValueError, OverflowError) as error:
            raise ManifestError(f"golden.json: inputs: not of the signature's dtypes: {error}") from error
        if nested := [name for name, array in arrays.items() if array.ndim != 1]:
            raise ManifestError(f"golden.json: inputs: expected one value a cell, got lists for {nested[0]!r}")
        if signature.layout != "matrix":
            return arrays
        return np.column_stack(list(arrays.values())).astype(NUMPY_DTYPES[signature.inputs[0].dtype], copy=False)

    def answers(self, output: Output) -> Array:
        """Return an output's answers in its dtype and shape; raises `ManifestError` when they are not of these."""
        try:
            array = np.asarray(self.outputs[output.name], dtype=NUMPY_DTYPES[output.dtype])
            return normalise(output, array, len(self.inputs))
        except (TypeError, ValueError, OverflowError, EngineError) as error:
            raise ManifestError(f"golden.json: outputs.{output.name}: not as the signature says: {error}") from error


def make_golden(signature: Signature, data: Data, answers: Mapping[str, Array]) -> Golden:
    """Choose rows spread evenly over `data` and keep the estimator's answers for them.

    Raises
    ------
    EstimatorError
        When every row holds an infinite value, or is answered with one.
    """
    columns = [data] if isinstance(data, np.ndarray) else list(data.values())
    usable = np.flatnonzero(_no_infinity([*columns, *answers.values()], row_count(data)))
    if usable.size == 0:
        raise EstimatorError("the sample: expected a row without infinite values and answers, to keep as a golden row")
    chosen = usable[np.linspace(0, usable.size - 1, min(GOLDEN_ROWS, usable.size)).round().astype(int)]
    return Golden(
        inputs=rows(signature, take(data, chosen)),
        outputs={name: _json_ready(answer[chosen]) for name, answer in answers.items()},
    )


def _no_infinity(arrays: list[Array], count: int) -> NDArray[np.bool_]:
    """Return which rows JSON can hold; an infinite value would not be served anyway."""
    fine = np.ones(count, np.bool_)
    for array in arrays:
        if array.dtype.kind == "f":
            fine &= ~np.isinf(array.reshape(count, -1)).any(axis=1)
    return fine


def _json_ready(answer: Array) -> list[Any]:
    """Return answers with None for NaN."""
    plain: Array = answer
    if answer.dtype.kind == "f":
        plain = answer.astype(object)
        plain[np.isnan(answer)] = None
    values: list[Any] = plain.tolist()
    return values


def check_golden(signature: Signature, golden: Golden, engine: Engine) -> None:
    """Run the golden inputs through an engine and compare.

    Raises
    ------
    GoldenMismatchError
        When a label differs, or a value or probability by more than `TOLERANCE`.
    """
    data = golden.data(signature)
    actual = engine.run(data, signature.output_names)
    for output in signature.outputs:
        error = largest_error(output, golden.answers(output), actual[output.name])
        if not error <= TOLERANCE:
            raise GoldenMismatchError(
                f"golden.json: the {engine.name} engine does not reproduce the golden output {output.name}: "
                f"largest error {error:.3g}, allowed {TOLERANCE:g}"
            )
