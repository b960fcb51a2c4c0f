"""Thousands of generated bodies at a real server: never a 5xx, never silence, always an answer of the contract's form.

Half of them are one or two steps away from a good request, the rest is any JSON, any text, any bytes.
"""

from __future__ import annotations

import contextlib
import gzip
import http.client
import json
import shutil
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.compose import make_column_transformer
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from support import Server

from muelle.bundle import save

#: Longer than any answer may take here: what takes as long is a hang.
SILENCE_SECONDS = 10.0
GENERATED = settings(
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large],
)

IRIS = [5.1, 3.5, 1.4, 0.2]
HOME = {"size": "S", "city": "Vigo", "rooms": 1, "garden": True, "area": 50.0}
NAMES = ("sepal length (cm)", "sepal width (cm)", "petal length (cm)", "petal width (cm)")
SIMPLE: dict[str, list[Any]] = {
    "iris": [
        {"features": IRIS},
        {"input": [IRIS, IRIS]},
        {"features": [IRIS], "probabilities": True},
        {"features": dict(zip(NAMES, IRIS, strict=True))},
        {"features": [IRIS] * 450},
    ],
    "homes": [
        {"features": HOME},
        {"features": [HOME, HOME | {"area": None}], "probabilities": True},
        {"input": [list(HOME.values())] * 2},
    ],
    "mood": [{"features": ["good day"]}, {"input": [["bad day"], ["good night"]]}, {"features": {"text": "bad"}}],
}


def tensor(name: str, datatype: str, *data: Any, **fields: Any) -> dict[str, Any]:
    return {"name": name, "shape": [len(data)], "datatype": datatype, "data": list(data), **fields}


OIP: dict[str, list[Any]] = {
    "iris": [
        {"id": "1", "inputs": [tensor("x", "FP64", *IRIS, shape=[1, 4])], "outputs": [{"name": "predict"}]},
        {"inputs": [tensor("x", "FP32", IRIS, IRIS, shape=[2, 4])], "parameters": {"binary_data_output": True}},
        {"inputs": [tensor(name, "FP64", value) for name, value in zip(NAMES, IRIS, strict=True)]},
    ],
    "homes": [
        {
            "inputs": [
                tensor("size", "BYTES", "S", "L"),
                tensor("city", "BYTES", "Vigo", "Palma"),
                tensor("rooms", "INT64", 1, 2),
                tensor("garden", "BOOL", True, False),
                tensor("area", "FP64", 50.0, None),
            ],
            "outputs": [{"name": "predict_proba", "parameters": {"binary_data": False}}, {"name": "predict"}],
        }
    ],
    "mood": [{"inputs": [tensor("text", "BYTES", "good day", "bad day")]}],
}


@dataclass
class Line:
    """One kept-alive connection; opened anew when the server has closed it."""

    server: Server
    connection: http.client.HTTPConnection

    def check(self, path: str, body: bytes, headers: dict[str, str]) -> int:
        """Send one body, and check what comes back whatever it was; return the status."""
        self.connection.request("POST", path, body, headers)
        response = self.connection.getresponse()
        data = response.read()
        assert response.status in (200, 400, 413, 415), (response.status, data)
        assert response.headers["X-Request-Id"]
        if response.status == 200:
            length = response.headers["Inference-Header-Content-Length"]
            document = json.loads(data if length is None else data[: int(length)])
            assert isinstance(document, dict)
            assert document.keys() & {"prediction", "predictions", "output", "outputs"}
            return 200
        document = json.loads(data)
        assert set(document) == ({"error"} if path.startswith("/v2") else {"error", "code"})
        assert all(isinstance(text, str) and text for text in document.values())
        assert len(document["error"]) < 2000
        return response.status


