"""Models: what a request's name and version mean, and that one bad bundle takes nothing from the others."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from lifecycle import factor_bundle, gated_bundle
from prometheus_client import CollectorRegistry

from muelle.errors import NotFoundError, NotReadyError
from service.metrics import UNKNOWN, Metrics, ModelMetrics
from service.models import Models, ServedModel
from service.settings import Settings


def models_of(folder: Path, registry: CollectorRegistry | None = None, **settings: Any) -> Models:
    """Return models that have not begun to load."""
    chosen = Settings(**{"models": (folder,), "allowed_modules": ("operator_models",)} | settings)
    return Models(chosen, Metrics(registry or CollectorRegistry()))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two versions of one model, and another model."""
    for version in ("9", "10"):
        factor_bundle(tmp_path / "models", name="a", version=version)
    factor_bundle(tmp_path / "models", name="b")
    return tmp_path / "models"


def found(models: Models, name: str | None = None, version: str | None = None) -> tuple[str, str]:
    served = models.get(name, version)
    return served.name, served.version


def not_loaded(registry: CollectorRegistry) -> dict[tuple[str, str], float]:
    """Return what the metric of that name says, by model and version."""
    (family,) = [metric for metric in registry.collect() if metric.name == "muelle_model_not_loaded"]
    return {(sample.labels["model"], sample.labels["version"]): sample.value for sample in family.samples}


def test_the_newest_version_and_the_default_model_are_found(folder: Path) -> None:
    models = models_of(folder, default_model="a")
    models.load()
    assert models.problems() == []
    assert found(models, "a") == ("a", "10")
    assert found(models, "a", "9") == ("a", "9")
    assert found(models) == ("a", "10")
    assert models.default is models.get("a", "10")
    assert models.versions("a") == ["9", "10"]
    assert models.versions("nobody") == []
    assert [(m.name, m.version) for m in models.newest()] == [("a", "10"), ("b", "1")]
    assert {reference for reference in models.references() if reference[0] != "b"} == {
        (None, None),
        ("a", None),
        ("a", "9"),
        ("a", "10"),
    }
    predictor = models.get("a", "9").ready_predictor()
    assert predictor.predict([[4.0]]).tolist() == [8.0]


def test_the_only_model_is_the_default(folder: Path) -> None:
    shutil.rmtree(folder / "b")
    models = models_of(folder)
    models.load()
    assert found(models) == ("a", "10")


@pytest.mark.parametrize(
    ("name", "version", "message"),
    [
        (None, None, "several models are served (a, b): use /models/NAME/predict, or set MUELLE_DEFAULT_MODEL"),
        ("c", None, "no model 'c'; there is a, b"),
        ("c", "1", "no model 'c'; there is a, b"),
        ("a", "11", "no version '11' of a; there is 9, 10"),
        ("x" * 500, None, f"no model '{'x' * 63}'; there is a, b"),
    ],
)
def test_what_is_not_there_is_said_with_what_there_is(
    name: str | None, version: str | None, message: str, folder: Path
) -> None:
    models = models_of(folder)
    models.load()
    with pytest.raises(NotFoundError) as raised:
        models.get(name, version)
    assert str(raised.value) == message


def test_before_it_is_known_what_there_is_nothing_is_not_found(folder: Path) -> None:
    models = models_of(folder)
    assert models.problems() == ["loading"]
    assert (models.all(), models.newest(), models.default, models.references()) == ([], [], None, [])
    with pytest.raises(NotReadyError, match=r"^loading$"):
        models.get("a", None)
    # Nothing was started, so there is nothing to wait for.
    models.wait()
    assert not models.loading


