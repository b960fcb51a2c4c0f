"""/openapi.json tells the truth: a validator takes it, what it allows gets 2xx, what it forbids the documented 4xx."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, assume, given, seed, settings
from openapi_spec_validator import OpenAPIV31SpecValidator
from requests.structures import CaseInsensitiveDict
from schemathesis import Case, GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from sklearn.compose import make_column_transformer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from support import Server

from muelle.bundle import save
from service.auth import new_key

EXAMPLES = 25
#: The answer's form; which status is right, these tests say themselves, and more strictly than Schemathesis does.
FORM = [content_type_conformance, response_headers_conformance, response_schema_conformance, status_code_conformance]


@pytest.fixture(scope="module")
def models(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The examples, a second version, a table of mixed columns with gaps, and a model of texts."""
    folder = tmp_path_factory.mktemp("openapi") / "models"
    shutil.copytree(repository, folder)
    random = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "city": random.choice(["Vigo", "Palma", "Cádiz"], 120),
            "grade": pd.Categorical(random.choice(["low", "high"], 120), categories=["low", "middle", "high"]),
            "rooms": random.integers(1, 6, 120),
            "garden": random.random(120) < 0.5,
            "area m²": np.where(random.random(120) < 0.2, np.nan, random.normal(80, 20, 120)),
            "floor": pd.array(random.choice([0, 1, 2, None], 120), dtype="Int64"),
        }
    )
    words = np.where(random.random(120) < 0.5, "cheap", "dear")
    columns = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), ["city", "grade"]),
        (make_pipeline(SimpleImputer(), StandardScaler()), ["area m²", "floor"]),
        ("passthrough", ["rooms", "garden"]),
    )
    save(make_pipeline(columns, LogisticRegression()).fit(table, words), table, name="flat", repository=folder)
    texts = ["good day", "bad night", "so so", "good night"] * 5
    reader = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(texts, [text[:3] for text in texts])
    save(reader, texts, name="mood", version="2026-11.a", repository=folder)
    rows = random.normal(size=(60, 2)).astype(np.float32)
    save(LogisticRegression().fit(rows, rows[:, 0] > 0), rows, name="sign", version="9", repository=folder)
    save(LogisticRegression().fit(rows, rows[:, 1] > 0), rows, name="sign", version="10", repository=folder)
    return folder


@pytest.fixture(scope="module")
def server(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    settings = {"MUELLE_MAX_ROWS": "50", "MUELLE_DEFAULT_MODEL": "flat", "MUELLE_WORKERS": "1"}
    with Server(models, tmp_path_factory.mktemp("openapi-server"), settings) as running:
        running.wait_ready()
        yield running


@pytest.fixture(scope="module")
def guarded(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, str]]:
    """A server that asks for a key, and a key."""
    folder = tmp_path_factory.mktemp("openapi-guarded")
    key, line = new_key("tester")
    (folder / "keys").write_text(line + "\n")
    settings = {"MUELLE_MAX_ROWS": "50", "MUELLE_WORKERS": "1", "MUELLE_API_KEYS_FILE": str(folder / "keys")}
    with Server(models, folder, settings) as running:
        running.wait_ready()
        yield running, key


def operations(server: Server, key: str | None = None) -> list[Any]:
    """Return the operations that the server says it has."""
    headers = {} if key is None else {"X-API-Key": key}
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json", headers=headers, config=schemathesis.Config())
    return [found.ok() for found in schema.get_all_operations()]


def different(server: Server, key: str | None = None) -> list[Any]:
    """Return the operations but those that are the same with a version in their path; one of these is among them."""
    return [found for found in operations(server, key) if "/versions/" not in found.path or "/9/" in found.path]


