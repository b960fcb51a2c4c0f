"""Opening a bundle: each kind of tampering is refused, with the file's name, before anything is loaded."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from sklearn import __version__ as sklearn_version

from muelle.bundle import open_bundle
from muelle.bundle.engines import load_engine
from muelle.bundle.files import sha256
from muelle.bundle.golden import check_golden
from muelle.bundle.manifest import ENGINE_FILES
from muelle.bundle.skew import check_skew
from muelle.errors import BundleError, IntegrityError, LibrarySkewError, ManifestError

FIXTURES = Path(__file__).parents[3] / "fixtures" / "bundles"
FILES = ["MODEL_CARD.md", "golden.json", "model.joblib", "model.onnx", "profile.json"]


@pytest.fixture
def copy(line_bundle, tmp_path) -> Path:
    return Path(shutil.copytree(line_bundle, tmp_path / "1"))


def rewrite(folder: Path, name: str, data: bytes) -> None:
    """Put other bytes and their digest: what a hostile author, not a broken disk, does."""
    (folder / name).write_bytes(data)
    manifest = json.loads((folder / "manifest.json").read_bytes())
    manifest["files"][name] = {"sha256": sha256(data), "size_bytes": len(data)}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_a_good_bundle(line_bundle):
    bundle = open_bundle(line_bundle)
    assert bundle.path == line_bundle
    assert (bundle.manifest.name, bundle.manifest.version) == ("line", "1")
    assert bundle.digest == "sha256:" + sha256((line_bundle / "manifest.json").read_bytes())
    assert sorted(bundle.manifest.files) == FILES
    assert bundle.profile.rows == 50
    assert len(bundle.golden.inputs) == 16
    for name in FILES:
        assert bundle.read(name) == (line_bundle / name).read_bytes()
    assert open_bundle(str(line_bundle)).digest == bundle.digest


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit(copy, name):
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / name).write_bytes(data)
    with pytest.raises(IntegrityError, match=rf"^{name}: its SHA-256 is [0-9a-f]{{64}}, the manifest says"):
        open_bundle(copy)


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_file(copy, name):
    data = (copy / name).read_bytes()
    (copy / name).write_bytes(data[:-1])
    with pytest.raises(IntegrityError, match=rf"^{name}: expected {len(data)} bytes, found {len(data) - 1}$"):
        open_bundle(copy)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file(copy, name):
    (copy / name).unlink()
    with pytest.raises(IntegrityError, match=rf"^{name}: missing from the bundle$"):
        open_bundle(copy)


@pytest.mark.parametrize("name", ["notes.txt", ".hidden", "model.skops", "__pycache__"])
def test_an_extra_file_or_folder(copy, name):
    (copy / name).mkdir() if name.startswith("__") else (copy / name).write_text("x")
    with pytest.raises(IntegrityError, match=rf"^{name}: not in the manifest$"):
        open_bundle(copy)


@pytest.mark.parametrize("name", [*FILES, "manifest.json"])
def test_a_link_even_to_the_same_content(copy, name):
    outside = copy.parent / "outside"
    shutil.move(copy / name, outside)
    (copy / name).symlink_to(outside)
    with pytest.raises(IntegrityError, match=rf"^{name}: expected a plain file, it is a link$"):
        open_bundle(copy)


@pytest.mark.parametrize("name", ["model.joblib", "manifest.json"])
def test_a_folder_instead_of_a_file(copy, name):
    (copy / name).unlink()
    (copy / name).mkdir()
    with pytest.raises(IntegrityError, match=rf"^{name}: expected a plain file, it is not a plain file$"):
        open_bundle(copy)


@pytest.mark.parametrize("name", ["model.onnx", "manifest.json"])
def test_a_pipe_is_refused_and_never_waited_for(copy, name):
    (copy / name).unlink()
    os.mkfifo(copy / name)
    with pytest.raises(IntegrityError, match=rf"^{name}: expected a plain file"):
        open_bundle(copy)


def test_no_manifest(copy):
    (copy / "manifest.json").unlink()
    with pytest.raises(ManifestError, match=r"^manifest\.json: missing from the bundle$"):
        open_bundle(copy)


def test_no_folder(tmp_path):
    with pytest.raises(BundleError, match="nowhere: no such folder"):
        open_bundle(tmp_path / "nowhere")
    (tmp_path / "file").write_text("x")
    with pytest.raises(BundleError, match="file: no such folder"):
        open_bundle(tmp_path / "file")


def test_a_wrong_field_is_named_with_its_file(copy):
    document = json.loads((copy / "manifest.json").read_bytes())
    (copy / "manifest.json").write_text(json.dumps({**document, "task": 1}))
    with pytest.raises(ManifestError, match=r"^manifest\.json: task: expected a string, got 1$"):
        open_bundle(copy)


def test_a_newer_format_version(copy):
    document = json.loads((copy / "manifest.json").read_bytes())
    (copy / "manifest.json").write_text(json.dumps({**document, "format_version": 2}))
    with pytest.raises(ManifestError, match="upgrade Muelle"):
        open_bundle(copy)


def test_a_manifest_without_end_is_not_read(copy):
    with (copy / "manifest.json").open("r+b") as file:
        file.truncate(17 * 1024 * 1024)
    with pytest.raises(IntegrityError, match=r"^manifest\.json: larger than"):
        open_bundle(copy)


@pytest.mark.parametrize("name", FILES)
def test_a_change_after_opening_is_noticed_when_reading(copy, name):
    bundle = open_bundle(copy)
    data = bytearray((copy / name).read_bytes())
    data[0] ^= 1
    (copy / name).write_bytes(data)
    with pytest.raises(IntegrityError, match=rf"^{name}: changed while it was being read$"):
        bundle.read(name)


def test_what_became_longer_a_link_or_nothing_after_opening(copy):
    bundle = open_bundle(copy)
    with (copy / "model.joblib").open("ab") as file:
        file.write(b"x")
    with pytest.raises(IntegrityError, match=r"^model\.joblib: larger than \d+ bytes$"):
        bundle.read("model.joblib")
    shutil.move(copy / "model.onnx", copy.parent / "outside")
    (copy / "model.onnx").symlink_to(copy.parent / "outside")
    with pytest.raises(IntegrityError, match=r"^model\.onnx: expected a plain file, it is a link$"):
        bundle.read("model.onnx")
    (copy / "golden.json").unlink()
    with pytest.raises(IntegrityError, match=r"^golden\.json: missing from the bundle$"):
        bundle.read("golden.json")


def test_a_profile_that_is_not_one_though_its_digest_is_right(copy):
    rewrite(copy, "profile.json", b'{"rows": 1}')
    bundle = open_bundle(copy)
    with pytest.raises(ManifestError, match=r"^profile\.json: missing inputs, predictions$"):
        _ = bundle.profile
    rewrite(copy, "profile.json", b'{"rows": -1, "inputs": {}, "predictions": {}}')
    bundle = open_bundle(copy)
    with pytest.raises(ManifestError, match=r"^profile\.json: rows: expected an integer"):
        _ = bundle.profile


def test_golden_rows_of_another_width_though_their_digest_is_right(copy):
    rewrite(copy, "golden.json", b'{"inputs": [[1.0]], "outputs": {"predict": [1.0]}}')
    bundle = open_bundle(copy)
    with pytest.raises(ManifestError, match=r"^golden\.json: inputs\[0\]: expected 2 values$"):
        _ = bundle.golden


class TestFormatVersion1:
    """A bundle as the first release wrote it: every later one must go on reading it."""

    @pytest.fixture
    def bundle(self):
        return open_bundle(FIXTURES / "v1" / "linear" / "1")

    def test_it_opens(self, bundle):
        manifest = bundle.manifest
        assert (manifest.name, manifest.version, manifest.task) == ("linear", "1", "regression")
        assert manifest.engines == ("onnx", "joblib")
        assert manifest.onnx.kept
        assert manifest.signature.layout == "matrix"
        assert manifest.signature.names == ("x0", "x1")
        assert manifest.parameters == {"seed": 0}
        assert bundle.profile.rows == 50
        assert bundle.profile.inputs["x0"].counts == (5,) * 10
        assert len(bundle.golden.inputs) == 16

    def test_its_digest_is_as_it_was(self, bundle):
        assert bundle.digest == "sha256:b72f4a79e349a07ebb62f2743f1cfdd4c887bc0ba81e4ddb4083d177d475c7d6"

    def test_its_onnx_engine_answers(self, bundle):
        signature = bundle.manifest.signature
        engine = load_engine("onnx", bundle.read(ENGINE_FILES["onnx"]), signature)
        check_golden(signature, bundle.golden, engine)
        answer = engine.run(np.array([[1.0, 1.0], [0.0, 0.0]]), ["predict"])["predict"]
        np.testing.assert_allclose(answer, [1.5, 0.5], rtol=1e-9)

    def test_its_joblib_engine_answers_or_is_refused_for_its_libraries(self, bundle):
        manifest = bundle.manifest
        running = {"scikit-learn": sklearn_version, "numpy": np.__version__}
        if any(manifest.libraries[name].split(".")[:2] != here.split(".")[:2] for name, here in running.items()):
            with pytest.raises(LibrarySkewError):
                check_skew(manifest.libraries, "joblib")
            return
        check_skew(manifest.libraries, "joblib")
        engine = load_engine("joblib", bundle.read(ENGINE_FILES["joblib"]), manifest.signature)
        check_golden(manifest.signature, bundle.golden, engine)
        answer = engine.run(np.array([[1.0, 1.0]]), ["predict"])["predict"]
        np.testing.assert_allclose(answer, [1.5], rtol=1e-9)
