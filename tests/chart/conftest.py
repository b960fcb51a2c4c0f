"""What the chart's tests share: a namespace of the cluster of the current context, for those that need one."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from rendering import command


def _kubectl(*arguments: str) -> None:
    done = command("kubectl", *arguments)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def namespace(request: pytest.FixtureRequest) -> Iterator[str]:
    """A namespace that enforces restricted Pod Security; it goes again without being waited for."""
    topic = request.module.__name__.removeprefix("test_").replace("_", "-")
    name = f"chart-tests-{topic}"
    # What a killed run has left.
    _kubectl("delete", "namespace", name, "--ignore-not-found", "--timeout=100s")
    _kubectl("create", "namespace", name)
    _kubectl("label", "namespace", name, *(f"pod-security.kubernetes.io/{mode}=restricted" for mode in _MODES))
    yield name
    _kubectl("delete", "namespace", name, "--wait=false")


_MODES = ("enforce", "warn")
