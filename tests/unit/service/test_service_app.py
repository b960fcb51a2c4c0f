"""The application as Flask's test client sees it: statuses, forms of errors, keys, shedding, what needs no model."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from prometheus_client import CollectorRegistry

from muelle import __version__
from muelle.errors import SettingsError
from service.app import Service, create_app, start, stop
from service.auth import new_key
from service.metrics import Metrics
from service.models import Models
from service.settings import Settings

ROW = {"features": [5.1, 3.5, 1.4, 0.2]}
JSON = "application/json"


class App:
    """An application with its parts."""

    def __init__(self, settings: Settings, *, load: bool = True) -> None:
        self.registry = CollectorRegistry()
        self.metrics = Metrics(self.registry)
        self.models = Models(settings, self.metrics)
        if load:
            self.models.load()
        self.app = create_app(settings, self.models, self.metrics)
        self.service: Service = self.app.extensions["muelle"]
        self.client: FlaskClient = self.app.test_client()

    def post(self, path: str, document: Any, **headers: str) -> Any:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.client.post(path, data=json.dumps(document), content_type=JSON, headers=named)


@pytest.fixture(scope="module")
def make(repository: Path) -> Callable[..., App]:
    def app(*, load: bool = True, **settings: Any) -> App:
        return App(Settings(**{"models": (repository,), "access_log": False} | settings), load=load)

    return app


@pytest.fixture(scope="module")
def app(make: Callable[..., App]) -> App:
    return make(default_model="iris")


def test_the_status_page_tells_what_is_served(app: App) -> None:
    answer = app.client.get("/")
    document = answer.get_json()
    assert (document["name"], document["version"], document["status"]) == ("muelle", __version__, "ready")
    assert document["model"] == {"name": "iris", "version": "1"}
    assert [model["name"] for model in document["models"]] == ["breast-cancer", "iris", "linear"]
    iris = document["models"][1]
    assert iris["predict"] == "/models/iris/versions/1/predict"
    assert len(iris["features"]) == 4
    assert app.post(iris["predict"], ROW).get_json() == {"prediction": 0}
    for link in document["links"].values():
        assert app.client.get(link).status_code == (405 if link in ("/predict", "/feedback") else 200)
    assert "Set-Cookie" not in answer.headers


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing", 404, "not_found"),
        ("GET", "/models/iris", 404, "not_found"),
        ("GET", "/predict", 405, "method_not_allowed"),
        ("DELETE", "/livez", 405, "method_not_allowed"),
        ("POST", "/models/rose/predict", 404, "not_found"),
        ("POST", "/models/iris/versions/2/predict", 404, "not_found"),
    ],
)
def test_errors_of_the_simple_api_say_where_and_what(app: App, method: str, path: str, status: int, code: str) -> None:
    answer = app.client.open(path, method=method, data=json.dumps(ROW), content_type=JSON)
    assert (answer.status_code, answer.content_type) == (status, JSON)
    document = answer.get_json()
    assert document.keys() == {"error", "code"}
    assert document["code"] == code
    assert ("Allow" in answer.headers) == (status == 405)


@pytest.mark.parametrize(
    "path", ["/v2/nothing", "/v2/models/rose", "/v2/models/iris/versions/2", "/v2/models/iris/infer"]
)
def test_errors_of_the_open_inference_protocol_have_one_field(app: App, path: str) -> None:
    answer = app.client.get(path)
    assert answer.status_code == (405 if path.endswith("infer") else 404)
    assert answer.get_json().keys() == {"error"}


def test_the_body_is_read_as_its_headers_say(app: App) -> None:
    data = json.dumps(ROW).encode()

    def status(body: bytes, **headers: str) -> int:
        return app.client.post(
            "/predict", data=body, headers={k.replace("_", "-"): v for k, v in headers.items()}
        ).status_code

    assert status(data) == 200
    assert status(data, Content_Type="application/vnd.any+json; charset=utf-8") == 200
    assert status(data, Content_Type="text/plain") == 415
    assert status(gzip.compress(data), Content_Encoding="gzip") == 200
    assert status(gzip.compress(data)[:-4], Content_Encoding="gzip") == 400
    assert status(data, Content_Encoding="br") == 415
    assert status(b"", Content_Type=JSON) == 400


def test_limits_are_told_before_anything_is_done(make: Callable[..., App]) -> None:
    small = make(default_model="iris", max_body_bytes=100, max_rows=2)
    assert small.post("/predict", {"features": [ROW["features"]] * 2}).status_code == 200
    rows = small.post("/predict", {"features": [[1, 2, 3, 4]] * 3})
    assert (rows.status_code, rows.get_json()["code"]) == (413, "too_many_rows")
    large = small.post("/predict", {"features": [1.23456789] * 10})
    assert (large.status_code, large.get_json()["code"]) == (413, "body_too_large")


def test_a_request_id_comes_back_and_no_other_text_does(app: App) -> None:
    assert app.client.get("/livez", headers={"X-Request-Id": "abc-1"}).headers["X-Request-Id"] == "abc-1"
    assert app.client.get("/nothing", headers={"X-Request-Id": "a b"}).headers["X-Request-Id"] != "a b"


def test_too_many_waiting_requests_are_shed_and_probes_are_not(make: Callable[..., App]) -> None:
    shedding = make(default_model="iris", max_concurrency=1)
    pressure = shedding.service.pressure
    pressure.begin(pressure.let_in())
    assert shedding.post("/predict", ROW).status_code == 200
    pressure.begin(pressure.let_in())
    for path in ("/predict", "/models/iris/predict", "/models/rose/predict"):
        answer = shedding.post(path, ROW)
        assert (answer.status_code, answer.get_json()["code"], answer.headers["Retry-After"]) == (
            503,
            "overloaded",
            "1",
        )
    infer = shedding.post("/v2/models/iris/infer", {})
    assert (infer.status_code, infer.get_json().keys()) == (503, {"error"})
    for path in ("/livez", "/readyz", "/metrics", "/", "/v2", "/v2/health/live", "/v2/health/ready", "/openapi.json"):
        assert shedding.client.get(path).status_code == 200
    assert shedding.registry.get_sample_value("muelle_shed_total", {"reason": "concurrency"}) == 4
    pressure.let_out()
    pressure.begin(pressure.let_in())
    assert shedding.post("/predict", ROW).status_code == 200


def test_keys_guard_all_but_probes_and_metrics(make: Callable[..., App], tmp_path: Path) -> None:
    key, line = new_key("alice")
    (tmp_path / "keys").write_text(line + "\n")
    guarded = make(default_model="iris", api_keys_file=tmp_path / "keys")
    for path in ("/livez", "/readyz", "/metrics", "/v2/health/live", "/v2/health/ready", "/v2/models/iris/ready"):
        assert guarded.client.get(path).status_code == 200
    for path in ("/", "/openapi.json", "/v2", "/v2/models/iris"):
        missing = guarded.client.get(path)
        assert missing.status_code == 401
        assert missing.headers["WWW-Authenticate"].startswith("Bearer")
        assert guarded.client.get(path, headers={"X-API-Key": "wrong"}).status_code == 403
        assert guarded.client.get(path, headers={"X-API-Key": key}).status_code == 200
    for path in ("/predict", "/models/iris/predict", "/models/rose/predict", "/v2/models/iris/infer"):
        assert guarded.post(path, ROW).status_code == 401
        assert guarded.post(path, ROW, X_API_Key="wrong").status_code == 403
    assert guarded.post("/predict", ROW, Authorization=f"Bearer {key}").status_code == 200


def test_keys_that_cannot_be_read_stop_the_start(make: Callable[..., App], tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="keys can't be read"):
        make(api_keys_file=tmp_path / "keys")


def test_nothing_is_ready_before_it_has_loaded(make: Callable[..., App]) -> None:
    loading = make(load=False)
    for path in ("/readyz", "/v2/health/ready"):
        answer = loading.client.get(path)
        assert answer.status_code == 503
        assert answer.headers["Retry-After"] == "1"
        assert answer.get_json() == {
            "status": "not ready",
            "error": "loading",
            "code": "not_ready",
            "reasons": ["loading"],
        }
    assert loading.client.get("/livez").status_code == 200
    assert loading.client.get("/").get_json()["status"] == "not ready"
    for path in ("/predict", "/models/iris/predict", "/v2/models/iris/infer"):
        assert loading.post(path, ROW).status_code == 503
    # The paths that the fast lane knows were learnt too early to know any; now there are some.
    loading.models.load()
    assert loading.post("/models/iris/predict", ROW).status_code == 200
    assert loading.client.get("/readyz").status_code == 200


def test_a_failure_of_the_model_tells_nothing_of_its_insides(
    make: Callable[..., App], caplog: pytest.LogCaptureFixture
) -> None:
    failing = make(default_model="iris")
    predictor = failing.models.get("iris", None).ready_predictor()

    def run(*_: object) -> Any:
        raise ZeroDivisionError("secret of the model")

    predictor.run = run
    answer = failing.post("/predict", ROW, X_Request_Id="mine")
    assert (answer.status_code, answer.get_json()) == (500, {"error": "internal error", "code": "internal"})
    (record,) = caplog.records
    assert record.__dict__["request_id"] == "mine"
    assert record.exc_info is not None
    failing.metrics.flush()
    labels = {"model": "iris", "version": "1", "protocol": "simple", "code": "500"}
    assert failing.registry.get_sample_value("muelle_requests_total", labels) == 1
    assert failing.registry.get_sample_value("muelle_requests_in_progress", {"model": "iris", "version": "1"}) == 0


def test_a_worker_starts_and_stops_its_background_work(
    make: Callable[..., App], capfd: pytest.CaptureFixture[str]
) -> None:
    made = make(default_model="iris", access_log=True, load=False)
    start(made.app)
    made.models.wait()
    assert made.post("/predict", ROW, X_Request_Id="first").status_code == 200
    stop(made.app)
    stop(made.app)
    line = json.loads(capfd.readouterr().out)
    assert (line["request_id"], line["model"], line["status"]) == ("first", "iris", 200)
    labels = {"model": "iris", "version": "1", "protocol": "simple", "code": "200"}
    assert made.registry.get_sample_value("muelle_requests_total", labels) == 1
