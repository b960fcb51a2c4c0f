"""The page for everybody: by keyboard, by screen reader, in bright light and in the dark, on a phone."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from browser_page import Page
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys
from support import Server

#: Each visible text with its colour, size, weight and the first background behind it that is not transparent.
TEXTS = """
const found = [];
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const element = walker.currentNode.parentElement;
  const text = walker.currentNode.textContent.trim();
  const box = element.getBoundingClientRect();
  if (!text || box.width < 2 || box.height < 2 || !element.checkVisibility() || element.closest('.skip')) continue;
  const style = getComputedStyle(element);
  let behind = element;
  while (behind && /, 0\\)$/.test(getComputedStyle(behind).backgroundColor)) behind = behind.parentElement;
  found.push([text, element.namespaceURI.endsWith('svg') ? style.fill : style.color,
    behind ? getComputedStyle(behind).backgroundColor : 'rgb(255, 255, 255)']);
}
return found;
"""


@pytest.fixture(scope="module")
def server(serve: Callable[..., Server], repository: Path) -> Server:
    server = serve(repository, {"MUELLE_DEFAULT_MODEL": "iris"})
    # Of each kind of state something: drift, none, and too few rows to tell.
    server.post("/models/iris/predict", {"features": [[7.5, 3.0, 5.5, 2.0]] * 250})
    server.post("/models/linear/predict", {"features": [[1.0 + i % 30] for i in range(250)]})
    server.post("/models/rose/predict", {})
    return server


@pytest.fixture
def ready(page: Page, server: Server) -> Page:
    page.open(server)
    page.wait_loaded()
    # Everything there is to see: an answer, a refusal, and drift.
    page.find("details summary").click()
    page.wait(lambda: "drifted" in page.rows("#models-table")[1][8], "drift")
    page.choose("#drift-model", "iris 1")
    return page


def luminance(colour: str) -> float:
    """Relative luminance of ``rgb(r, g, b)`` (WCAG 2.2)."""
    channels = [float(part) / 255 for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_stands_out(ready: Page, scheme: str) -> None:
    ready.prefer(scheme)
    ready.find("#try-form button[type=submit]").click()
    ready.wait(lambda: ready.all("#answer .prediction"), "an answer")
    texts = ready.script(TEXTS)
    ready.fill("sepal width (cm)", "")
    ready.find("#try-form button[type=submit]").click()
    ready.wait(lambda: ready.find("#refusal").is_displayed(), "a refusal")
    texts += ready.script(TEXTS)
    assert len(texts) > 150
    faint = {(text, front, behind) for text, front, behind in texts if contrast(front, behind) < 4.5}
    assert not faint


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_lines_and_edges_of_fields_stand_out(ready: Page, scheme: str) -> None:
    """WCAG 1.4.11: 3 to 1 for what one must see to use it."""
    ready.prefer(scheme)
    card = ready.script("return getComputedStyle(document.querySelector('.card')).backgroundColor")
    field = ready.find("#try-fields input")
    assert contrast(field.value_of_css_property("border-top-color").replace("rgba", "rgb"), card) >= 3
    for place in range(1, 4):
        line = ready.script(f"return getComputedStyle(document.querySelector('.chart .s{place}')).stroke")
        assert contrast(line, card) >= 3
    bar = ready.script("return getComputedStyle(document.querySelector('rect.observed')).fill")
    assert contrast(bar, card) >= 3


def test_every_control_has_a_name_and_every_reference_an_end(ready: Page) -> None:
    nameless = ready.script(
        "return [...document.querySelectorAll('input, select, button, a, summary')]"
        ".filter(e => !e.labels?.length && !e.textContent.trim() && !e.ariaLabel).map(e => e.outerHTML)"
    )
    assert nameless == []
    for attribute in ("for", "aria-labelledby", "aria-describedby", "aria-controls"):
        loose = ready.script(
            "return [...document.querySelectorAll(`[${arguments[0]}]`)]"
            ".flatMap(e => e.getAttribute(arguments[0]).split(' ')).filter(id => !document.getElementById(id))",
            attribute,
        )
        assert loose == [], attribute
    identifiers = ready.script("return [...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(identifiers) == len(set(identifiers))
    pictures = ready.script(
        "return [...document.querySelectorAll('svg')].filter(e => !e.ariaLabel && e.ariaHidden !== 'true').length"
    )
    assert pictures == 0


def test_it_is_built_of_landmarks_headings_and_tables(ready: Page) -> None:
    assert ready.find("html").get_attribute("lang") == "en"
    for landmark in ("header", "nav[aria-label]", "main", "footer"):
        assert len(ready.all(landmark)) == 1, landmark
    levels = ready.script(
        "return [...document.querySelectorAll('h1, h2, h3')].filter(e => e.checkVisibility()).map(e => +e.tagName[1])"
    )
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert ready.script("return [...document.querySelectorAll('th')].filter(e => !e.scope).length") == 0
    # Beside each chart stands a table with its numbers.
    assert ready.script("return [...document.querySelectorAll('.tiles article')].every(e => e.querySelector('table'))")
    # What happens without being looked at is said.
    for selector, role in (
        ("#answer", "status"),
        ("#refusal", "alert"),
        ("#status", "status"),
        ("#drift-verdict", "status"),
    ):
        assert ready.find(selector).get_attribute("role") == role


def test_the_keyboard_goes_through_it_in_the_order_of_the_page(page: Page, server: Server) -> None:
    page.open(server)
    page.wait_loaded()
    expected = page.script(
        "return [...document.querySelectorAll('a[href], button, input, select, summary, [tabindex=\"0\"]')]"
        ".filter(e => e.checkVisibility() && !(e.type === 'radio' && !e.checked))"
        ".map((e, i) => e.dataset.place = String(i))"
    )
    assert len(expected) > 12
    seen = []
    for _ in expected:
        ActionChains(page.driver).send_keys(Keys.TAB).perform()
        focused = page.driver.switch_to.active_element
        seen.append(focused.get_attribute("data-place"))
        outline = focused.value_of_css_property("outline-style")
        assert outline != "none", focused.get_attribute("outerHTML")
    assert seen == expected
    first = page.find("[data-place='0']")
    assert first.get_attribute("textContent") == "Skip to the content"


def test_enter_in_a_field_sends_the_form(ready: Page) -> None:
    ready.fill("petal width (cm)", "0.2").send_keys(Keys.ENTER)
    ready.wait(lambda: ready.all("#answer .prediction"), "an answer")


@pytest.mark.parametrize("width", [320, 390, 768, 1280, 1920])
def test_nothing_sticks_out(ready: Page, width: int) -> None:
    ready.resize(width)
    assert ready.script("return document.documentElement.scrollWidth") <= width
    wide = ready.script(
        "const right = e => e.getBoundingClientRect().right;"
        "return [...document.querySelectorAll('.card')].filter(e => [...e.children].some(c => right(c) > right(e) + 1))"
        ".map(e => e.textContent.trim().slice(0, 40))"
    )
    assert wide == []


def test_what_is_read_is_not_torn_away_by_the_next_numbers(ready: Page) -> None:
    """Cells change in place: a selection, or a screen reader's place, outlives an update."""
    ready.script("window.before = [...document.querySelectorAll('tbody td, tbody th')]; window.updates = 0;")
    polls = "return performance.getEntriesByName(new URL('ui/state', location)).length"
    count = ready.script(polls)
    ready.wait(lambda: ready.script(polls) >= count + 2, "two polls")
    assert ready.script("return window.before.every(cell => cell.isConnected)")
