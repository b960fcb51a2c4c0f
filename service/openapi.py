"""OpenAPI 3.1 of what this process serves, made from the loaded models' signatures.

Whatever a request schema allows is answered with 2xx, and what it forbids with the 4xx that stands beside it. Only the
Open Inference Protocol's requests are described more narrowly than they are accepted: JSON Schema can't say that a
shape's product is the number of values, so one row is described.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from muelle import __version__
from muelle.bundle.profile import ColumnProfile
from muelle.bundle.signature import Feature, Output, Signature
from service.exchange import REQUEST_ID
from service.protocols.feedback import MOST_CHARACTERS, MOST_LABELS, MOST_ROW
from service.protocols.tensors import DATATYPES_OF_DTYPES

if TYPE_CHECKING:
    from muelle.inference import Predictor
    from service.app import Service

Schema = dict[str, Any]

_FLOAT64_MAX: Final = 1.7976931348623157e308
_FLOAT32_MAX: Final = 3.4028234663852886e38
_JSON: Final = "application/json"
_ERRORS: Final = {
    "400": "The body is not what is expected; `error` says where and what.",
    "401": "No API key came.",
    "403": "The API key is not a valid one.",
    "404": "No such model or version.",
    "413": "The body, or its number of rows, is over the limit.",
    "415": "The body is not JSON.",
    "503": "Not ready, or too busy; try again after `Retry-After` seconds.",
}


def openapi_document(service: Service) -> dict[str, Any]:
    """Return the document for the models that are ready now."""
    schemas: dict[str, Schema] = {
        "Error": _object({"error": {"type": "string"}, "code": {"type": "string"}}, ["error"])
    }
    paths: dict[str, Any] = dict(_fixed_paths(service))
    if service.settings.feedback_rows:
        paths["/feedback"] = {"post": _feedback_operation(service)}
    default = service.models.default
    newest = service.models.newest()
    for model in service.models.all():
        if model.predictor is None:
            continue
        key = re.sub(r"[^A-Za-z0-9._-]", "_", f"{model.name}-{model.version}")
        while f"{key}.request" in schemas:
            # a-1, version 2, and a, version 1-2.
            key += "_"
        predictor = model.predictor
        schemas[f"{key}.request"] = request_schema(
            predictor.signature, service.settings.max_rows, float32=_computes_in_float32(predictor)
        )
        schemas[f"{key}.response"] = response_schema(predictor.signature)
        simple = {"post": _predict_operation(service, predictor, key)}
        infer = {"post": _infer_operation(service, predictor)}
        paths[f"/models/{model.name}/versions/{model.version}/predict"] = simple
        paths[f"/v2/models/{model.name}/versions/{model.version}/infer"] = infer
        if model in newest:
            paths[f"/models/{model.name}/predict"] = simple
            paths[f"/v2/models/{model.name}/infer"] = infer
        if model is default:
            paths["/predict"] = simple
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": "Muelle", "version": __version__, "description": "Predictions from the loaded models."},
        "paths": paths,
        "components": {"schemas": schemas},
    }
    if service.keys is not None:
        document["components"]["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer"},
            "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        }
    return document


def request_schema(signature: Signature, max_rows: int, *, float32: bool = False) -> Schema:
    """Return the schema of the simple API's request; `float32` says that the model computes in it."""
    cells = [feature_schema(feature, float32=float32) for feature in signature.inputs]
    row: Schema = {"type": "array", "minItems": len(cells), "maxItems": len(cells)}
    if all(cell == cells[0] for cell in cells):
        row |= {"items": cells[0], "description": f"In this order: {', '.join(signature.names)}"}
    else:
        row |= {"prefixItems": cells, "items": False}
    named = _object(dict(zip(signature.names, cells, strict=True)), list(signature.names))
    rows: Schema = {
        "anyOf": [
            row,
            named,
            {"type": "array", "items": row, "minItems": 1, "maxItems": max_rows},
            {"type": "array", "items": named, "minItems": 1, "maxItems": max_rows},
        ]
    }
    properties: dict[str, Schema] = {"features": rows, "input": rows}
    if "predict_proba" in signature.output_names:
        properties["probabilities"] = {"type": "boolean", "default": False}
    return _object(properties, []) | {"oneOf": [{"required": ["features"]}, {"required": ["input"]}]}


def response_schema(signature: Signature) -> Schema:
    """Return the schema of the simple API's answer."""
    value = _answer_schema(signature.output("predict"))
    properties: dict[str, Schema] = {
        "prediction": value | {"description": "For one row in `features`."},
        "predictions": {"type": "array", "items": value, "description": "For a list of rows in `features`."},
        "output": {"type": "array", "items": value, "description": "For `input`: a list even for one row."},
    }
    if "predict_proba" in signature.output_names:
        one: Schema = {"type": "array", "items": {"type": "number", "minimum": 0, "maximum": 1}}
        properties["probabilities"] = {"anyOf": [one, {"type": "array", "items": one}]}
        properties["classes"] = {"type": "array", "items": {"enum": list(signature.outputs[0].classes or ())}}
    return _object(properties, []) | {"oneOf": [{"required": [key]} for key in ("prediction", "predictions", "output")]}


