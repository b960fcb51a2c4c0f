"""NVIDIA's own client, unmodified, against a real server: each understands what the other sends."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from support import Server
from tritonclient.utils import InferenceServerException

from muelle import __version__
from muelle.bundle.data import Array
from muelle.inference import Predictor

MODELS = ("iris", "breast-cancer", "linear")


@pytest.fixture
def client(demo_server: Server) -> Iterator[Any]:
    with contextlib.closing(triton.InferenceServerClient(demo_server.url.removeprefix("http://"))) as connected:
        yield connected


def predictor(server: Server, model: str) -> Predictor:
    return Predictor.load(server.repository / model / "1")


def sample(loaded: Predictor, rows: int = 7) -> Array:
    """Rows around the middle of the reference profile, so that all of a model's answers occur."""
    medians = [loaded.profile.inputs[name].median or 0.0 for name in loaded.signature.names]
    return np.asarray(medians) * np.random.default_rng(0).uniform(0.5, 1.5, (rows, len(medians)))


def matrix_input(rows: Array, *, binary: bool, datatype: str = "FP64", name: str = "features") -> Any:
    item = triton.InferInput(name, list(rows.shape), datatype)
    item.set_data_from_numpy(rows, binary_data=binary)
    return item


def same(got: Array | None, expected: Array) -> None:
    assert got is not None
    assert got.shape == expected.shape
    assert got.dtype == expected.dtype
    np.testing.assert_allclose(got, expected, rtol=1e-12, atol=0)


