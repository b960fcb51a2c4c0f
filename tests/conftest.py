"""What several test folders share: bundles made once, and real servers."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

sys.path.insert(0, str(Path(__file__).parent))

from support import Server, make_repository

# How long an example takes, or is made, says more about the machine's other work than about ours.
settings.register_profile("muelle", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("muelle")


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the three examples, version 1 each. Never write into it: copy it."""
    return make_repository(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def demo_server(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of the three examples with small limits, for requests that leave no trace in it."""
    settings = {"MUELLE_MAX_BODY_BYTES": "2000000", "MUELLE_MAX_ROWS": "5000", "MUELLE_REQUEST_TIMEOUT_SECONDS": "4"}
    with Server(repository, tmp_path_factory.mktemp("demo-server"), settings) as server:
        server.wait_ready()
        yield server
