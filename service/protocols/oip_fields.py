"""The fields of an Open Inference Protocol v2 request, before their meaning for a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from muelle.errors import InputError
from muelle.inference.rows import shown
from service.protocols.tensors import DATATYPES

Scalars = Mapping[str, str | int | float | bool]

_FIELDS: Final = ("name", "shape", "datatype", "parameters", "data")
#: Parameters of Triton's extensions that say the elements are elsewhere, or are wanted in another form: to pass them
#: over would give a wrong answer.
_NOT_OFFERED: Final = frozenset({"shared_memory_region", "shared_memory_byte_size", "classification"})
_INT64_MAX: Final = 2**63 - 1


class InputTensor(NamedTuple):
    """One item of ``inputs``, its elements still unread: ``data``, or `size` bytes behind the JSON."""

    where: str
    name: str
    shape: tuple[int, ...]
    datatype: str
    data: Any
    size: int | None


def check_object(value: object, where: str, required: Sequence[str], known: Sequence[str]) -> dict[str, Any]:
    """Return an object that has the required fields and only known ones; raises `InputError`."""
    if type(value) is not dict:
        raise InputError(f"expected an object, got {shown(value)}", code="invalid_shape", where=where)
    for key in value:
        if key not in known:
            message = f"unknown field {shown(key)}; known are {', '.join(known)}"
            raise InputError(message, code="unknown_field", where=where)
    for key in required:
        if key not in value:
            raise InputError(f"expected the field {key}", code="missing_field", where=where)
    return value


def check_parameters(value: object, where: str) -> Scalars:
    """Return parameters, which are strings, numbers and booleans; raises `InputError`."""
    if type(value) is not dict:
        raise InputError(f"expected an object, got {shown(value)}", code="invalid_shape", where=where)
    for key, item in value.items():
        if type(item) not in (str, int, float, bool):
            message = f"{shown(key)}: expected a string, a number or a boolean, got {shown(item)}"
            raise InputError(message, code="invalid_value", where=where)
        if key in _NOT_OFFERED:
            raise InputError(f"{key} is not offered here", code="unknown_field", where=where)
    return value


def check_text(value: object, where: str) -> str:
    """Return a string; raises `InputError`."""
    if type(value) is not str:
        raise InputError(f"expected a string, got {shown(value)}", code="invalid_value", where=where)
    return value


def check_flag(parameters: Scalars, key: str, where: str, *, default: bool) -> bool:
    """Return a parameter that is true or false; raises `InputError`."""
    value = parameters.get(key, default)
    if type(value) is not bool:
        raise InputError(f"expected true or false, got {shown(value)}", code="invalid_value", where=f"{where}.{key}")
    return value


def check_input(value: object, where: str) -> InputTensor:
    """Return one item of ``inputs``; raises `InputError`."""
    raw = check_object(value, where, ("name", "shape", "datatype"), _FIELDS)
    name = check_text(raw["name"], f"{where}.name")
    datatype = check_text(raw["datatype"], f"{where}.datatype")
    if datatype not in DATATYPES:
        message = f"expected one of {', '.join(DATATYPES)}, got {shown(datatype)}"
        raise InputError(message, code="unknown_datatype", where=f"{where}.datatype")
    shape = _shape(raw["shape"], f"{where}.shape")
    size = None
    if "parameters" in raw:
        size = _size(check_parameters(raw["parameters"], f"{where}.parameters"), f"{where}.parameters")
    if size is None and "data" not in raw:
        raise InputError("expected data, or the parameter binary_data_size", code="missing_field", where=where)
    if size is not None and "data" in raw:
        message = "expected either data or the parameter binary_data_size, got both"
        raise InputError(message, code="invalid_binary", where=where)
    return InputTensor(where, name, shape, datatype, raw.get("data"), size)


def _shape(value: object, where: str) -> tuple[int, ...]:
    if type(value) is not list or len(value) not in (1, 2):
        got = f"{len(value)} dimensions" if type(value) is list else shown(value)
        message = f"expected [rows] or [rows, columns], got {got}"
        raise InputError(message, code="invalid_shape", where=where)
    for i, length in enumerate(value):
        if type(length) is not int or not 0 <= length <= _INT64_MAX:
            hint = "; -1 stands in metadata only" if length == -1 else ""
            message = f"expected a whole number from 0, got {shown(length)}{hint}"
            raise InputError(message, code="invalid_shape", where=f"{where}[{i}]")
    return tuple(value)


def _size(parameters: Scalars, where: str) -> int | None:
    size = parameters.get("binary_data_size")
    if size is None:
        return None
    if type(size) is not int or size < 0:
        message = f"expected a number of bytes, got {shown(size)}"
        raise InputError(message, code="invalid_binary", where=f"{where}.binary_data_size")
    return size