def feature_schema(feature: Feature, *, float32: bool = False) -> Schema:
    """Return the schema of one cell."""
    schema: Schema
    if feature.categories is not None:
        return {"enum": [*feature.categories, *([None] if feature.nullable else [])]}
    if feature.dtype == "string":
        schema = {"type": "string"}
    elif feature.dtype == "bool":
        schema = {"type": "boolean"}
    elif feature.dtype == "int64":
        schema = {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1}
    else:
        limit = _FLOAT32_MAX if float32 or feature.dtype == "float32" else _FLOAT64_MAX
        schema = {"type": "number", "minimum": -limit, "maximum": limit}
    if feature.nullable:
        schema["type"] = [schema["type"], "null"]
    return schema


def _computes_in_float32(predictor: Predictor) -> bool:
    return predictor.engine == "onnx" and predictor.manifest.onnx.input_dtype == "float32"


def example_row(predictor: Predictor) -> list[Any]:
    """Return a made-up row in the middle of the reference: medians, and values that were seen often."""
    profile = predictor.profile
    return [_example(feature, profile.inputs.get(feature.name)) for feature in predictor.signature.inputs]


def _example(feature: Feature, column: ColumnProfile | None) -> Any:
    if feature.categories:
        return feature.categories[0]
    if feature.dtype == "bool":
        return True
    if feature.dtype == "string":
        return column.values[0] if column is not None and column.values and may_be_shown(column, 0) else "text"
    median = 0.0 if column is None or column.median is None else column.median
    return round(median) if feature.dtype == "int64" else median