def examine(operation: Any, mode: GenerationMode, look: Callable[[Case], None], examples: int = EXAMPLES) -> None:
    """Generate cases for an operation, always the same ones."""

    @seed(0)
    @settings(
        max_examples=examples,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def attempt(case: Case) -> None:
        look(case)

    attempt()


def is_huge(value: Any) -> bool:
    """Whether an integer is in it that is beyond the largest float64."""
    if isinstance(value, dict | list):
        return any(map(is_huge, value.values() if isinstance(value, dict) else value))
    return isinstance(value, int) and abs(value) > 2**1023


def is_out_of_time(value: Any) -> bool:
    """Whether a label in it was known at a time that no schema can keep out: too long ago, or not yet."""
    if isinstance(value, list):
        return any(map(is_out_of_time, value))
    known = value.get("observed_at") if isinstance(value, dict) else None
    return isinstance(known, str) and not "1971" <= known[:4] <= "2025"


def test_the_document_is_valid_openapi(server: Server, guarded: tuple[Server, str]) -> None:
    plain = server.get("/openapi.json").json
    OpenAPIV31SpecValidator(plain).validate()
    assert "security" not in str(plain["paths"])
    locked = guarded[0].get("/openapi.json", {"X-API-Key": guarded[1]}).json
    OpenAPIV31SpecValidator(locked).validate()
    assert set(locked["components"]["securitySchemes"]) == {"bearer", "header"}
    assert "401" in locked["paths"]["/models/iris/predict"]["post"]["responses"]
    assert guarded[0].get("/openapi.json").status == 401


def test_it_describes_every_model_version_and_protocol(server: Server) -> None:
    posts = {path for path, methods in server.get("/openapi.json").json["paths"].items() if "post" in methods}
    versions = {"linear": ["1"], "breast-cancer": ["1"], "iris": ["1"], "flat": ["1"], "mood": ["2026-11.a"]}
    expected = {"/predict", "/feedback"}
    for name, known in (versions | {"sign": ["9", "10"]}).items():
        expected |= {f"/models/{name}/predict", f"/v2/models/{name}/infer"}
        for version in known:
            expected |= {
                f"/models/{name}/versions/{version}/predict",
                f"/v2/models/{name}/versions/{version}/infer",
            }
    assert posts == expected


def test_its_own_examples_are_answered_as_it_says(server: Server) -> None:
    document = server.get("/openapi.json").json
    asked = 0
    for path, methods in document["paths"].items():
        content = methods.get("post", {}).get("requestBody", {}).get("content", {})
        for example in content.get("application/json", {}).get("examples", {}).values():
            answer = server.post(path, example["value"])
            assert answer.status == 200, (path, example, answer.body)
            asked += 1
    assert asked >= 40


def test_what_it_allows_gets_2xx_of_the_form_it_says(server: Server) -> None:
    for operation in different(server):

        def look(case: Case) -> None:
            assume(not is_out_of_time(case.body))
            response = case.call()
            assert response.status_code == 200, (case.path, case.body, response.text)
            case.validate_response(response, FORM)

        examine(operation, GenerationMode.POSITIVE, look)


def test_what_it_forbids_gets_the_4xx_it_says(server: Server) -> None:
    for operation in different(server):
        if operation.method != "post":
            continue
        documented = {int(code) for code in operation.definition.raw["responses"] if code.startswith("4")}

        def look(case: Case, documented: set[int] = documented) -> None:
            # As a float64, which JSON numbers are here, such an integer is the very limit that it just exceeds.
            assume(not is_huge(case.body))
            response = case.call()
            assert response.status_code in documented, (case.path, case.body, response.status_code, response.text)
            case.validate_response(response, FORM)

        examine(operation, GenerationMode.NEGATIVE, look)


def test_keys_are_asked_for_where_it_says(guarded: tuple[Server, str]) -> None:
    server, key = guarded
    open_to_all = set()
    for operation in different(server, key):
        needs_key = "security" in operation.definition.raw

        def look(case: Case, needs_key: bool = needs_key) -> None:
            for header in ({"X-API-Key": key}, {"Authorization": f"Bearer {key}"}):
                case.headers = CaseInsensitiveDict(header)
                response = case.call()
                assert response.status_code == 200, (case.path, case.body, response.text)
                case.validate_response(response, FORM)
            statuses = []
            for header in (
                {},
                {"X-API-Key": "wrong"},
                {"Authorization": "Bearer wrong"},
                {"Authorization": "Basic eA=="},
            ):
                case.headers = CaseInsensitiveDict(header)
                response = case.call()
                statuses.append(response.status_code)
                case.validate_response(response, FORM)
            assert statuses == ([401, 403, 403, 401] if needs_key else [200] * 4), case.path

        examine(operation, GenerationMode.POSITIVE, look, examples=3)
        if not needs_key:
            open_to_all.add(operation.path)
    assert open_to_all == {"/livez", "/readyz", "/metrics", "/v2/health/live", "/v2/health/ready"}
