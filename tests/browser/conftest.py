"""A real browser, Debian's chromium by its own driver, and the page of a real server in it."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from support import Server

sys.path.insert(0, str(Path(__file__).parent))

from browser_page import Page

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-dev-shm-usage", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    # Else a click may miss what is still being scrolled to.
    "--force-prefers-reduced-motion",
)


def program(*names: str) -> str:
    """Where one of these programs is; a test run without a browser has to fail, since nothing would be seen."""
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.fail(f"no {' or '.join(names)} on PATH: install Debian's packages chromium and chromium-driver")
    return found


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = program("chromium", "chromium-browser", "google-chrome")
    for flag in (*FLAGS, "--window-size=1280,900", f"--user-data-dir={tmp_path_factory.mktemp('browser')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    # With both paths given, selenium looks for nothing and downloads nothing.
    started = webdriver.Chrome(options=options, service=Service(program("chromedriver")))
    yield started
    started.quit()


@pytest.fixture
def page(driver: webdriver.Chrome) -> Page:
    found = Page(driver)
    found.prefer("light")
    found.resize(1280)
    return found


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Server]]:
    """Start servers with the page on; they end with the module."""
    started: list[Server] = []

    def start(models: Path, settings: Mapping[str, str] | None = None, *, ready: bool = True) -> Server:
        server = Server(models, tmp_path_factory.mktemp("server"), {"MUELLE_UI": "true", **(settings or {})})
        started.append(server.__enter__())
        server.wait_ready() if ready else server.wait_answering()
        return server

    yield start
    # All at once, since each waits for the browser's connections.
    for server in started:
        os.kill(server.pid, signal.SIGTERM)
    for server in started:
        server.stop()
