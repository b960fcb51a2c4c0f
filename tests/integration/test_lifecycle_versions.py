"""Which model and version answers: several of them in one folder, and a folder that is a single bundle."""

from __future__ import annotations

from pathlib import Path

from lifecycle import EIGHT, FOUR, OPERATOR, factor_bundle, scrape, wait_loads
from support import Server


def test_the_newest_version_answers_and_a_default_model_can_be_set(tmp_path: Path) -> None:
    models = tmp_path / "models"
    for version, factor in {"2": 2.0, "10": 10.0, "1.9": 1.9, "1.10": 1.1}.items():
        factor_bundle(models, name="a", version=version, factor=factor)
    factor_bundle(models, name="b", factor=5.0)
    # What isn't a model: a killed writer's folder, notes, and a model without versions.
    (models / "a" / ".tmp-3").mkdir()
    (models / "notes.txt").write_text("hello")
    (models / "empty").mkdir()
    with Server(models, tmp_path, OPERATOR | {"MUELLE_WORKERS": "1"}) as server:
        server.wait_ready()
        assert server.post("/models/a/predict", FOUR).json == {"prediction": 40.0}
        assert server.post("/models/b/predict", FOUR).json == {"prediction": 20.0}
        for version, answer in {"2": 8.0, "10": 40.0, "1.9": 7.6, "1.10": 4.4}.items():
            path = f"/models/a/versions/{version}"
            assert server.post(f"{path}/predict", FOUR).json == {"prediction": answer}
            infer = server.post(f"/v2{path}/infer", oip_request()).json
            assert (infer["model_version"], infer["outputs"][0]["data"]) == (version, [answer])
        assert server.post("/v2/models/a/infer", oip_request()).json["model_version"] == "10"
        assert server.get("/v2/models/a").json["versions"] == ["1.9", "1.10", "2", "10"]
        unnamed = server.post("/predict", FOUR)
        assert (unnamed.status, unnamed.json["code"]) == (404, "not_found")
        assert "several models are served (a, b)" in unnamed.json["error"]
        unknown = server.post("/models/c/predict", FOUR)
        assert (unknown.status, unknown.json["error"]) == (404, "no model 'c'; there is a, b")
        status = server.get("/").json
        assert status["model"] is None
        assert [(m["name"], m["version"]) for m in status["models"]] == [
            ("a", "1.9"),
            ("a", "1.10"),
            ("a", "2"),
            ("a", "10"),
            ("b", "1"),
        ]
        assert server.stop() == 0
    with Server(models, tmp_path, OPERATOR | {"MUELLE_WORKERS": "1", "MUELLE_DEFAULT_MODEL": "b"}) as server:
        server.wait_ready()
        assert server.post("/predict", FOUR).json == {"prediction": 20.0}
        assert server.get("/").json["model"] == {"name": "b", "version": "1"}


def test_a_default_model_that_is_not_there_is_told(repository: Path, tmp_path: Path) -> None:
    settings = {"MUELLE_DEFAULT_MODEL": "rose", "MUELLE_WORKERS": "1"}
    with Server(repository, tmp_path, settings) as server:
        server.wait_answering()
        wait_loads(server, 3)
        unready = server.get("/readyz")
        assert unready.status == 503
        assert unready.json["reasons"] == [
            "MUELLE_DEFAULT_MODEL: no model 'rose'; there is breast-cancer, iris, linear"
        ]
        assert server.post("/models/linear/predict", FOUR).status == 200


def test_only_what_is_pinned_is_served_and_told_about(tmp_path: Path) -> None:
    models = tmp_path / "models"
    for version, factor in {"1": 2.0, "2": 3.0}.items():
        factor_bundle(models, name="a", version=version, factor=factor)
    factor_bundle(models, name="b")
    (models / "default-model").write_text("b\n")
    settings = OPERATOR | {
        "MUELLE_MODELS": f"{tmp_path}/nowhere:{models}",
        "MUELLE_SERVE": "a@1",
        "MUELLE_WORKERS": "1",
    }
    with Server(models, tmp_path, settings) as server:
        server.wait_ready()
        for path in ("/predict", "/models/a/predict", "/models/a/versions/1/predict"):
            assert server.post(path, FOUR).json == EIGHT
        assert server.post("/v2/models/a/infer", oip_request()).json["model_version"] == "1"
        for path in ("/models/a/versions/2/predict", "/models/b/predict", "/v2/models/b/infer"):
            assert server.post(path, FOUR).status == 404
        assert server.get("/v2/models/a").json["versions"] == ["1"]
        status = server.get("/").json
        assert status["model"] == {"name": "a", "version": "1"}
        assert [(m["name"], m["version"]) for m in status["models"]] == [("a", "1")]
        paths = [path for path in server.get("/openapi.json").json["paths"] if path.startswith(("/models", "/v2/mod"))]
        assert len(paths) == 4
        assert all("/a" in path and "/2" not in path for path in paths)
        loaded = [dict(labels) for (name, labels) in scrape(server) if name == "muelle_model_info"]
        assert [(labels["model"], labels["version"]) for labels in loaded] == [("a", "1")]
        assert server.stop() == 0
    with Server(models, tmp_path, settings | {"MUELLE_SERVE": "a@3,b"}) as server:
        server.wait_for(lambda: "loading" not in str(server.get("/readyz").json["reasons"]), "a reason")
        unready = server.get("/readyz")
        assert (unready.status, unready.json["reasons"]) == (
            503,
            [f"a 3: named by MUELLE_SERVE, but not in {models}; there is a 1, 2"],
        )
        assert server.post("/models/a/predict", FOUR).status == 503
        # b is served, and the default that the repository names.
        assert server.post("/predict", FOUR).json == EIGHT
        assert server.stop() == 0


def test_a_folder_that_is_a_bundle_is_served(tmp_path: Path) -> None:
    bundle = factor_bundle(tmp_path / "models", version="7")
    moved = bundle.rename(tmp_path / "anything")
    with Server(moved, tmp_path, OPERATOR | {"MUELLE_WORKERS": "1"}) as server:
        server.wait_ready()
        assert server.post("/predict", FOUR).json == EIGHT
        assert server.post("/models/double/versions/7/predict", FOUR).json == EIGHT


def oip_request() -> dict[str, object]:
    return {"inputs": [{"name": "features", "shape": [1, 1], "datatype": "FP64", "data": FOUR["features"]}]}
