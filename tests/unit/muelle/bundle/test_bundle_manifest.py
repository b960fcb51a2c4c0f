"""manifest.json: what is written is read again, and whatever else stands there is refused with its place."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from muelle.bundle.manifest import ENGINE_FILES, FORMAT_VERSION, FileEntry, Manifest, OnnxReport, plain_name
from muelle.bundle.signature import DTYPES, Feature, Output, Signature
from muelle.errors import ManifestError

KEYS = [
    "format_version", "name", "version", "created", "estimator", "task", "git_commit", "data_digest", "signature",
    "engines", "onnx", "libraries", "scores", "parameters", "files",
]  # fmt: skip

names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", fullmatch=True)
texts = st.text(min_size=1, max_size=20)
numbers = st.floats(allow_nan=False, allow_infinity=False)
scalars = st.one_of(st.text(max_size=10), st.integers(), numbers, st.booleans())
labels = st.none() | st.lists(scalars, max_size=4).map(tuple)
features = st.builds(Feature, texts, st.sampled_from(DTYPES), st.booleans(), labels)
reports = st.builds(
    OnnxReport,
    st.booleans(),
    texts,
    st.integers(0, 10**9),
    st.none() | st.floats(0, 1),
    st.none() | numbers,
    st.none() | st.sampled_from(["float64", "float32", "columns"]),
    st.none() | st.integers(1, 30),
)


@st.composite
def signatures(draw) -> Signature:
    layout = draw(st.sampled_from(["matrix", "frame", "objects", "text"]))
    found = draw(st.lists(features, min_size=1, max_size=4, unique_by=lambda feature: feature.name))
    if layout == "matrix":
        dtype = draw(st.sampled_from(["float64", "float32"]))
        found = [dataclasses.replace(feature, dtype=dtype, categories=None) for feature in found]
    if layout == "text":
        found = [dataclasses.replace(found[0], dtype="string")]
    shape = draw(st.sampled_from([(-1,), (-1, 1), (-1, 3)]))
    outputs = [Output("predict", draw(st.sampled_from(DTYPES)), shape, draw(labels))]
    if draw(st.booleans()):
        outputs.append(Output("predict_proba", "float64", (-1, 3), draw(labels)))
    return Signature(layout, tuple(found), tuple(outputs))


@st.composite
def manifests(draw) -> Manifest:
    engines = tuple(draw(st.lists(st.sampled_from(list(ENGINE_FILES)), min_size=1, unique=True)))
    files = ["MODEL_CARD.md", "golden.json", "profile.json", *(ENGINE_FILES[engine] for engine in engines)]
    digests = st.from_regex(r"[0-9a-f]{64}", fullmatch=True)
    return Manifest(
        name=draw(names),
        version=draw(names),
        created=draw(texts),
        estimator=draw(texts),
        task=draw(texts),
        signature=draw(signatures()),
        engines=engines,
        onnx=draw(reports),
        libraries=draw(st.dictionaries(texts, texts, max_size=3)),
        files={file: draw(st.builds(FileEntry, digests, st.integers(0, 2**60))) for file in files},
        scores=draw(st.dictionaries(texts, numbers, max_size=3)),
        parameters=draw(st.dictionaries(texts, scalars, max_size=3)),
        git_commit=draw(st.none() | texts),
        data_digest=draw(st.none() | texts),
    )


@settings(max_examples=40)
@given(manifests())
def test_what_is_written_is_read_again(manifest):
    data = manifest.to_bytes()
    again = Manifest.from_bytes(data)
    assert again == manifest
    assert again.to_bytes() == data


def test_the_written_form_is_the_documented_one(manifest):
    document = json.loads(manifest.to_bytes())
    assert list(document) == KEYS
    assert document["format_version"] == 1
    assert document["signature"]["inputs"][0] == {
        "name": "age", "dtype": "int64", "shape": [-1], "nullable": True, "categories": None,
    }  # fmt: skip
    assert manifest.to_bytes().endswith(b"}\n")


def changed(manifest: Manifest, path: str, value: Any) -> bytes:
    """The manifest's bytes with one field put or, for `...`, taken away; a path is like ``signature/inputs/0/name``."""
    document = json.loads(manifest.to_bytes())
    *parents, last = [int(part) if part.isdecimal() else part for part in path.split("/")]
    place = document
    for parent in parents:
        place = place[parent]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return json.dumps(document).encode()


