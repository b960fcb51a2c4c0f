"""skops files: written, audited and loaded; what the allow-list does not know is refused before it is made."""

from __future__ import annotations

import sys
import zipfile
from io import BytesIO

import numpy as np
import pytest
from sklearn.base import BaseEstimator
from sklearn.linear_model import LinearRegression

from muelle.bundle import open_bundle, save
from muelle.bundle.engines import load_engine
from muelle.bundle.golden import check_golden
from muelle.bundle.skops_files import dump_skops, load_skops, scan_skops
from muelle.errors import EngineError, UnsafePickleError

MADE = []


class Homemade(BaseEstimator):
    """An estimator from a module that nobody allowed."""

    def __setstate__(self, state):
        MADE.append(self)
        super().__setstate__(state)

    def predict(self, X):
        return np.zeros(len(X))


def test_a_bundle_in_the_skops_format(line, tmp_path):
    estimator, X = line
    path = save(estimator, X, name="line", repository=tmp_path, file_format="skops")
    bundle = open_bundle(path)
    assert bundle.manifest.engines == ("onnx", "skops")
    assert sorted(bundle.manifest.files) == [
        "MODEL_CARD.md",
        "golden.json",
        "model.onnx",
        "model.skops",
        "profile.json",
    ]
    engine = load_engine("skops", bundle.read("model.skops"), bundle.manifest.signature)
    assert engine.name == "skops"
    check_golden(bundle.manifest.signature, bundle.golden, engine)
    np.testing.assert_array_equal(engine.run(X, ["predict"])["predict"], estimator.predict(X))


def test_there_and_back(line):
    data = dump_skops(line[0])
    assert scan_skops(data, "model.skops") == ()
    again = load_skops(data, "model.skops")
    assert type(again) is LinearRegression
    np.testing.assert_array_equal(again.coef_, line[0].coef_)


def test_an_untrusted_type_is_refused_and_not_made():
    data = dump_skops(Homemade())
    name = f"{Homemade.__module__}.Homemade"
    assert scan_skops(data, "model.skops") == (name,)
    MADE.clear()
    with pytest.raises(UnsafePickleError, match=r"^model\.skops: asks for .*Homemade, not on the allow-list") as caught:
        load_skops(data, "model.skops")
    assert "nothing was constructed" in str(caught.value)
    assert MADE == []


def test_a_module_that_the_operator_names_is_allowed():
    data = dump_skops(Homemade())
    assert isinstance(load_skops(data, "model.skops", (Homemade.__module__,)), Homemade)


def zipped(schema: bytes) -> bytes:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("schema.json", schema)
    return buffer.getvalue()


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"not a zip", zipped(b"{"), zipped(b"{}"), zipped(b"[]")])
def test_what_is_no_skops_file(data):
    for function in (scan_skops, load_skops):
        with pytest.raises(EngineError, match=r"^model\.skops: not a readable skops file: "):
            function(data, "model.skops")


def test_a_truncated_skops_file(line):
    data = dump_skops(line[0])
    with pytest.raises(EngineError, match=r"^model\.skops: "):
        load_skops(data[: len(data) // 2], "model.skops")


def test_what_skops_can_not_write():
    estimator = LinearRegression()
    estimator.callback = (row for row in ())
    with pytest.raises(EngineError, match=r"^skops can't write LinearRegression: "):
        dump_skops(estimator)


def test_without_skops_the_message_says_how_to_get_it(line, monkeypatch):
    monkeypatch.setitem(sys.modules, "skops.io", None)
    for function in (lambda: scan_skops(b"", "model.skops"), lambda: dump_skops(line[0])):
        with pytest.raises(EngineError, match=r"skops is not installed; pip install 'muelle\[skops\]'"):
            function()