def may_be_shown(column: ColumnProfile, place: int) -> bool:
    """Whether a frequent value of the reference is a category: one that stood in a few rows may be somebody's own."""
    return column.counts[place] >= max(2, sum(column.counts) // 50)


def _answer_schema(output: Output) -> Schema:
    types = {"float64": ["number", "null"], "int64": "integer", "bool": "boolean", "string": "string"}
    value: Schema = {"type": types[output.dtype]}
    if output.classes is not None and len(output.shape) == 1:
        value = {"enum": list(output.classes)}
    if len(output.shape) == 1:
        return value
    return {"type": "array", "items": value, "minItems": output.shape[1], "maxItems": output.shape[1]}


def _predict_operation(service: Service, predictor: Predictor, key: str) -> dict[str, Any]:
    manifest = predictor.manifest
    row = example_row(predictor)
    content = {
        "schema": {"$ref": f"#/components/schemas/{key}.request"},
        "examples": {
            "row": {"value": {"features": row}},
            "rows": {"value": {"features": [row, row]}},
            "named": {"value": {"features": dict(zip(predictor.signature.names, row, strict=True))}},
        },
    }
    answer = {"schema": {"$ref": f"#/components/schemas/{key}.response"}}
    return _operation(service, f"Predict with {manifest.name} {manifest.version}", content, answer)


def _infer_operation(service: Service, predictor: Predictor) -> dict[str, Any]:
    signature, manifest = predictor.signature, predictor.manifest
    row = example_row(predictor)
    if signature.layout == "matrix":
        tensors = [("features", signature.inputs[0], [1, len(row)], row)]
    else:
        tensors = [(feature.name, feature, [1], [value]) for feature, value in zip(signature.inputs, row, strict=True)]
    inputs = []
    for name, feature, shape, _ in tensors:
        fixed: dict[str, Schema] = {
            "name": {"const": name},
            "datatype": {"const": DATATYPES_OF_DTYPES[feature.dtype]},
            "shape": {"const": shape},
            "data": {
                "type": "array",
                "items": feature_schema(feature, float32=_computes_in_float32(predictor)),
                "minItems": shape[-1],
                "maxItems": shape[-1],
            },
        }
        inputs.append(_object(fixed, list(fixed)))
    outputs: Schema = {
        "type": "array",
        "items": _object({"name": {"enum": list(signature.output_names)}}, ["name"]),
        "minItems": 1,
        "maxItems": len(signature.outputs),
        "uniqueItems": True,
    }
    properties: dict[str, Schema] = {
        "id": {"type": "string"},
        "inputs": {
            "type": "array",
            "prefixItems": inputs,
            "items": False,
            "minItems": len(inputs),
            "maxItems": len(inputs),
        },
        "outputs": outputs,
    }
    value = {
        "inputs": [
            {"name": name, "datatype": DATATYPES_OF_DTYPES[feature.dtype], "shape": shape, "data": data}
            for name, feature, shape, data in tensors
        ]
    }
    content = {"schema": _object(properties, ["inputs"]), "examples": {"row": {"value": value}}}
    fields = ("model_name", "model_version", "outputs")
    answer = {"schema": {"type": "object", "required": list(fields)}}
    summary = f"Infer with {manifest.name} {manifest.version} (Open Inference Protocol v2; described for one row)"
    return _operation(service, summary, content, answer)


def _feedback_operation(service: Service) -> dict[str, Any]:
    label: Schema = {
        "description": "For classifiers one of the classes, for regressors a number.",
        "anyOf": [
            {"type": "number", "minimum": -_FLOAT64_MAX, "maximum": _FLOAT64_MAX},
            {"type": "boolean"},
            {"type": "string", "maxLength": MOST_CHARACTERS},
        ],
    }
    properties: dict[str, Schema] = {
        "request_id": {
            "type": "string",
            "pattern": f"^{REQUEST_ID.pattern}$",
            "description": "The X-Request-Id of the prediction's answer.",
        },
        "row": {"type": "integer", "minimum": 0, "maximum": MOST_ROW, "default": 0},
        "label": label,
        "observed_at": {
            "type": "string",
            "format": "date-time",
            "description": (
                "When the label was known; not before 1970, nor more than an hour ahead of the server's clock, which "
                "no schema can say. Now, where it isn't given."
            ),
        },
    }
    one = _object(properties, ["request_id", "label"])
    content = {
        "schema": {"anyOf": [one, {"type": "array", "items": one, "minItems": 1, "maxItems": MOST_LABELS}]},
        "examples": {
            "one": {"value": {"request_id": "7f3c", "label": 1, "observed_at": "2026-01-31T12:00:00Z"}},
            "list": {"value": [{"request_id": "7f3c", "row": 1, "label": 0}]},
        },
    }
    count: Schema = {"type": "integer", "minimum": 0}
    unreachable = count | {"description": "Replicas that gave no answer, where there are any."}
    fields = dict.fromkeys(("matched", "duplicate", "unmatched"), count)
    answer = {"schema": _object({**fields, "unreachable": unreachable}, list(fields))}
    return _operation(service, "Say what turned out to be true of rows that were predicted", content, answer)


def _operation(service: Service, summary: str, content: Mapping[str, Any], answer: Mapping[str, Any]) -> dict[str, Any]:
    errors = [code for code in _ERRORS if service.keys is not None or code not in ("401", "403")]
    operation: dict[str, Any] = {
        "summary": summary,
        "requestBody": {"required": True, "content": {_JSON: content}},
        "responses": {"200": {"description": "The answer.", "content": {_JSON: answer}}, **_error_responses(errors)},
    }
    if service.keys is not None:
        operation["security"] = [{"bearer": []}, {"header": []}]
    return operation


def _fixed_paths(service: Service) -> dict[str, Any]:
    """Return the paths that don't depend on the models."""
    guarded: dict[str, Any] = {} if service.keys is None else {"security": [{"bearer": []}, {"header": []}]}
    keys = [] if service.keys is None else ["401", "403"]

    def get(summary: str, media: str = _JSON, errors: tuple[str, ...] = ()) -> dict[str, Any]:
        schema: Schema = {"type": "object"} if media == _JSON else {"type": "string"}
        ok = {"description": "As the summary says.", "content": {media: {"schema": schema}}}
        return {"summary": summary, "responses": {"200": ok, **_error_responses(errors)}}

    return {
        "/": {"get": get("What is served", errors=tuple(keys)) | guarded},
        "/livez": {"get": get("Whether the process answers")},
        "/readyz": {"get": get("Whether all models are loaded, verified, reproduced and warm", errors=("503",))},
        "/metrics": {"get": get("Prometheus metrics of all workers", media="text/plain")},
        "/openapi.json": {"get": get("This document", errors=tuple(keys)) | guarded},
        "/v2": {"get": get("Open Inference Protocol: the server's metadata", errors=tuple(keys)) | guarded},
        "/v2/health/live": {"get": get("Open Inference Protocol: whether the process answers")},
        "/v2/health/ready": {"get": get("Open Inference Protocol: as /readyz", errors=("503",))},
    }


def _error_responses(codes: list[str] | tuple[str, ...]) -> dict[str, Any]:
    content = {_JSON: {"schema": {"$ref": "#/components/schemas/Error"}}}
    return {code: {"description": _ERRORS[code], "content": content} for code in codes}


def _object(properties: dict[str, Schema], required: list[str]) -> Schema:
    schema: Schema = {"type": "object", "properties": properties, "additionalProperties": False}
    return schema | ({"required": required} if required else {})
