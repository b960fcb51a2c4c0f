"""The Open Inference Protocol at a real server: whatever lies about itself is refused, with its place."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from support import Answer, Server

from muelle.bundle import save

PATH = "/v2/models/iris/infer"
ROW = [5.1, 3.5, 1.4, 0.2]
NAMES = ("sepal length (cm)", "sepal width (cm)", "petal length (cm)", "petal width (cm)")
HEADER = "Inference-Header-Content-Length"


def tensor(**changes: Any) -> dict[str, Any]:
    """One row of iris; a change to `...` takes a field away."""
    item: dict[str, Any] = {"name": "x", "shape": [1, 4], "datatype": "FP64", "data": ROW} | changes
    return {key: value for key, value in item.items() if value is not ...}


def inputs(*items: Any, **fields: Any) -> dict[str, Any]:
    return {"inputs": list(items), **fields}


def column(name: str = NAMES[0], **changes: Any) -> dict[str, Any]:
    return tensor(**({"name": name, "shape": [1], "data": [1.0]} | changes))


def columns() -> list[dict[str, Any]]:
    return [column(name, data=[value]) for name, value in zip(NAMES, ROW, strict=True)]


def ask_binary(server: Server, document: Any, data: bytes, length: str | None = None, path: str = PATH) -> Answer:
    """Send JSON with bytes behind it; the header that says where they begin may lie."""
    head = json.dumps(document).encode()
    headers = {"Content-Type": "application/octet-stream", HEADER: str(len(head)) if length is None else length}
    return server.request("POST", path, head + data, headers)


def refusal(answer: Answer, status: int = 400) -> str:
    assert answer.status == status, answer.body
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"]
    assert set(answer.json) == {"error"}
    message = answer.json["error"]
    assert len(message) < 400
    return str(message)


def test_good_requests_are_answered(demo_server: Server) -> None:
    """Or the refusals below would prove nothing."""
    packed = np.array(ROW).tobytes()
    binary = tensor(data=..., parameters={"binary_data_size": len(packed)})
    for answer in (
        demo_server.post(PATH, inputs(tensor())),
        demo_server.post(PATH, inputs(tensor(data=[ROW]))),
        demo_server.post(PATH, inputs(*columns())),
        ask_binary(demo_server, inputs(binary), packed),
    ):
        assert answer.status == 200, answer.body
        outputs = {output["name"]: output["data"] for output in answer.json["outputs"]}
        assert outputs["predict"] == [0]


SHAPES = {
    "too few elements": (tensor(data=ROW[:3]), "inputs[0].data: the shape [1, 4] has 4 elements, the data 3"),
    "too many elements": (tensor(data=ROW * 2), "the shape [1, 4] has 4 elements, the data 8"),
    "no elements": (tensor(data=[]), "the shape [1, 4] has 4 elements, the data 0"),
    "more rows than the shape": (tensor(data=[ROW, ROW]), "inputs[0].data: the shape [1, 4] has 1 rows, the data 2"),
    "fewer rows than the shape": (tensor(shape=[3, 4], data=[ROW, ROW]), "has 3 rows, the data 2"),
    "a row too short": (tensor(shape=[2, 4], data=[ROW, ROW[:3]]), "inputs[0].data[1]: expected a list of 4 elements"),
    "rows as long together": (tensor(shape=[2, 4], data=[ROW[:3], [*ROW, 1]]), "inputs[0].data[0]: expected a list of"),
    "a number among rows": (tensor(shape=[2, 4], data=[ROW, 1]), "inputs[0].data[1]: expected a list of 4"),
    "three levels": (tensor(data=[[ROW]]), "inputs[0].data[0]: expected a list of 4 elements, got 1"),
    "a row among numbers": (tensor(data=[5.1, [3.5, 1.4, 0.2]]), "inputs[0].data"),
    "data of no list": (tensor(data=5.1), "inputs[0].data: expected a list, got 5.1"),
    "data null": (tensor(data=None), "inputs[0].data: expected a list, got null"),
    "data a string": (tensor(data="AAAA"), "inputs[0].data: expected a list"),
    "other columns": (tensor(shape=[2, 2]), "expected 4 features, got 2; in order: sepal length (cm), "),
    "turned round": (tensor(shape=[4, 1]), "inputs[0].shape: expected 4 features"),
    "one dimension": (tensor(shape=[4]), "inputs[0].shape: expected [rows, 4], or a tensor for each feature"),
    "no dimension": (tensor(shape=[]), "expected [rows] or [rows, columns], got 0 dimensions"),
    "three dimensions": (tensor(shape=[1, 1, 4]), "got 3 dimensions"),
    "-1": (tensor(shape=[-1, 4]), "shape[0]: expected a whole number from 0, got -1; -1 stands in metadata only"),
    "a fraction": (tensor(shape=[1.0, 4]), "inputs[0].shape[0]: expected a whole number from 0, got 1.0"),
    "a string as length": (tensor(shape=["1", 4]), 'got "1"'),
    "true as length": (tensor(shape=[True, 4]), "got true"),
    "null as length": (tensor(shape=[None, 4]), "got null"),
    "shape of no list": (tensor(shape="1,4"), "inputs[0].shape: expected [rows]"),
    "no shape": (tensor(shape=...), "inputs[0]: expected the field shape"),
    "no rows": (tensor(shape=[0, 4], data=[]), "inputs[0].shape: expected at least one row, got none"),
}  # fmt: skip


@pytest.mark.parametrize(("item", "message"), SHAPES.values(), ids=SHAPES)
def test_a_shape_must_be_that_of_the_data(demo_server: Server, item: dict[str, Any], message: str) -> None:
    assert message in refusal(demo_server.post(PATH, inputs(item)))


@pytest.mark.parametrize("rows", [5001, 10**6, 2**31, 2**63 - 1])
def test_a_shape_of_too_many_rows_is_413_whatever_the_data(demo_server: Server, rows: int) -> None:
    for item in (tensor(shape=[rows, 4]), tensor(shape=[rows, 4], data=..., parameters={"binary_data_size": 0})):
        message = refusal(demo_server.post(PATH, inputs(item)), 413)
        assert message.startswith("inputs[0].shape: expected at most 5000 rows, got ")


@pytest.mark.parametrize("rows", [2**63, 2**64, 10**30])
def test_a_shape_that_no_memory_has_is_refused(demo_server: Server, rows: int) -> None:
    assert demo_server.post(PATH, inputs(tensor(shape=[rows, 4]))).status in (400, 413)
    assert demo_server.post(PATH, inputs(tensor(shape=[1, rows]))).status == 400


DATATYPES = {
    "an unknown one": (tensor(datatype="FP8"), "inputs[0].datatype: expected one of BOOL, INT8"),
    "numpy's name": (tensor(datatype="float64"), 'got "float64"'),
    "small letters": (tensor(datatype="fp64"), 'got "fp64"'),
    "empty": (tensor(datatype=""), 'got ""'),
    "a number": (tensor(datatype=64), "inputs[0].datatype: expected a string, got 64"),
    "null": (tensor(datatype=None), "inputs[0].datatype: expected a string, got null"),
    "none": (tensor(datatype=...), "inputs[0]: expected the field datatype"),
    "BOOL for numbers": (tensor(datatype="BOOL", data=[True] * 4), "takes numbers (FP, INT or UINT), got BOOL"),
    "BYTES for numbers": (tensor(datatype="BYTES", data=["1"] * 4), "takes numbers (FP, INT or UINT), got BYTES"),
}


@pytest.mark.parametrize(("item", "message"), DATATYPES.values(), ids=DATATYPES)
def test_an_unknown_or_unfit_datatype_is_refused(demo_server: Server, item: dict[str, Any], message: str) -> None:
    assert message in refusal(demo_server.post(PATH, inputs(item)))


VALUES = [
    ("FP64", '"5.1"', 'expected a finite number of FP64, got "5.1"'),
    ("FP64", "true", "expected a finite number of FP64, got true"),
    ("FP64", "null", "expected a number, got "),
    ("FP64", "1e400", "expected a finite number of FP64"),
    ("FP64", "9" * 400, "expected a finite number of FP64"),
    ("FP64", "{}", "got an object"),
    ("FP32", "1e39", "expected a finite number of FP32, got 1e+39"),
    ("FP16", "70000", "expected a finite number of FP16, got 70000"),
    ("INT64", "1.5", "expected an integer of INT64, got 1.5"),
    ("INT64", "9223372036854775808", "expected an integer of INT64"),
    ("INT8", "128", "expected an integer of INT8, got 128"),
    ("UINT8", "-1", "expected an integer of UINT8, got -1"),
    ("UINT64", "18446744073709551616", "expected an integer of UINT64"),
    ("INT32", '"1"', 'expected an integer of INT32, got "1"'),
    ("INT32", "false", "expected an integer of INT32, got false"),
]


@pytest.mark.parametrize(("datatype", "value", "message"), VALUES, ids=[f"{d} {v[:20]}" for d, v, _ in VALUES])
@pytest.mark.parametrize("nested", [False, True], ids=["flat", "nested"])
def test_a_value_that_is_none_of_its_datatype_is_named_by_its_place(
    demo_server: Server, nested: bool, datatype: str, value: str, message: str
) -> None:
    data: list[Any] = [1, 2, "@", 4]
    item = tensor(datatype=datatype, data=[data] if nested else data)
    body = json.dumps(inputs(item)).replace('"@"', value)
    error = refusal(demo_server.request("POST", PATH, body, {"Content-Type": "application/json"}))
    assert error.startswith(f"inputs[0].data{'[0]' if nested else ''}[2]: ")
    assert message in error


@pytest.mark.parametrize("datatype", ["FP16", "FP32", "FP64", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT64"])
def test_every_datatype_of_numbers_is_answered(demo_server: Server, datatype: str) -> None:
    assert demo_server.post(PATH, inputs(tensor(datatype=datatype, data=[5, 3.0, 1, 0]))).status == 200


OUTPUTS = {
    "an unknown one": ([{"name": "proba"}], 'outputs[0].name: expected one of predict, predict_proba, got "proba"'),
    "a second, unknown one": ([{"name": "predict"}, {"name": "x"}], 'outputs[1].name: expected one of'),
    "one twice": ([{"name": "predict"}, {"name": "predict"}], "the output predict is asked for twice"),
    "a name alone": (["predict"], "outputs[0]: expected an object"),
    "no name": ([{}], "outputs[0]: expected the field name"),
    "a number as a name": ([{"name": 0}], "outputs[0].name: expected a string, got 0"),
    "an unknown field": ([{"name": "predict", "shape": [1]}], 'outputs[0]: unknown field "shape"'),
    "no list": ({"name": "predict"}, "outputs: expected a list, got an object"),
    "null": (None, "outputs: expected a list, got null"),
    "binary_data of no flag": ([{"name": "predict", "parameters": {"binary_data": 1}}], "true or false, got 1"),
    "classification": ([{"name": "predict", "parameters": {"classification": 3}}], "classification is not offered"),
    "shared memory": (
        [{"name": "predict", "parameters": {"shared_memory_region": "r"}}],
        "shared_memory_region is not offered here",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("outputs", "message"), OUTPUTS.values(), ids=OUTPUTS)
def test_an_output_that_is_not_there_is_refused(demo_server: Server, outputs: Any, message: str) -> None:
    assert message in refusal(demo_server.post(PATH, inputs(tensor(), outputs=outputs)))


def test_only_the_outputs_asked_for_come_back(demo_server: Server) -> None:
    for names in (["predict"], ["predict_proba"], ["predict_proba", "predict"]):
        answer = demo_server.post(PATH, inputs(tensor(), outputs=[{"name": name} for name in names]))
        assert [output["name"] for output in answer.json["outputs"]] == names


FORMS = {
    "null": (None, "expected an object, got null"),
    "a list": ([tensor()], "expected an object, got a list"),
    "nothing": ({}, "expected the field inputs"),
    "the simple API's": ({"features": [ROW]}, 'unknown field "features"; known are id, parameters, inputs, outputs'),
    "inputs empty": ({"inputs": []}, "inputs: expected a list of one tensor or more"),
    "inputs null": ({"inputs": None}, "inputs: expected a list of one tensor or more, got null"),
    "inputs an object": ({"inputs": tensor()}, "inputs: expected a list of one tensor or more, got an object"),
    "an input of no object": ({"inputs": [ROW]}, "inputs[0]: expected an object, got a list"),
    "an input without a name": (inputs(tensor(name=...)), "inputs[0]: expected the field name"),
    "an input without data": (inputs(tensor(data=...)), "inputs[0]: expected data, or the parameter binary_data_size"),
    "an unknown field in an input": (inputs(tensor(dtype="FP64")), 'inputs[0]: unknown field "dtype"'),
    "an unknown field": (inputs(tensor(), batch=1), 'unknown field "batch"'),
    "id a number": (inputs(tensor(), id=42), "id: expected a string, got 42"),
    "id null": (inputs(tensor(), id=None), "id: expected a string, got null"),
    "parameters a list": (inputs(tensor(), parameters=[]), "parameters: expected an object"),
    "a parameter of no scalar": (inputs(tensor(), parameters={"a": [1]}), "expected a string, a number or a boolean"),
    "binary_data_output of no flag": (
        inputs(tensor(), parameters={"binary_data_output": "yes"}),
        'parameters.binary_data_output: expected true or false, got "yes"',
    ),
    "shared memory": (
        inputs(tensor(data=..., parameters={"shared_memory_region": "r", "shared_memory_byte_size": 32})),
        "shared_memory_region is not offered here",
    ),
    "two of all features": (inputs(tensor(), tensor(name="y")), 'inputs[0].name'),
    "a feature too few": (inputs(*columns()[:3]), "inputs: missing petal width (cm)"),
    "a feature too many": (inputs(*columns(), column("leaf")), 'inputs[4].name: unknown feature "leaf"'),
    "a feature twice": (inputs(*columns(), column()), "inputs[4].name: the feature"),
    "features of unlike rows": (
        inputs(*columns()[:3], column(NAMES[3], shape=[2], data=[1, 2])),
        "inputs[3].shape: expected 1 rows as inputs[0] has, got 2",
    ),
    "a feature of two columns": (
        inputs(*columns()[:3], column(NAMES[3], shape=[1, 2], data=[1, 2])),
        "inputs[3].shape: expected [rows] or [rows, 1] for one feature, got [1, 2]",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("document", "message"), FORMS.values(), ids=FORMS)
def test_a_request_of_another_form_is_refused(demo_server: Server, document: Any, message: str) -> None:
    assert message in refusal(demo_server.post(PATH, document))


NOT_JSON = {
    "empty": (b"", "the body is empty"),
    "words": (b"hello", "the body is not JSON"),
    "NaN": (b'{"inputs":[{"name":"x","shape":[1,1],"datatype":"FP64","data":[NaN]}]}', "NaN is not JSON"),
    "a name twice": (json.dumps(inputs(tensor()))[:-1].encode() + b',"inputs":[]}', 'the name "inputs" stands twice'),
    "a shape twice": (json.dumps(inputs(tensor())).replace('"shape"', '"shape":[9],"shape"').encode(), "stands twice"),
    "half a surrogate pair as id": (json.dumps(inputs(tensor(), id="\ud800")).encode(), "surrogate"),
}


@pytest.mark.parametrize(("body", "message"), NOT_JSON.values(), ids=NOT_JSON)
def test_what_is_not_json_is_refused(demo_server: Server, body: bytes, message: str) -> None:
    assert message in refusal(demo_server.request("POST", PATH, body, {"Content-Type": "application/json"}))


def packed(size: Any, **changes: Any) -> dict[str, Any]:
    return tensor(**({"data": ..., "parameters": {"binary_data_size": size}} | changes))


BYTES = np.array(ROW).tobytes()
SIZES = {
    "less than the shape needs": (packed(24), BYTES[:24], "the shape [1, 4] of FP64 needs 32 bytes, got 24"),
    "more than the shape needs": (packed(40), BYTES + bytes(8), "the shape [1, 4] of FP64 needs 32 bytes, got 40"),
    "another datatype's": (packed(32, datatype="FP32"), BYTES, "the shape [1, 4] of FP32 needs 16 bytes, got 32"),
    "a shape of more": (packed(32, shape=[2, 4]), BYTES, "the shape [2, 4] of FP64 needs 64 bytes, got 32"),
    "more than came": (packed(32), BYTES[:31], "32 bytes, but behind the JSON only 31 are left"),
    "more than any memory": (packed(10**15), BYTES, "bytes, but behind the JSON only 32 are left"),
    "more than 64 bits": (packed(10**30), BYTES, "binary_data_size"),
    "less than came": (packed(32), BYTES + b"?", "1 bytes are left behind the last tensor"),
    "nothing came": (packed(32), b"", "says where the JSON ends"),
    "nought": (packed(0), b"", "needs 32 bytes, got 0"),
    "below nought": (packed(-32), BYTES, "inputs[0].parameters.binary_data_size: expected a number of bytes, got -32"),
    "a fraction": (packed(32.0), BYTES, "expected a number of bytes, got 32.0"),
    "a string": (packed("32"), BYTES, 'expected a number of bytes, got "32"'),
    "true": (packed(True), BYTES, "expected a number of bytes, got true"),
    "data as well": (packed(32, data=ROW), BYTES, "expected either data or the parameter binary_data_size, got both"),
    "bytes without a size": (tensor(), BYTES, "32 bytes are left behind the last tensor"),
    "NaN": (packed(32), np.array([5.1, 3.5, np.nan, 0.2]).tobytes(), "inputs[0].data[2]: expected a number, got NaN"),
    "infinity": (packed(32), np.array([5.1, 3.5, 1.4, -np.inf]).tobytes(), "inputs[0].data[3]: expected a finite"),
}  # fmt: skip


@pytest.mark.parametrize(("item", "data", "message"), SIZES.values(), ids=SIZES)
def test_a_binary_size_that_lies_is_refused(
    demo_server: Server, item: dict[str, Any], data: bytes, message: str
) -> None:
    assert message in refusal(ask_binary(demo_server, inputs(item), data))


def test_sizes_that_make_up_for_each_other_are_refused(demo_server: Server) -> None:
    """All bytes are claimed, but not each tensor's own."""
    items = [column(name, data=..., parameters={"binary_data_size": 8}) for name in NAMES]
    items[0]["parameters"], items[1]["parameters"] = {"binary_data_size": 4}, {"binary_data_size": 12}
    assert "needs 8 bytes, got 4" in refusal(ask_binary(demo_server, inputs(*items), BYTES))


