"""Answers and metadata of the Open Inference Protocol v2."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from oip_bodies import (
    FRAME,
    MATRIX,
    features,
    matrix,
    read,
)

from muelle import __version__
from muelle.bundle.data import Array
from muelle.bundle.manifest import Manifest, OnnxReport
from muelle.bundle.signature import Output, Signature
from service.protocols.oip import InferRequest, encode, model_metadata, server_metadata


def answer(request: InferRequest, answers: Mapping[str, Array], signature: Signature = MATRIX) -> dict[str, Any]:
    body, length = encode(request, signature, "m", "1", answers)
    assert length is None
    document = json.loads(body, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert isinstance(document, dict)
    return document


ANSWERS = {"predict": np.array([0, 1]), "predict_proba": np.array([[0.75, 0.25], [0.125, 0.875]])}


def test_id_is_echoed_only_when_given() -> None:
    assert answer(read({"id": "42", "inputs": [features()]}), ANSWERS)["id"] == "42"
    assert answer(read({"id": "", "inputs": [features()]}), ANSWERS)["id"] == ""
    assert "id" not in answer(read({"inputs": [features()]}), ANSWERS)


@pytest.mark.parametrize(
    ("outputs", "names"),
    [
        (None, ("predict", "predict_proba")),
        ([], ("predict", "predict_proba")),
        (["predict"], ("predict",)),
        (["predict_proba"], ("predict_proba",)),
        (["predict_proba", "predict"], ("predict_proba", "predict")),
    ],
)
def test_only_the_outputs_asked_for(outputs: list[str] | None, names: tuple[str, ...]) -> None:
    document: dict[str, Any] = {"inputs": [features()]}
    if outputs is not None:
        document["outputs"] = [{"name": name} for name in outputs]
    request = read(document)
    assert request.outputs == names
    assert [output["name"] for output in answer(request, ANSWERS)["outputs"]] == list(names)


def test_an_answer_in_json() -> None:
    assert answer(read({"inputs": [features()]}), ANSWERS) == {
        "model_name": "m",
        "model_version": "1",
        "outputs": [
            {"name": "predict", "shape": [2], "datatype": "INT64", "data": [0, 1]},
            {"name": "predict_proba", "shape": [2, 2], "datatype": "FP64", "data": [0.75, 0.25, 0.125, 0.875]},
        ],
    }


@pytest.mark.parametrize(
    ("everything", "flags", "binary"),
    [
        (None, (None, None), set()),
        (True, (None, None), {"predict", "predict_proba"}),
        (True, (False, None), {"predict_proba"}),
        (False, (None, True), {"predict_proba"}),
        (None, (True, False), {"predict"}),
    ],
)
def test_which_outputs_come_as_bytes(everything: bool | None, flags: tuple[Any, Any], binary: set[str]) -> None:
    names = ("predict", "predict_proba")
    document: dict[str, Any] = {"inputs": [features()]}
    if everything is not None:
        document["parameters"] = {"binary_data_output": everything}
    document["outputs"] = [
        {"name": name, **({} if flag is None else {"parameters": {"binary_data": flag}})}
        for name, flag in zip(names, flags, strict=True)
    ]
    request = read(document)
    assert request.binary == binary
    body, length = encode(request, MATRIX, "m", "1", ANSWERS)
    assert (length is None) == (not binary)
    length = len(body) if length is None else length
    rest = body[length:]
    wire = {"predict": struct.pack("<2q", 0, 1), "predict_proba": struct.pack("<4d", 0.75, 0.25, 0.125, 0.875)}
    for output in json.loads(body[:length])["outputs"]:
        if output["name"] in binary:
            size = output["parameters"]["binary_data_size"]
            assert "data" not in output
            assert rest[:size] == wire[output["name"]]
            rest = rest[size:]
        else:
            assert "parameters" not in output
    assert rest == b""


def test_all_outputs_as_bytes_when_none_is_named() -> None:
    assert read({"parameters": {"binary_data_output": True}, "inputs": [features()]}).binary == set(ANSWERS)


@pytest.mark.parametrize(
    ("dtype", "values", "datatype", "wire"),
    [
        ("string", np.array(["ja", "né"], dtype=object), "BYTES", b"\2\0\0\0ja\3\0\0\0n\xc3\xa9"),
        ("bool", np.array([True, False]), "BOOL", b"\1\0"),
        ("int64", np.array([-1, 2**62]), "INT64", struct.pack("<2q", -1, 2**62)),
        ("float64", np.array([0.1, math.nan]), "FP64", struct.pack("<2d", 0.1, math.nan)),
        ("float64", np.array([[1.0, 2], [3, 4]], order="F"), "FP64", struct.pack("<4d", 1, 2, 3, 4)),
    ],
)
def test_answers_of_every_dtype(dtype: str, values: Array, datatype: str, wire: bytes) -> None:
    signature = Signature("matrix", MATRIX.inputs, (Output("predict", dtype, (-1, *values.shape[1:])),))
    [output] = answer(read({"inputs": [features()]}, signature), {"predict": values}, signature)["outputs"]
    flat = [None if value != value else value for value in values.ravel().tolist()]
    assert output == {"name": "predict", "shape": list(values.shape), "datatype": datatype, "data": flat}

    request = read({"parameters": {"binary_data_output": True}, "inputs": [features()]}, signature)
    body, length = encode(request, signature, "m", "1", {"predict": values})
    assert body[length:] == wire


# --- metadata ---------------------------------------------------------------------------------------------------------


def manifest(signature: Signature) -> Manifest:
    return Manifest(
        name="m",
        version="2",
        created="2025-01-01T00:00:00Z",
        estimator="E",
        task="classification",
        signature=signature,
        engines=("joblib",),
        onnx=OnnxReport(kept=False, reason="none"),
        libraries={},
        files={},
    )


def test_server_metadata() -> None:
    assert server_metadata() == {"name": "muelle", "version": __version__, "extensions": ["binary_tensor_data"]}


def test_metadata_of_a_matrix() -> None:
    assert model_metadata(manifest(MATRIX), ["1", "2"], "onnx") == {
        "name": "m",
        "versions": ["1", "2"],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "features", "datatype": "FP64", "shape": [-1, 3]}],
        "outputs": [
            {"name": "predict", "datatype": "INT64", "shape": [-1]},
            {"name": "predict_proba", "datatype": "FP64", "shape": [-1, 2]},
        ],
    }
    assert model_metadata(manifest(matrix("float32")), ["1"], "joblib")["inputs"][0]["datatype"] == "FP32"


def test_metadata_of_columns() -> None:
    document = model_metadata(manifest(FRAME), ["2"], "joblib")
    assert document["platform"] == "sklearn_joblib"
    assert [(item["name"], item["datatype"]) for item in document["inputs"]] == [
        ("age", "INT64"),
        ("weight", "FP64"),
        ("height", "FP32"),
        ("smoker", "BOOL"),
        ("colour", "BYTES"),
    ]
    assert all(item["shape"] == [-1] for item in document["inputs"])