def test_the_server_is_live_ready_and_says_what_it_is(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.get_server_metadata() == {
        "name": "muelle",
        "version": __version__,
        "extensions": ["binary_tensor_data"],
    }


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("version", ["", "1"])
def test_a_model_is_ready_and_says_what_it_is(client: Any, demo_server: Server, model: str, version: str) -> None:
    loaded = predictor(demo_server, model)
    assert client.is_model_ready(model, version)
    metadata = client.get_model_metadata(model, version)
    assert metadata["name"] == model
    assert metadata["versions"] == ["1"]
    assert metadata["inputs"] == [{"name": "features", "datatype": "FP64", "shape": [-1, len(loaded.signature.inputs)]}]
    assert [output["name"] for output in metadata["outputs"]] == list(loaded.signature.output_names)


def test_what_is_not_there_is_not_ready(client: Any) -> None:
    assert not client.is_model_ready("nope")
    assert not client.is_model_ready("iris", "99")


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("version", ["", "1"])
@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
def test_answers_equal_those_in_process(
    client: Any, demo_server: Server, model: str, version: str, binary_in: bool, binary_out: bool
) -> None:
    loaded = predictor(demo_server, model)
    rows = sample(loaded)
    wanted = [triton.InferRequestedOutput(name, binary_data=binary_out) for name in loaded.signature.output_names]
    result = client.infer(
        model, [matrix_input(rows, binary=binary_in)], version, outputs=wanted, request_id="request 42"
    )
    response = result.get_response()
    assert (response["model_name"], response["model_version"], response["id"]) == (model, "1", "request 42")
    same(result.as_numpy("predict"), loaded.predict(rows))
    if "predict_proba" in loaded.signature.output_names:
        same(result.as_numpy("predict_proba"), loaded.predict_proba(rows))


@pytest.mark.parametrize(
    "wanted",
    [
        None,
        {"predict": True},
        {"predict": False},
        {"predict_proba": True},
        {"predict_proba": False},
        {"predict_proba": True, "predict": False},
        {"predict": True, "predict_proba": False},
    ],
)
def test_exactly_the_outputs_asked_for(client: Any, demo_server: Server, wanted: dict[str, bool] | None) -> None:
    loaded = predictor(demo_server, "breast-cancer")
    rows = sample(loaded)
    outputs = wanted and [triton.InferRequestedOutput(name, binary_data=flag) for name, flag in wanted.items()]
    result = client.infer("breast-cancer", [matrix_input(rows, binary=True)], outputs=outputs)
    response = result.get_response()
    assert "id" not in response
    # The client asks for everything as bytes when it names no output.
    expected = wanted or {"predict": True, "predict_proba": True}
    assert {item["name"]: "binary_data_size" in item.get("parameters", {}) for item in response["outputs"]} == expected
    for name in ("predict", "predict_proba"):
        if name in expected:
            same(result.as_numpy(name), getattr(loaded, name)(rows))
        else:
            assert result.as_numpy(name) is None


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize(
    ("datatype", "dtype"), [("FP64", np.float64), ("FP32", np.float32), ("INT64", np.int64), ("UINT8", np.uint8)]
)
def test_numbers_of_other_datatypes(
    client: Any, demo_server: Server, datatype: str, dtype: type[np.generic], binary: bool
) -> None:
    loaded = predictor(demo_server, "iris")
    rows = np.array([[5, 3, 1, 0], [7, 3, 5, 2]], dtype=dtype)
    result = client.infer("iris", [matrix_input(rows, binary=binary, datatype=datatype)])
    same(result.as_numpy("predict"), loaded.predict(rows.astype(np.float64)))


@pytest.mark.parametrize("shape", [(7,), (7, 1)])
def test_a_tensor_for_each_feature(client: Any, demo_server: Server, shape: tuple[int, ...]) -> None:
    loaded = predictor(demo_server, "iris")
    rows = sample(loaded)
    inputs = [
        matrix_input(rows[:, i].reshape(shape), binary=bool(i % 2), name=name)
        for i, name in enumerate(loaded.signature.names)
    ]
    same(client.infer("iris", inputs[::-1]).as_numpy("predict"), loaded.predict(rows))


def test_a_thousand_rows(client: Any, demo_server: Server) -> None:
    loaded = predictor(demo_server, "breast-cancer")
    rows = sample(loaded, 1000)
    same(client.infer("breast-cancer", [matrix_input(rows, binary=True)]).as_numpy("predict"), loaded.predict(rows))


def test_a_gzipped_request_is_understood(client: Any, demo_server: Server) -> None:
    loaded = predictor(demo_server, "iris")
    rows = sample(loaded)
    result = client.infer("iris", [matrix_input(rows, binary=True)], request_compression_algorithm="gzip")
    same(result.as_numpy("predict"), loaded.predict(rows))


def test_another_compression_is_refused(client: Any) -> None:
    inputs = [matrix_input(np.ones((1, 4)), binary=True)]
    status, message = refused(client, "iris", inputs, request_compression_algorithm="deflate")
    assert status == "415"
    assert "deflate" in message


def refused(client: Any, model: str, inputs: list[Any], **more: Any) -> tuple[str, str]:
    with pytest.raises(InferenceServerException) as caught:
        client.infer(model, inputs, **more)
    return caught.value.status(), caught.value.message()


@pytest.mark.parametrize("binary", [True, False])
def test_faults_come_as_the_client_s_exception(client: Any, binary: bool) -> None:
    rows = np.array([[5.1, 3.5, 1.4, 0.2]])
    good = [matrix_input(rows, binary=binary)]
    assert refused(client, "nope", good)[0] == "404"
    assert refused(client, "iris", good, model_version="99")[0] == "404"

    status, message = refused(client, "iris", good, outputs=[triton.InferRequestedOutput("nope")])
    assert status == "400"
    assert message.startswith("outputs[0].name: expected one of predict, predict_proba")

    status, message = refused(client, "iris", [matrix_input(rows[:, :3], binary=binary)])
    assert status == "400"
    assert message.startswith("inputs[0].shape: expected 4 features, got ")

    status, message = refused(client, "iris", [matrix_input(np.array([[5.1, 3.5, 1.4, np.nan]]), binary=binary)])
    assert status == "400"

    status, message = refused(
        client, "iris", good, outputs=[triton.InferRequestedOutput("predict_proba", class_count=2)]
    )
    assert status == "400"
    assert "classification is not offered" in message

    status, _ = refused(client, "iris", [matrix_input(np.zeros((5001, 4)), binary=binary)])
    assert status == "413"


def test_a_model_that_is_not_there_has_no_metadata(client: Any) -> None:
    with pytest.raises(InferenceServerException) as caught:
        client.get_model_metadata("nope")
    assert caught.value.status() == "404"