@pytest.fixture(scope="module")
def line(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Line]:
    """A server of a matrix, a table and a text."""
    folder = tmp_path_factory.mktemp("generated")
    models = folder / "models"
    shutil.copytree(repository / "iris", models / "iris")
    frame = pd.DataFrame(
        {
            "size": pd.Categorical(["S", "M", "L", "M"] * 10, categories=["S", "M", "L"]),
            "city": ["Vigo", "Palma", "Cádiz", "Vigo"] * 10,
            "rooms": [1, 2, 3, 4] * 10,
            "garden": [True, False, False, True] * 10,
            "area": [50.0, None, 80.0, 30.5] * 10,
        }
    )
    transform = make_column_transformer(
        (OneHotEncoder(), ["size", "city"]), (SimpleImputer(), ["area"]), remainder="passthrough"
    )
    homes = make_pipeline(transform, LogisticRegression(max_iter=1000)).fit(frame, ["cheap", "dear"] * 20)
    save(homes, frame, name="homes", version="1", repository=models)
    texts = ["good day", "bad day", "good night", "bad night"] * 5
    mood = make_pipeline(CountVectorizer(), LogisticRegression()).fit(texts, ["+", "-"] * 10)
    save(mood, texts, name="mood", version="1", repository=models)
    with Server(models, folder, {"MUELLE_WORKERS": "1", "MUELLE_MAX_ROWS": "1000"}) as server:
        server.wait_ready()
        workers = server.workers()
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=SILENCE_SECONDS)
        with contextlib.closing(connection):
            yield Line(server, connection)
        assert server.workers() == workers
    assert [entry for entry in server.log() if entry["level"] in ("error", "critical")] == []


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-2, 5),
    st.integers(-(10**40), 10**40),
    st.floats(),
    st.text(max_size=5),
    st.sampled_from(
        ["S", "Vigo", "", "1", "NaN", "FP64", "BYTES", "INT8", "BOOL", "predict", "\ud800", "\x00", "é" * 30]
    ),
)
FIELDS = ("features", "input", "probabilities", "inputs", "outputs", "id", "parameters", "name", "shape", "datatype")
keys = st.sampled_from(
    [*FIELDS, "data", "binary_data_size", "binary_data_output", "size", "area", "text", "", ":", *NAMES]
)
values: st.SearchStrategy[Any] = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4), max_leaves=8
)


def places(value: Any) -> list[tuple[Any, Any]]:
    """Return every (container, key) of a document."""
    found: list[tuple[Any, Any]] = []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        found.append((value, key))
        # Of hundreds of rows the first few say it all.
        if not (isinstance(value, list) and key > 3):
            found += places(item)
    return found


@st.composite
def near_documents(draw: st.DrawFn, good: list[Any]) -> Any:
    """A good request, and up to three changes at any depth."""
    document = deepcopy(draw(st.sampled_from(good)))
    for _ in range(draw(st.integers(0, 3))):
        container, key = draw(st.sampled_from(places(document) or [([None], 0)]))
        action = draw(st.sampled_from(["replace", "delete", "add", "wrap", "repeat"]))
        if action == "replace":
            container[key] = draw(values)
        elif action == "delete":
            del container[key]
        elif action == "wrap":
            container[key] = [container[key]]
        elif action == "repeat" and isinstance(container[key], list):
            container[key] = container[key] * draw(st.integers(0, 3))
        elif isinstance(container, dict):
            container[draw(keys)] = draw(values)
        else:
            container.insert(key, draw(values))
    return document


