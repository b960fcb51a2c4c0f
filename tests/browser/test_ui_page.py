"""The page at /ui in a real browser: what is shown of a server under real requests."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from browser_page import Page
from sklearn.datasets import load_breast_cancer
from support import Server

from muelle.bundle import open_bundle
from muelle.bundle.binning import Binning
from muelle.drift.statistics import compare

ROW = {"features": [5.1, 3.5, 1.4, 0.2]}


@pytest.fixture(scope="module")
def server(serve: Callable[..., Server], repository: Path) -> Server:
    return serve(repository)


def cell(page: Page, table: str, row: str, column: int) -> str:
    (found,) = (cells for cells in page.rows(table) if cells[0] == row)
    return found[column]


def test_it_loads_without_a_complaint_and_asks_nobody_else(page: Page, server: Server) -> None:
    page.open(server)
    page.wait_loaded()
    page.wait(
        lambda: page.script("return performance.getEntriesByName(new URL('ui/state', location)).length") > 2, "polls"
    )
    assert page.errors() == []
    asked = page.script("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert {urlsplit(url).netloc for url in asked} == {urlsplit(server.url).netloc}


def test_off_there_is_no_page(page: Page, demo_server: Server) -> None:
    page.open(demo_server)
    assert '"code":"not_found"' in page.shown("body")


def test_it_shows_what_is_loaded(page: Page, server: Server) -> None:
    page.open(server)
    page.wait_loaded()
    shown = {row[0]: row for row in page.rows("#models-table")}
    assert list(shown) == ["breast-cancer 1", "iris 1", "linear 1"]
    assert {row[1] for row in shown.values()} == {"ready"}
    assert shown["iris 1"][2] == "onnx, RandomForestClassifier"
    digest = next(model["digest"] for model in server.get("/").json["models"] if model["name"] == "iris")
    assert shown["iris 1"][9] == digest.removeprefix("sha256:")


def test_requests_and_mistakes_appear_with_rates_and_latency(page: Page, server: Server) -> None:
    page.open(server)
    page.wait_loaded()
    before = int(cell(page, "#models-table", "iris 1", 4))
    for _ in range(30):
        assert server.post("/models/iris/predict", ROW).status == 200
    assert server.post("/models/iris/predict", {"features": "nonsense"}).status == 400
    page.wait(lambda: int(cell(page, "#models-table", "iris 1", 4)) == before + 31, "31 more requests")
    assert float(cell(page, "#models-table", "iris 1", 3)) > 0
    assert cell(page, "#models-table", "iris 1", 6).endswith("ms")
    assert int(cell(page, "#errors-table", "refused (4xx)", 1)) == 1
    assert float(cell(page, "#traffic-table", "iris 1", 1)) > 0
    assert page.shown("#latency-value").endswith("s")
    path = "return document.querySelector('#traffic-chart path.s2').getAttribute('d')"
    page.wait(lambda: "L" in page.script(path), "a line")
    # Processes are measured, too.
    assert {"worker 0", "arbiter"} <= {row[0] for row in page.rows("#load-table")}
    assert page.errors() == []


def test_a_model_that_could_not_be_loaded_says_why(
    page: Page, serve: Callable[..., Server], repository: Path, tmp_path: Path
) -> None:
    models = tmp_path / "models"
    shutil.copytree(repository / "iris", models / "iris")
    (models / "iris" / "1" / "golden.json").write_text("{}")
    broken = serve(models, ready=False)
    page.open(broken)
    page.wait(lambda: page.shown("#status") == "Not ready", "not ready")
    page.wait(lambda: "golden.json" in page.rows("#models-table")[0][1], "the reason")
    assert page.rows("#models-table")[0][1].startswith("failed: ")
    assert "golden.json" in page.shown("#problems")
    assert page.errors() == []


@pytest.fixture(scope="module")
def fresh(serve: Callable[..., Server], repository: Path) -> Server:
    return serve(repository)


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    rows = load_breast_cancer(return_X_y=True)[0][:300].copy()
    rows[:, 1] += rows[:, 1].std()
    return rows


class TestDrift:
    """One feature shifted: the page has the numbers of `muelle drift`."""

    def verdict(self, page: Page) -> str:
        page.choose("#drift-model", "breast-cancer 1")
        return page.shown("#drift-verdict")

    def test_few_rows_say_nothing(self, page: Page, fresh: Server, rows: np.ndarray) -> None:
        fresh.post("/models/breast-cancer/predict", {"features": rows[:200].tolist()})
        page.open(fresh)
        page.wait_loaded()
        page.wait(lambda: page.rows("#drift-table")[0][6] == "200", "200 rows")
        assert self.verdict(page).startswith("Too few rows to tell")
        assert cell(page, "#models-table", "breast-cancer 1", 8) == "too few rows"

    def test_the_shifted_feature_is_named_with_the_numbers_of_the_command(
        self, page: Page, fresh: Server, rows: np.ndarray, repository: Path
    ) -> None:
        fresh.post("/models/breast-cancer/predict", {"features": rows[200:].tolist()})
        page.open(fresh)
        page.wait_loaded()
        page.wait(lambda: "drifted: mean texture" in self.verdict(page), "the drift")
        page.find("#drift-all").click()
        # A look at one worker may come while the other is adding feature by feature.
        page.wait(
            lambda: {row[6] for row in page.rows("#drift-table") if row[0][0] != "("} == {"300"}, "300 rows of each"
        )
        shown = {row[0]: row for row in page.rows("#drift-table")}
        bundle = open_bundle(repository / "breast-cancer" / "1")
        names = bundle.manifest.signature.names
        assert {*names, "(predict)", "(confidence)"} == set(shown)
        for place, name in enumerate(names):
            binning = Binning.of(bundle.profile.inputs[name])
            expected = compare(binning, binning.count(rows[:, place]))
            numbers = [f"{value:.3f}" for value in (expected.excess, expected.psi, expected.critical)]
            assert shown[name][1:2] + shown[name][3:7] == [expected.state, *numbers, "300"], name
        assert shown["mean texture"][1] == "drifted"
        assert cell(page, "#models-table", "breast-cancer 1", 8).endswith("drifted")

    def test_the_last_minutes_are_without_what_was_before_the_page_was_opened(
        self, page: Page, fresh: Server, rows: np.ndarray
    ) -> None:
        page.open(fresh)
        page.wait_loaded()
        page.wait(lambda: "drifted" in self.verdict(page), "the drift since the start")
        page.find("input[value=sliding]").click()
        assert page.shown("#drift-verdict").startswith("Too few rows")
        fresh.post("/models/breast-cancer/predict", {"features": rows.tolist()})
        page.wait(lambda: "drifted: mean texture" in page.shown("#drift-verdict"), "the drift of the last minutes")
        assert cell(page, "#drift-table", "mean texture", 6) == "300"


def test_quantiles_are_those_of_prometheus(page: Page, server: Server) -> None:
    """histogram_quantile's own examples: linear inside a bucket, the last bound when the open bucket is reached."""
    page.open(server)
    code = """
    const [bounds, counts, shares, done] = arguments;
    import('/ui/numbers.js').then(({quantile}) => done(shares.map(share => quantile(share, bounds, counts))));
    """
    bounds, shares = [1, 2, 4], [0.0001, 0.25, 0.5, 0.75, 0.9, 1]
    found = page.driver.execute_async_script(code, bounds, [10, 10, 10, 10], shares)
    assert found == pytest.approx([0.0004, 1, 2, 4, 4, 4], abs=1e-6)
    assert page.driver.execute_async_script(code, bounds, [0, 0, 0, 0], [0.5]) == [None]


