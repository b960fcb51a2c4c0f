"""The page as somebody sees and uses it, by WebDriver."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

from selenium import webdriver
from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from support import Server


class Page:
    """The page of a server, as somebody sees it."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def open(self, server: Server) -> None:
        self.driver.get("about:blank")
        self.errors()
        self.driver.get(f"{server.url}/ui")

    def errors(self) -> list[str]:
        """What the console has complained about since this was last asked."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]

    def find(self, selector: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def script(self, code: str, *arguments: object) -> Any:
        return self.driver.execute_script(code, *arguments)

    def shown(self, selector: str) -> str:
        """The text of an element that can be seen; empty when it can't."""
        return self.find(selector).text

    def rows(self, table: str) -> list[list[str]]:
        """The texts of a table's cells, all at once, since they change."""
        rows = "[...document.querySelector(arguments[0]).tBodies[0].rows]"
        return list(self.script(f"return {rows}.map(row => [...row.cells].map(cell => cell.innerText.trim()))", table))

    def wait(self, condition: Callable[[], object], what: str, seconds: float = 20.0) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            # What isn't there, or has just been put anew, is waited for like anything else.
            with contextlib.suppress(NoSuchElementException, StaleElementReferenceException):
                if condition():
                    return
            time.sleep(0.05)
        raise AssertionError(f"the page did not get {what}:\n{self.find('body').text}")

    def wait_loaded(self, models: int = 3) -> None:
        self.wait(lambda: self.shown("#status") == "Ready", "ready")
        self.wait(lambda: len(self.rows("#models-table")) == models, f"{models} models")

    def choose(self, select: str, text: str) -> None:
        for option in self.all(f"{select} option"):
            if option.text == text:
                option.click()
                return
        raise AssertionError(f"{select} does not offer {text}")

    def fill(self, label: str, text: str) -> WebElement:
        """Write into the field with this label."""
        named = [element for element in self.all("#try-fields label") if element.text == label]
        field = self.find(f"[id='{named[0].get_attribute('for')}']")
        # As a person does it: WebDriver's own clear() leaves out the events of typing.
        field.send_keys(Keys.CONTROL, "a")
        field.send_keys(Keys.DELETE, text)
        return field

    def prefer(self, scheme: str) -> None:
        """Prefer light or dark colours."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def resize(self, width: int, height: int = 900) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
