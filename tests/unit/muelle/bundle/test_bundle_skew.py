"""How far the running libraries may be from those that made the model."""

from __future__ import annotations

import importlib.metadata
import platform

import numpy as np
import pytest
import sklearn

from muelle.bundle import skew
from muelle.bundle.skew import check_skew, running_versions
from muelle.errors import LibrarySkewError

HERE = {"python": "3.12.3", "scikit-learn": "1.7.2", "numpy": "2.3.1", "scipy": "1.16.0"}


@pytest.fixture
def running(monkeypatch):
    found = dict(HERE)
    monkeypatch.setattr(skew, "running_versions", lambda: found)
    return found


@pytest.mark.parametrize("engine", ["joblib", "skops"])
class TestRebuiltObjects:
    def test_the_same_versions_are_fine(self, running, engine):
        assert check_skew(HERE, engine) == []

    @pytest.mark.parametrize("package", ["scikit-learn", "numpy"])
    @pytest.mark.parametrize("patch", ["9", "0rc1", "0.post1"])
    def test_another_patch_release_is_a_warning(self, running, engine, package, patch):
        made = ".".join([*HERE[package].split(".")[:2], patch])
        [warning] = check_skew({**HERE, package: made}, engine)
        assert f"{package} {made}" in warning
        assert HERE[package] in warning
        assert "only the patch release differs" in warning

    @pytest.mark.parametrize(("package", "made"), [
        ("scikit-learn", "1.6.2"), ("scikit-learn", "1.8.0"), ("scikit-learn", "2.7.2"), ("scikit-learn", "1.70.2"),
        ("numpy", "1.26.4"), ("numpy", "2.2.1"),
    ])  # fmt: skip
    def test_another_minor_or_major_is_refused_with_what_to_do(self, running, engine, package, made):
        with pytest.raises(LibrarySkewError) as caught:
            check_skew({**HERE, package: made}, engine)
        message = str(caught.value)
        assert f"made with {package} {made}, {HERE[package]} runs here" in message
        assert f"install {package}=={made}" in message
        assert "ONNX" in message

    @pytest.mark.parametrize("package", ["scikit-learn", "numpy"])
    def test_a_missing_library_is_refused(self, running, engine, package):
        del running[package]
        with pytest.raises(LibrarySkewError, match=f"{package} {HERE[package]}, which is not installed here"):
            check_skew(HERE, engine)

    def test_what_the_model_was_not_made_with_does_not_matter(self, running, engine):
        del running["scikit-learn"]
        assert check_skew({"python": "3.12.3", "numpy": "2.3.1"}, engine) == []

    def test_other_libraries_may_differ(self, running, engine):
        assert check_skew({**HERE, "python": "3.11.0", "scipy": "1.10.0", "pandas": "1.0.0"}, engine) == []


def test_a_graph_depends_on_none_of_them(running):
    running.clear()
    assert check_skew({**HERE, "scikit-learn": "0.20.0"}, "onnx") == []


def test_what_runs_here():
    found = running_versions()
    assert found["python"] == platform.python_version()
    assert found["numpy"] == np.__version__
    assert found["scikit-learn"] == sklearn.__version__


def test_what_is_not_installed_is_left_out(monkeypatch):
    def absent(package: str) -> str:
        raise importlib.metadata.PackageNotFoundError(package)

    monkeypatch.setattr(importlib.metadata, "version", absent)
    assert list(running_versions()) == ["python"]