def test_it_asks_only_while_somebody_looks(page: Page, server: Server) -> None:
    page.open(server)
    page.wait_loaded()

    def polls(since: float) -> int:
        # By when they began: an answer to the last one before may take its time.
        found = "performance.getEntriesByName(new URL('ui/state', location))"
        return int(page.script(f"return {found}.filter(entry => entry.startTime > arguments[0]).length", since))

    def hide(hidden: bool) -> float:
        return float(
            page.script(
                "Object.defineProperty(document, 'hidden', {value: arguments[0], configurable: true});"
                "document.dispatchEvent(new Event('visibilitychange'));"
                "return performance.now()",
                hidden,
            )
        )

    page.wait(lambda: polls(0) > 1, "polls")
    hidden_at = hide(True)
    page.driver.execute_async_script("setTimeout(arguments[0], 5500)")
    assert polls(hidden_at) == 0
    hide(False)
    page.wait(lambda: polls(hidden_at) > 1, "polls again")


def test_it_says_when_the_server_is_gone_and_begins_anew_when_it_is_back(
    page: Page, repository: Path, tmp_path: Path
) -> None:
    with Server(repository, tmp_path, {"MUELLE_UI": "true", "MUELLE_WORKERS": "1"}) as server:
        server.wait_ready()
        server.post("/models/iris/predict", ROW)
        page.open(server)
        page.wait_loaded()
        page.wait(lambda: cell(page, "#models-table", "iris 1", 4) == "1", "the request")
        server.stop()
        page.wait(lambda: page.shown("#status").startswith("No answer"), "no answer")
        with server:
            server.wait_ready()
            page.wait(lambda: page.shown("#status") == "Ready", "ready again", 40)
            assert cell(page, "#models-table", "iris 1", 4) == "0"