HEADERS = {
    "of no number": ("abc", "expected a number of bytes, got "),
    "below nought": ("-1", "expected a number of bytes, got "),
    "with a sign": ("+10", "expected a number of bytes, got "),
    "with a fraction": ("10.0", "expected a number of bytes, got "),
    "in another script": ("\u0661\u0662".encode().decode("latin-1"), "expected a number of bytes, got "),
    "of 5,000 digits": ("1" * 5000, "expected a number of bytes, got "),
    "beyond the body": ("1000000", "1000000 bytes, but the body has "),
    "nought": ("0", "the body is empty"),
    "inside the JSON": ("20", "the body is not JSON"),
    "behind the JSON": ("+1", "expected a number of bytes"),
}


@pytest.mark.parametrize(("length", "message"), HEADERS.values(), ids=HEADERS)
def test_a_header_length_that_lies_is_refused(demo_server: Server, length: str, message: str) -> None:
    assert message in refusal(ask_binary(demo_server, inputs(packed(32)), BYTES, length))


def test_a_header_length_that_reaches_into_the_tensors_is_refused(demo_server: Server) -> None:
    document = inputs(packed(32))
    length = len(json.dumps(document)) + 5
    assert "not JSON" in refusal(ask_binary(demo_server, document, BYTES, str(length)))