WRONG = [
    ("format_version", 0, "format_version: expected an integer of at least 1, got 0"),
    ("format_version", "1", "format_version: expected an integer"),
    ("format_version", True, "format_version: expected an integer"),
    ("format_version", 1.0, "format_version: expected an integer"),
    ("format_version", ..., "format_version: expected an integer of at least 1, got None"),
    ("name", "../x", "name: expected 1 to 63 letters"),
    ("version", 1, "version: expected 1 to 63 letters"),
    ("created", "", "created: expected a string, got ''"),
    ("created", None, "created: expected a string"),
    ("estimator", ["x"], "estimator: expected a string"),
    ("task", 3, "task: expected a string"),
    ("git_commit", "", "git_commit: expected a string"),
    ("git_commit", 3, "git_commit: expected a string"),
    ("data_digest", {}, "data_digest: expected a string"),
    ("signature", None, "signature: expected an object, got None"),
    ("engines", [], "engines: expected one or more different engines"),
    ("engines", ["onnx", "onnx"], "engines: expected one or more different engines"),
    ("engines", ["onnx", "pickle"], "engines[1]: expected one of onnx, joblib, skops, got 'pickle'"),
    ("engines", "onnx", "engines: expected a list"),
    ("engines", [["onnx"]], "engines[0]: expected one of"),
    ("onnx", [], "onnx: expected an object"),
    ("onnx/kept", 1, "onnx.kept: expected true or false, got 1"),
    ("onnx/reason", "", "onnx.reason: expected a string"),
    ("onnx/rows", -1, "onnx.rows: expected an integer of at least 0"),
    ("onnx/rows", 2.0, "onnx.rows: expected an integer"),
    ("onnx/label_agreement", "1", "onnx.label_agreement: expected a number"),
    ("onnx/max_error", True, "onnx.max_error: expected a number"),
    ("onnx/max_error", 10**400, "onnx.max_error: expected a number"),
    ("onnx/input_dtype", 64, "onnx.input_dtype: expected a string"),
    ("onnx/opset", "21", "onnx.opset: expected an integer"),
    ("onnx/rows", ..., "onnx: missing rows"),
    ("onnx/more", 1, "onnx: unknown more"),
    ("libraries", [], "libraries: expected an object"),
    ("libraries/numpy", 2, "libraries.numpy: expected a string, got 2"),
    ("scores", None, "scores: expected an object"),
    ("scores/accuracy", "0.9", "scores.accuracy: expected a number, got '0.9'"),
    ("scores/accuracy", None, "scores.accuracy: expected a number"),
    ("parameters", [], "parameters: expected an object"),
    ("parameters/seed", None, "parameters.seed: expected a string, number or boolean, got None"),
    ("parameters/seed", [1], "parameters.seed: expected a string, number or boolean"),
    ("files", [], "files: expected an object"),
    ("files/golden.json", "x", "files.golden.json: expected an object"),
    ("files/golden.json/sha256", "ab", "files.golden.json.sha256: expected 64 hex digits, got 'ab'"),
    ("files/golden.json/sha256", "A" * 64, "files.golden.json.sha256: expected 64 hex digits"),
    ("files/golden.json/sha256", "a" * 64 + "\n", "files.golden.json.sha256: expected 64 hex digits"),
    ("files/golden.json/sha256", None, "files.golden.json.sha256: expected 64 hex digits"),
    ("files/golden.json/size_bytes", -1, "files.golden.json.size_bytes: expected an integer of at least 0"),
    ("files/golden.json/size_bytes", ..., "files.golden.json: missing size_bytes"),
    ("files/golden.json/mode", 1, "files.golden.json: unknown mode"),
    ("files/golden.json", ..., "files: expected exactly"),
    ("files/model.onnx", ..., "files: expected exactly"),
    ("signature/layout", "table", "signature.layout: expected one of matrix, frame, objects, text, got 'table'"),
    ("signature/inputs/1/dtype", "float16", "signature.inputs[1].dtype: expected one of"),
    ("signature/outputs/0/name", "transform", "signature.outputs[0].name: expected one of"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "value", "message"), WRONG)