def test_a_broken_bundle_keeps_its_reason_and_the_others_are_served(folder: Path) -> None:
    (folder / "a" / "10" / "model.joblib").write_bytes(b"flipped")
    registry = CollectorRegistry()
    models = models_of(folder, registry)
    models.load()
    (problem,) = models.problems()
    assert problem.startswith("a 10: ")
    assert "model.joblib" in problem
    broken = models.get("a", None)
    assert (broken.state, broken.predictor) == ("failed", None)
    with pytest.raises(NotReadyError) as raised:
        broken.ready_predictor()
    assert str(raised.value) == f"a 10 is not ready: {broken.reason}"
    assert [models.get(*reference).state for reference in (("a", "9"), ("b", None))] == ["ready", "ready"]
    failures = "muelle_model_load_failures_total"
    assert registry.get_sample_value(failures, {"model": "a", "version": "10"}) == 1
    assert registry.get_sample_value(failures, {"model": "a", "version": "9"}) == 0
    assert not_loaded(registry) == {("a", "9"): 0, ("a", "10"): 1, ("b", "1"): 0}


def test_a_bundle_under_another_name_is_not_served(folder: Path) -> None:
    (folder / "b" / "1").rename(folder / "b" / "2")
    models = models_of(folder)
    models.load()
    assert models.problems() == ["b 2: its manifest says it is b 1"]


def test_a_module_that_is_not_allowed_is_a_reason(folder: Path) -> None:
    models = Models(Settings(models=(folder,)), Metrics(CollectorRegistry()))
    models.load()
    assert len(models.problems()) == 3
    assert all("operator_models" in problem for problem in models.problems())


