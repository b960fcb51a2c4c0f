"""Golden rows: a few inputs and the estimator's own outputs, which every loaded engine must reproduce."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from muelle.bundle import fields
from muelle.bundle.data import NUMPY_DTYPES, Array, Data, column_array, largest_error, normalise, row_count, rows, take
from muelle.bundle.engines import Engine
from muelle.bundle.signature import Signature
from muelle.errors import GoldenMismatchError, ManifestError

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
        if signature.layout != "matrix":
            return arrays
        return np.column_stack(list(arrays.values())).astype(NUMPY_DTYPES[signature.inputs[0].dtype], copy=False)


def make_golden(signature: Signature, data: Data, answers: Mapping[str, Array]) -> Golden:
    """Choose rows spread evenly over `data` and keep the estimator's answers for them."""
    count = row_count(data)
    chosen = np.unique(np.linspace(0, count - 1, min(GOLDEN_ROWS, count)).round().astype(int))
    return Golden(
        inputs=rows(signature, take(data, chosen)),
        outputs={name: answer[chosen].tolist() for name, answer in answers.items()},
    )


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
        expected = normalise(
            output, np.asarray(golden.outputs[output.name], dtype=NUMPY_DTYPES[output.dtype]), len(golden.inputs)
        )
        error = largest_error(output, expected, actual[output.name])
        if not error <= TOLERANCE:
            raise GoldenMismatchError(
                f"the {engine.name} engine does not reproduce the golden output {output.name}: largest error "
                f"{error:.3g}, allowed {TOLERANCE:g}"
            )
