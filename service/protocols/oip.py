"""The Open Inference Protocol v2 with the binary tensor extension: requests, answers and metadata."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Final

import numpy as np
import orjson

from muelle import __version__
from muelle.bundle.data import Array, Data
from muelle.bundle.manifest import Manifest
from muelle.bundle.signature import Signature
from muelle.errors import InputError
from muelle.inference.rows import shown
from service.protocols.binary import tensor_bytes
from service.protocols.json_body import parse_json
from service.protocols.oip_fields import Scalars, check_flag, check_object, check_parameters, check_text
from service.protocols.oip_inputs import read_inputs
from service.protocols.tensors import DATATYPES_OF_DTYPES

_FIELDS: Final = ("id", "parameters", "inputs", "outputs")
_OUTPUT_FIELDS: Final = ("name", "parameters")
_NO_PARAMETERS: Final[Scalars] = {}
#: ``<project>_<format>``, as the protocol asks for; by the engine's name.
_PLATFORMS: Final = {"onnx": "onnxruntime_onnx", "joblib": "sklearn_joblib", "skops": "sklearn_skops"}


@dataclass(frozen=True, slots=True)
class InferRequest:
    """A decoded request.

    Attributes
    ----------
    id : str, optional
        What the answer repeats; None when there was none.
    data : Data
        Validated rows.
    rows : int
        n_samples.
    outputs : tuple of str
        What the model must answer, in the order of the answer.
    binary : frozenset of str
        Which of the outputs are to come as bytes.
    parsed_at : float
        ``time.perf_counter()`` between parsing and validating.
    """

    id: str | None
    data: Data
    rows: int
    outputs: tuple[str, ...]
    binary: frozenset[str]
    parsed_at: float


def decode(body: bytes, header_length: str | None, signature: Signature, max_rows: int) -> InferRequest:
    """Parse and validate a body.

    Parameters
    ----------
    body : bytes
        JSON, and behind it the binary tensors if there are any.
    header_length : str, optional
        The header ``Inference-Header-Content-Length`` as it came: the JSON's length in bytes. None when it is all JSON.
    signature : Signature
        What is allowed.
    max_rows : int
        The largest n_samples.

    Raises
    ------
    InputError
        With the place and what was expected there.
    """
    start = len(body) if header_length is None else _json_length(header_length, len(body))
    document = parse_json(body if start == len(body) else body[:start])
    parsed_at = perf_counter()
    raw = check_object(document, "", ("inputs",), _FIELDS)
    identity = check_text(raw["id"], "id") if "id" in raw else None
    parameters = check_parameters(raw["parameters"], "parameters") if "parameters" in raw else _NO_PARAMETERS
    all_binary = check_flag(parameters, "binary_data_output", "parameters", default=False)
    outputs, binary = _outputs(raw.get("outputs", []), signature, all_binary)
    data, rows = read_inputs(raw["inputs"], body, start, signature, max_rows)
    return InferRequest(identity, data, rows, outputs, binary, parsed_at)


def encode(
    request: InferRequest, signature: Signature, model_name: str, model_version: str, answers: Mapping[str, Array]
) -> tuple[bytes, int | None]:
    """Return the response's body.

    Parameters
    ----------
    request : InferRequest
        What is answered.
    signature : Signature
        Whose outputs they are.
    model_name, model_version : str
        What answered.
    answers : mapping
        Output name to an array of the signature's dtype, ``(n_samples,)`` or ``(n_samples, k)``; NaN becomes null in
        JSON and stays NaN in bytes.

    Returns
    -------
    body : bytes
        JSON, and behind it the outputs that were wanted as bytes.
    json_length : int, optional
        How many of the bytes are JSON; None when all are.
    """
    outputs = []
    parts = [b""]
    for name in request.outputs:
        array = answers[name]
        datatype = DATATYPES_OF_DTYPES[signature.output(name).dtype]
        output: dict[str, Any] = {"name": name, "shape": array.shape, "datatype": datatype}
        if name in request.binary:
            parts.append(tensor_bytes(array, datatype))
            output["parameters"] = {"binary_data_size": len(parts[-1])}
        else:
            flat = array.reshape(-1)
            output["data"] = flat.tolist() if datatype == "BYTES" else np.ascontiguousarray(flat)
        outputs.append(output)
    document: dict[str, Any] = {"model_name": model_name, "model_version": model_version}
    if request.id is not None:
        document["id"] = request.id
    document["outputs"] = outputs
    parts[0] = orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
    if not request.binary:
        return parts[0], None
    return b"".join(parts), len(parts[0])


def server_metadata() -> dict[str, Any]:
    """Return what ``GET /v2`` answers."""
    return {"name": "muelle", "version": __version__, "extensions": ["binary_tensor_data"]}


def model_metadata(manifest: Manifest, versions: Sequence[str], engine: str) -> dict[str, Any]:
    """Return what ``GET /v2/models/{name}`` answers; -1 stands for the rows.

    Parameters
    ----------
    manifest : Manifest
        Of the version that is asked for.
    versions : sequence of str
        All versions of the model.
    engine : str
        ``onnx``, ``joblib`` or ``skops``.
    """
    signature = manifest.signature
    if signature.layout == "matrix":
        datatype = DATATYPES_OF_DTYPES[signature.inputs[0].dtype]
        inputs = [{"name": "features", "datatype": datatype, "shape": [-1, len(signature.inputs)]}]
    else:
        inputs = [
            {"name": feature.name, "datatype": DATATYPES_OF_DTYPES[feature.dtype], "shape": [-1]}
            for feature in signature.inputs
        ]
    outputs = [
        {"name": output.name, "datatype": DATATYPES_OF_DTYPES[output.dtype], "shape": list(output.shape)}
        for output in signature.outputs
    ]
    return {
        "name": manifest.name,
        "versions": list(versions),
        "platform": _PLATFORMS[engine],
        "inputs": inputs,
        "outputs": outputs,
    }


def _json_length(header: str, size: int) -> int:
    """Return the JSON's length in bytes from the header that says it."""
    name = "Inference-Header-Content-Length"
    # Python would also take "+1", "1_0" and digits of other scripts; twenty digits are more than any body.
    if not (header.isascii() and header.isdecimal() and len(header) < 20):
        raise InputError(f"{name}: expected a number of bytes, got {shown(header)}", code="invalid_binary")
    length = int(header)
    if length > size:
        raise InputError(f"{name}: {length} bytes, but the body has {size}", code="invalid_binary")
    return length


