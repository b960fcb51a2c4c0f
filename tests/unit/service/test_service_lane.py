"""The fast lane answers as Flask's own routes do, only sooner."""

import pytest
from prometheus_client import CollectorRegistry

from service.app import create_app
from service.metrics import Metrics
from service.models import Models
from service.settings import Settings

GOOD = b'{"features": [5.1, 3.5, 1.4, 0.2], "probabilities": true}'
INFER = b'{"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP64", "data": [5.1, 3.5, 1.4, 0.2]}]}'


@pytest.fixture(scope="module")
def app(repository):
    settings = Settings.from_environ({"MUELLE_MODELS": str(repository), "MUELLE_DEFAULT_MODEL": "iris"})
    metrics = Metrics(CollectorRegistry())
    models = Models(settings, metrics)
    models.load()
    return create_app(settings, models, metrics)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/predict", GOOD),
        ("/models/iris/predict", GOOD),
        ("/models/iris/versions/1/predict", GOOD),
        ("/models/iris/predict", b"[1"),
        ("/models/iris/predict", b'{"features": [5.1, 3.5, "a", 0.2]}'),
        ("/v2/models/iris/infer", INFER),
        ("/v2/models/iris/versions/1/infer", INFER),
        ("/v2/models/iris/infer", b"{}"),
    ],
)
def test_both_ways_answer_the_same(app, path, body):
    client = app.test_client()
    quick = client.post(path, data=body, content_type="application/json")
    # With another table in its place, the same request reaches Flask's route.
    lane = app.wsgi_app._app
    known, lane._paths = lane._paths, {"nothing": None}
    try:
        slow = client.post(path, data=body, content_type="application/json")
    finally:
        lane._paths = known
    assert path in known
    assert (quick.status_code, quick.data, quick.content_type) == (slow.status_code, slow.data, slow.content_type)
    assert quick.status_code == (200 if body in (GOOD, INFER) else 400)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/models/iris/predict", 405),
        ("POST", "/models/nobody/predict", 404),
        ("POST", "/models/iris/versions/9/predict", 404),
        ("POST", "/nothing", 404),
        ("GET", "/livez", 200),
    ],
)
def test_all_else_goes_to_flask(app, method, path, status):
    answer = app.test_client().open(path, method=method, data=GOOD, content_type="application/json")
    assert answer.status_code == status
    assert answer.headers["X-Request-Id"]
