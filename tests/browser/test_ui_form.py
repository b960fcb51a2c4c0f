"""The form of /ui: any signature, right answers, and refusals at the field that they are about."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from browser_page import Page
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from support import Server

from muelle.bundle import save
from service.auth import new_key

SETOSA = {"sepal length (cm)": "5.1", "sepal width (cm)": "3.5", "petal length (cm)": "1.4", "petal width (cm)": "0.2"}


@pytest.fixture(scope="module")
def server(serve: Callable[..., Server], repository: Path) -> Server:
    return serve(repository, {"MUELLE_DEFAULT_MODEL": "iris"})


def send(page: Page) -> None:
    page.find("#try-form button[type=submit]").click()


def test_the_default_model_is_offered_first_with_an_example_that_it_takes(page: Page, server: Server) -> None:
    page.open(server)
    page.wait_loaded()
    assert page.script("return document.querySelector('#try-model').value") == "iris@1"
    document = server.get("/openapi.json").json["paths"]["/models/iris/versions/1/predict"]["post"]
    example = document["requestBody"]["content"]["application/json"]["examples"]["row"]["value"]["features"]
    fields = page.all("#try-fields input")
    assert [float(field.get_property("value")) for field in fields] == example
    send(page)
    expected = server.post("/models/iris/predict", {"features": example}).json["prediction"]
    page.wait(lambda: page.shown("#answer .prediction") == str(expected), "an answer")


def test_a_prediction_comes_with_probabilities_and_the_id_that_the_log_has(page: Page, server: Server) -> None:
    page.open(server)
    page.wait_loaded()
    for label, text in SETOSA.items():
        page.fill(label, text)
    send(page)
    page.wait(lambda: page.all("#answer .prediction"), "an answer")
    assert page.shown("#answer .prediction") == "0"
    expected = server.post("/models/iris/predict", {"features": [5.1, 3.5, 1.4, 0.2], "probabilities": True}).json
    shown = [row.text.split() for row in page.all("#answer tbody tr")]
    assert [row[0] for row in shown] == [str(label) for label in expected["classes"]]
    assert [float(row[1]) / 100 for row in shown] == pytest.approx(expected["probabilities"], abs=0.005)
    request_id = page.shown("#answer code")
    server.wait_for(lambda: any(line.get("request_id") == request_id for line in server.log()), "the logged id", 10)
    assert page.errors() == []


#: Lets a prediction's answer arrive only when `arrive` is called.
HELD_UP = """
const real = window.fetch;
window.fetch = async (path, options) => {
  const answer = await real(path, options);
  if (String(path).endsWith("/predict")) {
    await new Promise((resolve) => { window.arrive = resolve; });
    window.arrived = true;
  }
  return answer;
};
"""


@pytest.mark.parametrize("text", ["5.1", ""], ids=["answer", "refusal"])
def test_a_late_answer_is_not_shown_for_another_model(page: Page, server: Server, text: str) -> None:
    page.open(server)
    page.wait_loaded()
    page.fill("sepal length (cm)", text)
    page.script(HELD_UP)
    send(page)
    page.wait(lambda: page.script("return window.arrive !== undefined"), "an answer that is on its way")
    page.choose("#try-model", "linear 1")
    page.script("window.arrive()")
    page.wait(lambda: page.script("return window.arrived"), "the answer")
    # What follows an answer is done by the time that the next picture is drawn.
    drawn = "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(done));"
    page.driver.execute_async_script(drawn)
    assert page.all("#answer .prediction") == []
    assert page.shown("#refusal") == ""


def test_without_probabilities_none_are_asked_for(page: Page, server: Server) -> None:
    page.open(server)
    page.wait_loaded()
    page.find("#try-probabilities").click()
    send(page)
    page.wait(lambda: page.all("#answer .prediction"), "an answer")
    assert page.all("#answer table") == []
    page.choose("#try-model", "linear 1")
    assert not page.find("#try-probabilities").is_displayed()
    page.fill("x", "6")
    send(page)
    page.wait(lambda: page.all("#answer .prediction"), "an answer")
    assert float(page.shown("#answer .prediction")) == pytest.approx(12)


def test_a_refused_value_is_told_at_its_field_which_gets_the_focus(page: Page, server: Server) -> None:
    page.open(server)
    page.wait_loaded()
    field = page.fill("petal length (cm)", "")
    send(page)
    page.wait(lambda: page.find("#refusal").is_displayed(), "the refusal")
    assert page.shown("#refusal").startswith("petal length (cm): expected a number, got null")
    assert page.driver.switch_to.active_element == field
    assert field.get_attribute("aria-invalid") == "true"
    described = field.get_attribute("aria-describedby").split()[0]
    assert page.shown(f"[id='{described}']") == "expected a number, got null"
    # What is mended is no longer marked, and the next answer takes the refusal's place.
    page.find("#try-reset").click()
    assert field.get_attribute("aria-invalid") is None
    send(page)
    page.wait(lambda: page.all("#answer .prediction"), "an answer")
    assert not page.find("#refusal").is_displayed()


def test_what_is_no_number_does_not_go_out(page: Page, server: Server) -> None:
    page.open(server)
    page.wait_loaded()
    before = len(
        page.script("return performance.getEntriesByType('resource').filter(e => e.name.endsWith('/predict'))")
    )
    field = page.fill("petal width (cm)", "1e")
    send(page)
    assert page.shown("#refusal") == "petal width (cm): this is no number"
    assert page.driver.switch_to.active_element == field
    after = len(page.script("return performance.getEntriesByType('resource').filter(e => e.name.endsWith('/predict'))"))
    assert after == before


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = pd.DataFrame(
        {
            "city": pd.Categorical(["Cádiz", "Vigo", "A Coruña"] * 40),
            "note": [f"it's <b>{i}</b>" for i in range(120)],
            "age": list(range(120)),
            "income": [None, 1.5, 2.5] * 40,
            "member": [True, False] * 60,
        }
    )
    encoder = make_column_transformer(
        (OneHotEncoder(), ["city"]),
        (OneHotEncoder(handle_unknown="ignore"), ["note"]),
        (SimpleImputer(), ["age", "income"]),
        remainder="passthrough",
    )
    estimator = make_pipeline(encoder, LogisticRegression(max_iter=5000)).fit(rows, ["yes", "no"] * 60)
    folder = tmp_path_factory.mktemp("people")
    save(estimator, rows, name="people", version="1", repository=folder, onnx=False)
    return folder


def test_each_kind_of_input_has_its_control(page: Page, serve: Callable[..., Server], people: Path) -> None:
    server = serve(people, {"MUELLE_WORKERS": "1"})
    page.open(server)
    page.wait_loaded(1)
    kinds = page.script(
        "return Object.fromEntries([...document.querySelectorAll('#try-fields .field')].map(f => "
        "[f.querySelector('label').innerText, f.querySelector('input, select').type]))"
    )
    assert kinds == {
        "city": "select-one",
        "note": "text",
        "age": "number",
        "income": "number",
        "member": "checkbox",
    }
    page.choose("#try-fields select", "A Coruña")
    page.fill("note", "it's <b>7</b>\"")
    # Not a number of JavaScript's: all its digits have to arrive.
    page.fill("age", "9007199254740993")
    page.fill("income", "")
    send(page)
    page.wait(lambda: page.all("#answer .prediction"), "an answer")
    row = {"city": "A Coruña", "note": "it's <b>7</b>\"", "age": 9007199254740993, "income": None, "member": True}
    assert page.shown("#answer .prediction") == server.post("/predict", {"features": row}).json["prediction"]
    command = page.script("return document.querySelector('#curl').textContent")
    assert "9007199254740993, null, true" in command
    assert "it'\\''s <b>7</b>" in command
    assert page.errors() == []


@pytest.fixture(scope="module")
def guarded(
    serve: Callable[..., Server], repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Server, str]:
    key, line = new_key("alice")
    file = tmp_path_factory.mktemp("keys") / "keys"
    file.write_text(f"{line}\n")
    return serve(repository, {"MUELLE_API_KEYS_FILE": str(file), "MUELLE_DEFAULT_MODEL": "iris"}), key


class TestKeys:
    """A server that asks for keys shows nothing without one, and the page keeps it to itself."""

    def give(self, page: Page, key: str) -> None:
        page.find("#key").send_keys(key)
        page.find("#key-form button").click()

    def test_nothing_is_shown_or_asked_for_before_a_key_is_given(self, page: Page, guarded: tuple[Server, str]) -> None:
        page.open(guarded[0])
        page.wait(lambda: page.find("#key").is_displayed(), "the field for the key")
        assert page.driver.switch_to.active_element == page.find("#key")
        assert page.find("#key").get_attribute("type") == "password"
        assert not page.find("#content").is_displayed()
        assert page.rows("#models-table") == []
        assert page.errors() == []

    # The second can't be put into a header at all.
    @pytest.mark.parametrize("key", ["wrong", "clé-€"])
    def test_a_wrong_key_is_told(self, page: Page, guarded: tuple[Server, str], key: str) -> None:
        page.open(guarded[0])
        self.give(page, key)
        page.wait(lambda: page.shown("#key-error") == "The server does not take this key.", "the refusal")
        assert not page.find("#content").is_displayed()

    def test_the_right_key_opens_the_page_and_stays_in_memory(self, page: Page, guarded: tuple[Server, str]) -> None:
        server, key = guarded
        page.open(server)
        self.give(page, key)
        page.wait_loaded()
        send(page)
        page.wait(lambda: page.all("#answer .prediction"), "an answer")
        assert page.errors() == []
        assert not page.find("#key-section").is_displayed()
        everywhere = page.script(
            "return JSON.stringify([document.documentElement.outerHTML, location.href, document.cookie, document.title,"
            "[...document.querySelectorAll('input, select')].map(e => e.value), {...localStorage}, {...sessionStorage},"
            "performance.getEntriesByType('resource').map(e => e.name), history.state, window.name])"
        )
        assert key not in everywhere
        assert "$KEY" in everywhere
        assert key not in server.log_path.read_text()
        page.driver.refresh()
        page.wait(lambda: page.find("#key").is_displayed(), "the field for the key")
        assert not page.find("#content").is_displayed()