def test_octets_without_the_header_are_415(demo_server: Server) -> None:
    body = json.dumps(inputs(packed(32))).encode() + BYTES
    answer = demo_server.request("POST", PATH, body, {"Content-Type": "application/octet-stream"})
    assert "expected Content-Type: application/json" in refusal(answer, 415)


UNKNOWN = {
    "model": "/v2/models/rose",
    "version": "/v2/models/iris/versions/9",
    "version of an unknown model": "/v2/models/rose/versions/1",
    "a name of no UTF-8": "/v2/models/%ff",
    "a long name": "/v2/models/" + "x" * 2000,
}


@pytest.mark.parametrize("path", UNKNOWN.values(), ids=UNKNOWN)
def test_unknown_models_and_versions_are_404_everywhere(demo_server: Server, path: str) -> None:
    for answer in (
        demo_server.post(f"{path}/infer", inputs(tensor())),
        demo_server.post(f"{path}/infer", "nonsense"),
        demo_server.get(path),
        demo_server.get(f"{path}/ready"),
    ):
        assert refusal(answer, 404).startswith("no ")


@pytest.mark.parametrize(
    "path", ["/v2/nope", "/v2/models/iris/explain", "/v2/models", "/v2/health", "/v2/models/iris/infer/"]
)
def test_unknown_paths_below_v2_are_404(demo_server: Server, path: str) -> None:
    refusal(demo_server.get(path), 404)