def test_a_wrong_field_is_refused_with_its_place(manifest, path, value, message):
    with pytest.raises(ManifestError) as caught:
        Manifest.from_bytes(changed(manifest, path, value))
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("key", [key for key in KEYS if key != "format_version"])
def test_every_field_must_be_there(manifest, key):
    with pytest.raises(ManifestError, match=rf"^manifest\.json: missing {key}$"):
        Manifest.from_bytes(changed(manifest, key, ...))


def test_an_unknown_field_is_refused(manifest):
    with pytest.raises(ManifestError, match=r"^manifest\.json: unknown licence$"):
        Manifest.from_bytes(changed(manifest, "licence", "MIT"))


@pytest.mark.parametrize("place", [b'"task":', b'"seed":', b'"kept":', b'"sha256":', b'"layout":'])
def test_a_field_that_stands_twice_is_refused(manifest, place):
    data = manifest.to_bytes()
    key = place.rstrip(b":").decode().strip('"')
    with pytest.raises(ManifestError, match=rf"^manifest\.json: '{key}' stands twice in one object$"):
        Manifest.from_bytes(data.replace(place, place + b" 1, " + place, 1))


@pytest.mark.parametrize("name", ["../evil", "/etc/passwd", "a/b", "model.pkl", "manifest.json", ""])
def test_a_file_that_the_format_does_not_know_is_refused(manifest, name):
    document = json.loads(manifest.to_bytes())
    document["files"][name] = {"sha256": "0" * 64, "size_bytes": 1}
    with pytest.raises(ManifestError, match=r"^files: expected exactly"):
        Manifest.from_bytes(json.dumps(document).encode())


def test_a_newer_format_says_to_upgrade_before_anything_else(manifest):
    document = {"format_version": FORMAT_VERSION + 1, "all": "different"}
    with pytest.raises(ManifestError, match=r"^format_version: this Muelle reads up to 1, the bundle has 2; upgrade"):
        Manifest.from_bytes(json.dumps(document).encode())
    with pytest.raises(ManifestError, match="upgrade Muelle"):
        Manifest.from_bytes(changed(manifest, "format_version", 10**30))


@pytest.mark.parametrize("data", [b"", b"{", b"null", b"[]", b'"x"', b"1", b"\xff\xfe{", b"{}{}", b"[" * 100_000])
def test_what_is_no_object_is_refused(data):
    with pytest.raises(ManifestError, match=r"^(manifest\.json|format_version): "):
        Manifest.from_bytes(data)


@pytest.mark.parametrize("name", ["a", "iris", "Iris-2.0_b", "1", "0.1.0", "a" * 63, "a..b"])
def test_plain_names(name):
    assert plain_name(name, "name") == name


BAD_NAMES = [
    "",
    ".",
    "..",
    ".hidden",
    "-x",
    "_x",
    "a/b",
    "a\\b",
    "a b",
    "a\n",
    "a" * 64,
    "é",
    "٣",
    "a%2fb",
    "a\0",
    None,
    1,
]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_names_that_are_not_safe(name):
    with pytest.raises(ManifestError, match=r"^version: expected 1 to 63 letters, digits"):
        plain_name(name, "version")