def _outputs(items: object, signature: Signature, all_binary: bool) -> tuple[tuple[str, ...], frozenset[str]]:
    """Return the names of the outputs to answer, and of those that are wanted as bytes."""
    if type(items) is not list:
        raise InputError(f"expected a list, got {shown(items)}", code="invalid_shape", where="outputs")
    wanted: dict[str, bool] = {}
    for i, item in enumerate(items):
        where = f"outputs[{i}]"
        raw = check_object(item, where, ("name",), _OUTPUT_FIELDS)
        name = check_text(raw["name"], f"{where}.name")
        if name not in signature.output_names:
            message = f"expected one of {', '.join(signature.output_names)}, got {shown(name)}"
            raise InputError(message, code="unknown_output", where=f"{where}.name")
        if name in wanted:
            message = f"the output {name} is asked for twice"
            raise InputError(message, code="duplicate_name", where=f"{where}.name")
        binary = all_binary
        if "parameters" in raw:
            parameters = check_parameters(raw["parameters"], f"{where}.parameters")
            binary = check_flag(parameters, "binary_data", f"{where}.parameters", default=all_binary)
        wanted[name] = binary
    if not wanted:
        wanted = dict.fromkeys(signature.output_names, all_binary)
    return tuple(wanted), frozenset(name for name, binary in wanted.items() if binary)