def test_wrong_methods_below_v2_are_405(demo_server: Server) -> None:
    refusal(demo_server.get(PATH), 405)
    refusal(demo_server.request("POST", "/v2/models/iris", "{}"), 405)
    refusal(demo_server.request("DELETE", "/v2/models/iris"), 405)


@pytest.fixture(scope="module")
def text_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of one model of texts."""
    texts = ["good day", "bad day", "good night", "bad night"] * 5
    estimator = make_pipeline(CountVectorizer(), LogisticRegression()).fit(texts, ["+", "-"] * 10)
    models: Path = tmp_path_factory.mktemp("text-models")
    save(estimator, texts, name="mood", version="1", repository=models)
    with Server(models, tmp_path_factory.mktemp("text-server"), {"MUELLE_WORKERS": "1"}) as server:
        server.wait_ready()
        yield server


def element(text: bytes, length: int | None = None) -> bytes:
    return struct.pack("<I", len(text) if length is None else length) + text


def mood(data: bytes, rows: int = 2, size: int | None = None) -> tuple[dict[str, Any], bytes]:
    return packed(len(data) if size is None else size, name="text", shape=[rows], datatype="BYTES"), data


TWO = element(b"good day") + element(b"bad day")
TEXTS = {
    "an element that reaches beyond": (mood(element(b"good day") + element(b"bad", 99)), "element 1 of 2 reaches"),
    "a length of 4 GiB": (mood(element(b"good day") + element(b"bad", 2**32 - 1)), "element 1 of 2 reaches beyond"),
    "an element too few": (mood(element(b"good day")), "element 1 of 2 reaches beyond"),
    "half a length": (mood(element(b"good day") + b"\1\0"), "element 1 of 2 reaches beyond"),
    "an element too many": (mood(TWO, rows=1), "end 11 bytes before binary_data_size"),
    "far more rows than bytes": (mood(TWO, rows=50_000), "50000 elements of BYTES need 200000 bytes or more, got"),
    "not UTF-8": (mood(element(b"good day") + element(b"b\xe4d")), "inputs[0].data[1]: expected UTF-8, byte 1"),
    "half a surrogate pair": (mood(element(b"good day") + element(b"\xed\xa0\x80")), "data[1]: expected UTF-8"),
    "nothing": (mood(b""), "2 elements of BYTES need 8 bytes or more, got 0"),
}  # fmt: skip


def test_texts_are_answered(text_server: Server) -> None:
    item, data = mood(TWO)
    answer = ask_binary(text_server, inputs(item, outputs=[{"name": "predict"}]), data, path="/v2/models/mood/infer")
    assert answer.json["outputs"][0]["data"] == ["+", "-"]


@pytest.mark.parametrize(("sent", "message"), TEXTS.values(), ids=TEXTS)
def test_texts_whose_lengths_lie_are_refused(
    text_server: Server, sent: tuple[dict[str, Any], bytes], message: str
) -> None:
    item, data = sent
    assert message in refusal(ask_binary(text_server, inputs(item), data, path="/v2/models/mood/infer"))


@pytest.mark.parametrize("data", [[1], [True], [None], [["a"]], [{}]], ids=["number", "true", "null", "list", "object"])
def test_a_text_that_is_no_string_is_refused(text_server: Server, data: list[Any]) -> None:
    item = tensor(name="text", shape=[1], datatype="BYTES", data=data)
    assert "inputs[0].data" in refusal(text_server.post("/v2/models/mood/infer", inputs(item)))


@pytest.mark.parametrize("datatype", ["FP64", "INT64", "BOOL"])
def test_numbers_for_a_text_are_refused(text_server: Server, datatype: str) -> None:
    item = tensor(name="text", shape=[1], datatype=datatype, data=[1 if datatype != "BOOL" else True])
    assert "takes BYTES, got" in refusal(text_server.post("/v2/models/mood/infer", inputs(item)))