def test_no_models_and_an_unknown_default_are_reasons(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for path, reason in {"empty": "holds no models", "nowhere": "no such folder of models"}.items():
        registry = CollectorRegistry()
        models = models_of(tmp_path / path, registry)
        models.load()
        assert not_loaded(registry) == {(UNKNOWN, UNKNOWN): 1}
        (problem,) = models.problems()
        assert str(tmp_path / path) in problem
        assert reason in problem
        with pytest.raises(NotReadyError, match=reason):
            models.get(None, None)
    models = models_of(folder, default_model="c")
    models.load()
    assert models.problems() == ["MUELLE_DEFAULT_MODEL: no model 'c'; there is a, b"]
    assert found(models, "a") == ("a", "10")


def test_only_what_is_asked_for_is_served(folder: Path) -> None:
    models = models_of(folder, serve=("a@9", "b"))
    models.load()
    assert models.problems() == []
    assert [(m.name, m.version) for m in models.all()] == [("a", "9"), ("b", "1")]
    # The pinned version is the one that answers, though there is a newer one.
    assert found(models, "a") == ("a", "9")
    assert models.versions("a") == ["9"]
    assert [(m.name, m.version) for m in models.newest()] == [("a", "9"), ("b", "1")]
    assert set(models.references()) == {("a", None), ("a", "9"), ("b", None), ("b", "1")}
    with pytest.raises(NotFoundError, match=r"^no version '10' of a; there is 9$"):
        models.get("a", "10")


def test_of_several_pinned_versions_the_newest_answers_in_whatever_order(folder: Path) -> None:
    models = models_of(folder, serve=("a@10", "a@9"))
    models.load()
    assert models.versions("a") == ["9", "10"]
    # The only model that is served is the default.
    assert found(models) == ("a", "10")


@pytest.mark.parametrize(
    ("reference", "reason"),
    [("a@11", "there is a 9, 10"), ("c@11", "there is a, b")],
)
def test_a_pinned_version_that_is_not_there_has_failed(reference: str, reason: str, folder: Path) -> None:
    name, _, version = reference.partition("@")
    registry = CollectorRegistry()
    models = models_of(folder, registry, serve=(reference, "a@10"))
    models.load()
    whole = f"named by MUELLE_SERVE, but not in {folder}; {reason}"
    assert models.problems() == [f"{name} {version}: {whole}"]
    # An older one doesn't stand in for it.
    for asked in (version, None):
        with pytest.raises(NotReadyError) as raised:
            models.get(name, asked).ready_predictor()
        assert str(raised.value) == f"{name} {version} is not ready: {whole}"
    assert models.get("a", "10").state == "ready"
    labels = {"model": name, "version": version}
    assert registry.get_sample_value("muelle_model_load_failures_total", labels) == 1


def test_a_name_that_is_not_there_is_a_problem(folder: Path) -> None:
    registry = CollectorRegistry()
    models = models_of(folder, registry, serve=("c", "b"))
    models.load()
    assert not_loaded(registry) == {(UNKNOWN, UNKNOWN): 1, ("b", "1"): 0}
    assert models.problems() == [f"MUELLE_SERVE: no model 'c' in {folder}; there is a, b"]
    assert found(models) == ("b", "1")
    alone = models_of(folder, serve=("c",))
    alone.load()
    with pytest.raises(NotReadyError, match=r"^MUELLE_SERVE: no model 'c'"):
        alone.get(None, None)


def test_the_repository_names_the_default_among_several(folder: Path) -> None:
    (folder / "default-model").write_text("b\n")
    models = models_of(folder)
    models.load()
    assert found(models) == ("b", "1")
    # The variable goes before it.
    models = models_of(folder, default_model="a")
    models.load()
    assert found(models) == ("a", "10")
    # It is not looked at where there is no choice.
    (folder / "default-model").write_text("c\n")
    models = models_of(folder, serve=("a",))
    models.load()
    assert (found(models), models.problems()) == (("a", "10"), [])


def test_a_default_that_is_left_out_on_purpose_is_no_problem(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    factor_bundle(folder, name="c")
    (folder / "default-model").write_text("c")
    models = models_of(folder, serve=("a@9", "b"))
    models.load()
    assert (models.problems(), models.default) == ([], None)
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warning == f"no default model: {folder}/default-model names c, served are a, b"


@pytest.mark.parametrize(
    ("text", "problem"),
    [("c", "no model 'c'; there is a, b"), ("a b", "expected a model's name, got 'a b'")],
)
def test_a_repository_with_a_wrong_default_is_not_ready(text: str, problem: str, folder: Path) -> None:
    (folder / "default-model").write_text(text)
    models = models_of(folder)
    models.load()
    assert models.problems() == [f"{folder}/default-model: {problem}"]
    assert found(models, "a") == ("a", "10")


def test_the_first_folder_of_models_that_exists_is_served(folder: Path, tmp_path: Path) -> None:
    models = models_of(folder, models=(tmp_path / "nowhere", folder))
    models.load()
    assert models.problems() == []
    # An empty one, such as a volume that nobody has filled, is not passed over for another's models.
    (tmp_path / "empty").mkdir()
    models = models_of(folder, models=(tmp_path / "empty", folder))
    models.load()
    (problem,) = models.problems()
    assert problem.startswith(f"{tmp_path}/empty holds no models")


def test_it_loads_in_the_background(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    gated_bundle(tmp_path / "models", gate, name="slow")
    models = models_of(tmp_path / "models")
    models.start_loading()
    assert models.loading
    gate.touch()
    models.wait()
    assert not models.loading
    assert models.problems() == []


def test_whoever_looks_twice_while_the_models_come_is_not_told_that_all_is_ready(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = models_of(folder)
    look = models.all

    def look_and_load() -> list[ServedModel]:
        found = look()
        models.load()
        return found

    monkeypatch.setattr(models, "all", look_and_load)
    assert models.problems() == ["loading"]


def test_a_request_that_comes_with_the_models_is_told_to_wait(folder: Path) -> None:
    models = models_of(folder)

    class Before(dict[Any, Any]):
        def get(self, key: Any, default: Any = None) -> Any:
            models.load()
            return None

    models._table = Before()
    with pytest.raises(NotReadyError):
        models.get("a", None)
    assert models.get("a", None).state == "ready"


def test_loading_ends_with_the_last_model_and_not_a_moment_later(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models = models_of(folder)
    seen: list[bool] = []
    # The last thing that is done for each model.
    monkeypatch.setattr(ModelMetrics, "loaded", lambda *_: seen.append(models.loading))
    models.start_loading()
    models.wait()
    assert seen == [True, True, False]
