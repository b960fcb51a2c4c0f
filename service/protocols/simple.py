"""The simple API: ``{"features": …}`` → ``{"prediction": …}``, and ``{"input": …}`` → ``{"output": […]}``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Final

import numpy as np
import orjson

from muelle.bundle.data import NUMPY_DTYPES, Array, Data
from muelle.bundle.signature import Signature
from muelle.errors import InputError
from muelle.inference.rows import rows_to_data, shown
from service.protocols.json_body import parse_json, parse_strictly
from service.protocols.numbers import large_matrix

_FIELDS: Final = ("features", "input", "probabilities")
#: From here on the second parser's start-up pays.
_LARGE_BYTES: Final = 8 * 1024
_PREDICT: Final = ("predict",)
_BOTH: Final = ("predict", "predict_proba")


@dataclass(slots=True)
class SimpleRequest:
    """A decoded request.

    Attributes
    ----------
    data : Data
        Validated rows.
    rows : int
        n_samples.
    field : str
        ``features`` or ``input``.
    single : bool
        Whether the rows were one bare row rather than a list of rows.
    outputs : tuple of str
        What the model must answer.
    parsed_at : float
        ``time.perf_counter()`` between parsing and validating.
    """

    data: Data
    rows: int
    field: str
    single: bool
    outputs: tuple[str, ...]
    parsed_at: float


def decode(body: bytes, signature: Signature, max_rows: int) -> SimpleRequest:
    """Parse and validate a body.

    Numeric matrices take short cuts that either give what the careful way would give, or nothing.

    Raises
    ------
    InputError
        With the place and what was expected there.
    """
    if not signature.plain:
        return _decode_carefully(parse_json(body), signature, max_rows)
    if len(body) >= _LARGE_BYTES:
        matrix = large_matrix(body, len(signature.inputs))
        if matrix is not None:
            field, array = matrix
            parsed_at = perf_counter()
            if (fitting := _fitting(array, signature)) is not None:
                return _request(fitting, field, parsed_at, single=False, max_rows=max_rows)
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        # Not JSON, or only Python's parser takes it: 1e400 is infinity there, so each number is looked at.
        return _decode_carefully(parse_strictly(body), signature, max_rows)
    return _decode_numbers(body, document, signature, max_rows) or _decode_carefully(
        parse_json(body), signature, max_rows
    )


def encode(
    request: SimpleRequest,
    signature: Signature,
    answers: Mapping[str, Array],
) -> bytes:
    """Return the response's body; NaN becomes null."""
    predictions = answers["predict"].tolist() if answers["predict"].dtype.kind == "O" else answers["predict"]
    if request.field == "input":
        document: dict[str, Any] = {"output": predictions}
    elif request.single:
        document = {"prediction": answers["predict"].tolist()[0]}
    else:
        document = {"predictions": predictions}
    if len(request.outputs) == 2:
        probabilities = answers["predict_proba"]
        document["probabilities"] = probabilities[0] if request.single else probabilities
        document["classes"] = signature.outputs[0].classes
    return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)


def _decode_numbers(body: bytes, document: Any, signature: Signature, max_rows: int) -> SimpleRequest | None:
    """Let numpy convert rows of bare numbers, or return None.

    numpy would also take "1", true and null for numbers. Whether the body has any is seen in its bytes: with two
    quotation marks a key there are no strings (and no duplicate keys), and true, false and null are words.
    """
    if type(document) is not dict or len(document) != 1 or body.count(b'"') != 2:
        return None
    field, rows = next(iter(document.items()))
    if field not in ("features", "input") or type(rows) is not list or not rows:
        return None
    if b"true" in body or b"false" in body or b"null" in body:
        return None
    single = type(rows[0]) is not list
    parsed_at = perf_counter()
    try:
        array = np.array(rows, dtype=np.float64, ndmin=2)
    except (TypeError, ValueError, OverflowError):
        return None
    if array.ndim != 2 or array.shape[1] != len(signature.inputs):
        return None
    fitting = _fitting(array, signature)
    if fitting is None:
        return None
    return _request(fitting, field, parsed_at, single=single, max_rows=max_rows)


def _fitting(array: Array, signature: Signature) -> Array | None:
    """Return finite float64 numbers in the matrix's dtype, or None when one is too large for it."""
    dtype = NUMPY_DTYPES[signature.inputs[0].dtype]
    if array.dtype == dtype:
        return array
    with np.errstate(over="ignore"):
        narrow = array.astype(dtype)
    return narrow if np.isfinite(narrow).all() else None


def _decode_carefully(document: Any, signature: Signature, max_rows: int) -> SimpleRequest:
    """Look at everything; every error message of this protocol starts here."""
    parsed_at = perf_counter()
    if type(document) is not dict:
        raise InputError(
            f"expected an object such as {_example(signature)}, got {shown(document)}", code="invalid_shape"
        )
    if unknown := [key for key in document if key not in _FIELDS]:
        listed = ", ".join(shown(key) for key in unknown[:5])
        raise InputError(f"unknown field {listed}; known are {', '.join(_FIELDS)}", code="unknown_field")
    given = [key for key in ("features", "input") if key in document]
    if len(given) != 1:
        problem = "both were given" if given else "neither was given"
        message = f"expected either features or input, {problem}; for example {_example(signature)}"
        raise InputError(message, code="missing_field")
    field, value = given[0], document[given[0]]
    wanted = document.get("probabilities", False)
    if type(wanted) is not bool:
        raise InputError(f"expected true or false, got {shown(wanted)}", code="invalid_value", where="probabilities")
    if wanted and "predict_proba" not in signature.output_names:
        raise InputError("this model has no probabilities", code="unknown_output", where="probabilities")
    single = type(value) is dict
    if not single:
        if type(value) is not list:
            message = f"expected a list of {len(signature.inputs)} values or a list of rows, got {shown(value)}"
            raise InputError(message, code="invalid_shape", where=field)
        single = bool(value) and not any(type(item) in (list, dict) for item in value)
    rows = [value] if single else value
    _check_rows(len(rows), max_rows, field)
    data = rows_to_data(signature, rows, field) if not single else _single_row(signature, value, field)
    return SimpleRequest(data, len(rows), field, single, _BOTH if wanted else _PREDICT, parsed_at)


def _single_row(signature: Signature, row: Any, field: str) -> Data:
    """Convert one bare row; its places have no row number."""
    try:
        return rows_to_data(signature, [row], field)
    except InputError as error:
        where = error.where.replace(f"{field}[0]", field, 1)
        message = str(error).removeprefix(f"{error.where}: ")
        raise InputError(message, code=error.code, where=where) from error


def _request(array: Array, field: str, parsed_at: float, *, single: bool, max_rows: int) -> SimpleRequest:
    _check_rows(len(array), max_rows, field)
    return SimpleRequest(array, len(array), field, single, _PREDICT, parsed_at)


def _check_rows(rows: int, max_rows: int, field: str) -> None:
    if rows > max_rows:
        raise InputError(f"expected at most {max_rows} rows, got {rows}", code="too_many_rows", where=field)


def _example(signature: Signature) -> str:
    return '{"features": [' + ", ".join(signature.names[:3]) + (", …]}" if len(signature.names) > 3 else "]}")