@st.composite
def near_texts(draw: st.DrawFn, good: list[Any]) -> bytes:
    """A good request's bytes with a few cut out, put in, or doubled."""
    data = json.dumps(draw(near_documents(good)), ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass")
    for _ in range(draw(st.integers(0, 2))):
        start = draw(st.integers(0, min(len(data), 300)))
        end = start + draw(st.integers(0, 6))
        tokens = [
            b"",
            b'"',
            b"[",
            b"]",
            b"{",
            b"}",
            b",",
            b":",
            b"1e400",
            b"NaN",
            b"null",
            b"true",
            b"-0",
            b"\xff",
            b"\\u",
        ]
        data = data[:start] + draw(st.sampled_from([*tokens, data[start:end] * 2])) + data[end:]
    return data


def bodies(good: list[Any]) -> st.SearchStrategy[bytes]:
    """Any kind of body; the better ones more often."""
    dumped = (near_documents(good) | values).map(lambda document: json.dumps(document).encode())
    return st.one_of(
        near_texts(good),
        near_texts(good),
        dumped,
        st.binary(max_size=200),
        st.text().map(lambda t: t.encode("utf-8", "replace")),
    )


@st.composite
def requests(draw: st.DrawFn, good: list[Any]) -> tuple[bytes, dict[str, str]]:
    """A body and its headers, which now and then claim what isn't so."""
    body = draw(bodies(good))
    headers = {"Content-Type": "application/json"}
    oddity = draw(st.integers(0, 30))
    if oddity == 0:
        headers["Content-Encoding"] = "gzip"
    elif oddity == 1:
        headers["Content-Encoding"] = "gzip"
        body = gzip.compress(body, 1)
        body = body[: draw(st.integers(0, len(body)))]
    elif oddity == 2:
        headers["Content-Type"] = draw(st.sampled_from(["", "text/plain", "application/octet-stream", "x"]))
    return body, headers


@pytest.mark.parametrize(("model", "examples"), [("iris", 1500), ("homes", 500), ("mood", 200)])
def test_the_simple_api_answers_whatever_comes(line: Line, model: str, examples: int) -> None:
    seen: set[int] = set()

    @settings(GENERATED, max_examples=examples)
    @given(request=requests(SIMPLE[model]))
    def generated(request: tuple[bytes, dict[str, str]]) -> None:
        seen.add(line.check(f"/models/{model}/predict", *request))

    generated()
    # Neither all good nor all bad: the bodies are where the decisions are.
    assert seen >= {200, 400}


@pytest.mark.parametrize(("model", "examples"), [("iris", 1500), ("homes", 500), ("mood", 200)])
def test_the_open_inference_protocol_answers_whatever_comes(line: Line, model: str, examples: int) -> None:
    seen: set[int] = set()

    @settings(GENERATED, max_examples=examples)
    @given(request=requests(OIP[model]))
    def generated(request: tuple[bytes, dict[str, str]]) -> None:
        seen.add(line.check(f"/v2/models/{model}/infer", *request))

    generated()
    assert seen >= {200, 400}


@st.composite
def binary_requests(draw: st.DrawFn) -> tuple[bytes, dict[str, str]]:
    """Tensors as bytes, whose shape, datatype, size and header each may lie."""
    mostly = st.integers(0, 6)
    datatype = draw(st.sampled_from(["FP64"] * 4 + ["FP32", "FP16", "INT64", "INT8", "UINT8", "BOOL", "BYTES"]))
    rows = draw(st.integers(1, 3))
    shape: list[Any] = [rows, 4] if draw(mostly) else draw(st.lists(st.integers(-2, 2**65) | scalars, max_size=3))
    if datatype == "BYTES":
        data = b"".join(len(text).to_bytes(4, "little") + text for text in [b"5.1"] * (rows * 4))
    else:
        dtype = {"FP64": "f8", "FP32": "f4", "FP16": "f2", "INT64": "i8", "INT8": "i1", "UINT8": "u1", "BOOL": "?"}
        data = np.ones(rows * 4, dtype[datatype]).tobytes()
    if not draw(mostly):
        data = draw(st.binary(max_size=100))
    size: Any = len(data) if draw(mostly) else draw(st.integers(-1, 200) | scalars)
    document = {
        "inputs": [{"name": "x", "shape": shape, "datatype": datatype, "parameters": {"binary_data_size": size}}],
        "parameters": {"binary_data_output": draw(st.booleans())},
    }
    if not draw(mostly):
        document = draw(near_documents([document]))
    head = json.dumps(document).encode()
    length = str(len(head)) if draw(mostly) else draw(st.integers(-1, 400).map(str) | st.sampled_from(["", "x", "1e2"]))
    return head + data, {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": length}


def test_binary_tensors_are_answered_whatever_they_say_of_themselves(line: Line) -> None:
    seen: set[int] = set()

    @settings(GENERATED, max_examples=700)
    @given(request=binary_requests())
    def generated(request: tuple[bytes, dict[str, str]]) -> None:
        seen.add(line.check("/v2/models/iris/infer", *request))

    generated()
    assert seen >= {200, 400}
