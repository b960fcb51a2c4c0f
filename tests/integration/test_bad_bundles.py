"""Bundles that were damaged, forged or made elsewhere, at a real server beside good ones.

Each is refused for a reason that names the file, nothing of it runs, the server says that it is not ready and why, it
stays alive, and the other models are served.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
from collections.abc import Callable, Iterator
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from support import Answer, Server

from muelle.bundle import save

Damage = Callable[[Path], None]
ROW = {"features": [1.0, 2.0, 3.0]}
FILES = ("model.onnx", "model.joblib", "profile.json", "golden.json", "MODEL_CARD.md")
#: Made by whatever in a bundle would run; its place is told by an environment variable of the server.
MARKER = "MARKER_OF_A_PICKLE_THAT_RAN"


def edit(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change a manifest's document."""
    path = folder / "manifest.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def rewrite(folder: Path, name: str, data: bytes) -> None:
    """Replace a file and make its digest right again: only what opens the file can see what is wrong with it."""
    (folder / name).write_bytes(data)
    entry = {"sha256": sha256(data).hexdigest(), "size_bytes": len(data)}
    edit(folder, lambda document: document["files"].update({name: entry}))


def flip(name: str, at: float = 0.5) -> Damage:
    def damage(folder: Path) -> None:
        data = bytearray((folder / name).read_bytes())
        data[int(len(data) * at)] ^= 1
        (folder / name).write_bytes(data)

    return damage


def forge_digest(folder: Path) -> None:
    """Flip a digit of a digest: which file is right, the manifest or the model, nobody can say."""
    digest = json.loads((folder / "manifest.json").read_text())["files"]["model.onnx"]["sha256"]
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace(digest, digest[:-1] + ("0" if digest[-1] != "0" else "1")))


def remove(name: str) -> Damage:
    return lambda folder: (folder / name).unlink()


def add(name: str) -> Damage:
    return lambda folder: (folder / name).write_bytes(b"")


def add_folder(folder: Path) -> None:
    (folder / "more").mkdir()


def link_out(name: str) -> Damage:
    """Put a link to the very same bytes, outside the folder, in a file's place."""

    def damage(folder: Path) -> None:
        outside = folder.parent.parent.parent / "outside" / folder.parent.name
        outside.parent.mkdir(exist_ok=True)
        (folder / name).rename(outside)
        (folder / name).symlink_to(outside)

    return damage


def link_extra(folder: Path) -> None:
    (folder / "passwd").symlink_to("/etc/passwd")


def link_nowhere(folder: Path) -> None:
    (folder / "model.onnx").unlink()
    (folder / "model.onnx").symlink_to("/nowhere")


def pipe(folder: Path) -> None:
    (folder / "model.onnx").unlink()
    os.mkfifo(folder / "model.onnx")


def folder_for_file(folder: Path) -> None:
    (folder / "golden.json").unlink()
    (folder / "golden.json").mkdir()


def cut(name: str, share: float) -> Damage:
    """Truncate a file, its digest made right again."""

    def damage(folder: Path) -> None:
        data = (folder / name).read_bytes()
        rewrite(folder, name, data[: int(len(data) * share)])

    return damage


def cut_manifest(share: float) -> Damage:
    def damage(folder: Path) -> None:
        data = (folder / "manifest.json").read_bytes()
        (folder / "manifest.json").write_bytes(data[: int(len(data) * share)])

    return damage


def replace(name: str, data: bytes) -> Damage:
    return lambda folder: rewrite(folder, name, data)


def manifest(**changes: Any) -> Damage:
    return lambda folder: edit(folder, lambda document: document.update(changes))


def library(name: str, made_with: str) -> Damage:
    return lambda folder: edit(folder, lambda document: document["libraries"].update({name: made_with}))


def golden(change: Callable[[dict[str, Any]], None]) -> Damage:
    def damage(folder: Path) -> None:
        document = json.loads((folder / "golden.json").read_text())
        change(document)
        rewrite(folder, "golden.json", json.dumps(document).encode())

    return damage


def turn_labels(document: dict[str, Any]) -> None:
    document["outputs"]["predict"] = [1 - label for label in document["outputs"]["predict"]]


def move_probabilities(document: dict[str, Any]) -> None:
    document["outputs"]["predict_proba"][0] = [0.5, 0.5]


def write_labels(document: dict[str, Any]) -> None:
    document["outputs"]["predict"] = ["x"] * len(document["inputs"])


def cut_probabilities(document: dict[str, Any]) -> None:
    document["outputs"]["predict_proba"][0].pop()


def add_row(document: dict[str, Any]) -> None:
    document["inputs"].append([1.0])


def empty(document: dict[str, Any]) -> None:
    document.update(inputs=[], outputs={"predict": [], "predict_proba": []})


class Runs:
    """Would run a command when unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f'touch "${MARKER}"',)


class Evaluates:
    """Would run Python when unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return eval, (f"open(__import__('os').environ['{MARKER}'], 'w').close()",)


class Imports:
    """Would import a module, and so run it, when unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return __import__, ("antigravity",)


def evil(make: Callable[[], bytes]) -> Damage:
    return lambda folder: rewrite(folder, "model.joblib", make())


def dumped(value: Any) -> bytes:
    buffer = io.BytesIO()
    joblib.dump(value, buffer)
    return buffer.getvalue()


def inside_an_estimator() -> bytes:
    estimator = fitted()
    estimator.verbose = Runs()
    return dumped(estimator)


def inside_an_array() -> bytes:
    return dumped(np.array([1, Runs()], dtype=object))


def fitted(sign: float = 1.0) -> LogisticRegression:
    generator = np.random.default_rng(0)
    rows = generator.normal(size=(60, 3))
    return LogisticRegression().fit(rows, (sign * rows.sum(axis=1) > 0).astype(int))


def other_patch(package: str) -> str:
    major, minor, *_ = version(package).split(".")
    return f"{major}.{minor}.987"


def other_minor(package: str) -> str:
    major, minor, *_ = version(package).split(".")
    return f"{major}.{int(minor) + 1}.0"


ENTRY = {"sha256": "0" * 64, "size_bytes": 1}
OTHER_PROFILE = b'{"rows":-1,"inputs":{},"predictions":{}}'
#: What is done to a bundle of both engines (`both`), or of joblib alone (`joblib`), and what the reason must say.
BAD: dict[str, tuple[str, Damage, tuple[str, ...]]] = {
    **{f"flipped-{name}": ("both", flip(name), (f"{name}: its SHA-256 is",)) for name in FILES},
    "flipped-last-byte": ("both", flip("model.onnx", 0.999), ("model.onnx: its SHA-256 is",)),
    "flipped-manifest.json": ("both", flip("manifest.json", 0), ("manifest.json: not JSON",)),
    "flipped-digest": ("both", forge_digest, ("model.onnx: its SHA-256 is",)),
    **{f"missing-{name}": ("both", remove(name), (f"{name}: missing from the bundle",)) for name in FILES},
    "missing-manifest.json": ("both", remove("manifest.json"), ("manifest.json: missing from the bundle",)),
    "extra-file": ("both", add("notes.txt"), ("notes.txt: not in the manifest",)),
    "extra-hidden-file": ("both", add(".hidden"), (".hidden: not in the manifest",)),
    "extra-engine": ("joblib", add("model.onnx"), ("model.onnx: not in the manifest",)),
    "extra-folder": ("both", add_folder, ("more: not in the manifest",)),
    "extra-link": ("both", link_extra, ("passwd: not in the manifest",)),
    **{f"link-{name}": ("both", link_out(name), (f"{name}: expected a plain file, it is a link",)) for name in FILES},
    "link-manifest.json": ("both", link_out("manifest.json"), ("manifest.json: expected a plain file, it is a link",)),
    "link-nowhere": ("both", link_nowhere, ("model.onnx: expected a plain file, it is a link",)),
    "pipe": ("both", pipe, ("model.onnx: expected a plain file, it is not a plain file",)),
    "folder-for-file": ("both", folder_for_file, ("golden.json: expected a plain file, it is not a plain file",)),
    "newer-format": ("both", manifest(format_version=2), ("manifest.json: format_version", "has 2; upgrade Muelle")),
    "format-of-no-number": ("both", manifest(format_version="1"), ("manifest.json: format_version", "an integer")),
    "unknown-field": ("both", manifest(comment="hello"), ("manifest.json: unknown comment",)),
    "bad-field": ("both", manifest(engines=["tensorflow"]), ("manifest.json: engines[0]: expected one of onnx",)),
    "path-as-file": ("both", manifest(files={"../../x": ENTRY}), ("manifest.json: files: expected exactly",)),
    "other-name": ("both", manifest(name="somebody-else"), ("its manifest says it is somebody-else 1",)),
    "other-version": ("both", manifest(version="2"), ("its manifest says it is other-version 2",)),
    "cut-manifest": ("both", cut_manifest(0.5), ("manifest.json: not JSON",)),
    "cut-manifest-end": ("both", cut_manifest(0.995), ("manifest.json: not JSON",)),
    "empty-manifest": ("both", cut_manifest(0), ("manifest.json: not JSON",)),
    "cut-onnx": ("both", cut("model.onnx", 0.5), ("model.onnx: ONNX Runtime can't load it",)),
    "cut-onnx-end": ("both", cut("model.onnx", 0.95), ("model.onnx: ONNX Runtime can't load it",)),
    "empty-onnx": ("both", cut("model.onnx", 0), ("model.onnx: ONNX Runtime can't load it",)),
    "onnx-of-text": ("both", replace("model.onnx", b"hello"), ("model.onnx: ONNX Runtime can't load it",)),
    "cut-joblib": ("joblib", cut("model.joblib", 0.5), ("model.joblib",)),
    "empty-joblib": ("joblib", cut("model.joblib", 0), ("model.joblib",)),
    "joblib-of-text": ("joblib", replace("model.joblib", b"hello"), ("model.joblib",)),
    "joblib-of-no-estimator": ("joblib", evil(lambda: dumped([1, 2])), ("list has no predict",)),
    "cut-profile": ("both", cut("profile.json", 0.5), ("profile.json: not JSON",)),
    "other-profile": ("both", replace("profile.json", OTHER_PROFILE), ("profile.json: rows: expected an integer",)),
    "cut-golden": ("both", cut("golden.json", 0.5), ("golden.json: not JSON",)),
    "golden-label": ("both", golden(turn_labels), ("does not reproduce the golden output predict",)),
    "golden-probability": ("both", golden(move_probabilities), ("does not reproduce the golden output predict_proba",)),
    "golden-joblib": ("joblib", golden(turn_labels), ("the joblib engine does not reproduce the golden output",)),
    "golden-text": ("both", golden(write_labels), ("golden.json",)),
    "golden-ragged": ("both", golden(cut_probabilities), ("golden.json",)),
    "golden-row": ("both", golden(add_row), ("golden.json: inputs[16]: expected 3 values",)),
    "golden-none": ("both", golden(empty), ("golden.json: inputs",)),
    "another-model": ("joblib", evil(lambda: dumped(fitted(-1.0))), ("does not reproduce the golden output",)),
    "runs-a-command": ("joblib", evil(lambda: dumped(Runs())), ("model.joblib", "posix.system")),
    "runs-inside": ("joblib", evil(inside_an_estimator), ("model.joblib", "posix.system")),
    "runs-in-an-array": ("joblib", evil(inside_an_array), ("model.joblib", "posix.system")),
    "runs-python": ("joblib", evil(lambda: pickle.dumps(Evaluates())), ("model.joblib", "builtins.eval")),
    "runs-an-import": ("joblib", evil(lambda: pickle.dumps(Imports(), 0)), ("model.joblib", "__import__")),
    "skew-sklearn": ("joblib", library("scikit-learn", other_minor("scikit-learn")), ("made with scikit-learn",)),
    "skew-numpy": ("joblib", library("numpy", "1.26.4"), ("made with numpy 1.26.4", "install numpy==1.26.4")),
}  # fmt: skip
#: Not bad, though it looks so.
GOOD: dict[str, tuple[str, Damage]] = {
    "good": ("both", lambda folder: None),
    "good-joblib": ("joblib", lambda folder: None),
    "patch-sklearn": ("joblib", library("scikit-learn", other_patch("scikit-learn"))),
    "patch-numpy": ("joblib", library("numpy", other_patch("numpy"))),
    "skew-onnx": ("both", library("scikit-learn", "0.24.2")),
    "released": ("both", lambda folder: None),
}


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two sound bundles to copy."""
    folder = tmp_path_factory.mktemp("sound")
    rows = np.random.default_rng(0).normal(size=(60, 3))
    found = {
        "both": save(fitted(), rows, name="both", version="1", repository=folder),
        "joblib": save(fitted(), rows, name="joblib", version="1", repository=folder, onnx=False),
    }
    assert {path.name for path in found["both"].iterdir()} == {*FILES, "manifest.json"}
    return found


def plant(sound: Path, repository: Path, name: str, damage: Damage, number: str = "1") -> None:
    """Put a copy under another name, then damage it."""
    folder = repository / name / number
    shutil.copytree(sound, folder)
    edit(folder, lambda document: document.update(name=name, version=number))
    damage(folder)


@pytest.fixture(scope="module")
def server(bundles: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server of all bundles, good and bad."""
    folder = tmp_path_factory.mktemp("bad")
    repository = folder / "models"
    for name, (kind, damage, _) in BAD.items():
        plant(bundles[kind], repository, name, damage)
    for name, (kind, good) in GOOD.items():
        plant(bundles[kind], repository, name, good)
    plant(bundles["both"], repository, "released", flip("model.onnx"), "2")
    os.environ[MARKER] = str(folder / "marker")
    try:
        with Server(repository, folder, {"MUELLE_WORKERS": "1"}) as running:
            running.wait_answering()
            running.wait_for(lambda: "loading" not in running.get("/readyz").json["reasons"], "a list of models")
            running.wait_for(
                lambda: all(model["state"] != "loading" for model in running.get("/").json["models"]), "done loading"
            )
            yield running
        assert [line for line in running.log() if "Traceback" in line.get("exception", "")] == []
    finally:
        del os.environ[MARKER]


def states(server: Server) -> dict[tuple[str, str], dict[str, Any]]:
    return {(model["name"], model["version"]): model for model in server.get("/").json["models"]}


def not_ready(answer: Answer, name: str) -> str:
    assert answer.status == 503, answer.body
    assert answer.headers["retry-after"]
    assert name in answer.json["error"]
    return str(answer.json["error"])


@pytest.mark.parametrize("name", BAD)
def test_a_bad_bundle_is_refused_for_a_reason_that_names_it(server: Server, name: str) -> None:
    expected = BAD[name][2]
    model = states(server)[name, "1"]
    assert model["state"] == "failed"
    assert "digest" not in model
    for fragment in expected:
        assert fragment in model["reason"]
    assert "while loading" not in model["reason"]
    assert f"{name} 1: {model['reason']}" in server.get("/readyz").json["reasons"]
    error = not_ready(server.post(f"/models/{name}/predict", ROW), name)
    assert model["reason"] in error
    not_ready(server.get(f"/v2/models/{name}/ready"), name)
    not_ready(server.get(f"/v2/models/{name}"), name)
    not_ready(server.post(f"/v2/models/{name}/infer", {"inputs": []}), name)


def test_nothing_of_a_forged_pickle_ran(server: Server) -> None:
    marker = server.repository.parent / "marker"
    assert all(states(server)[name, "1"]["state"] == "failed" for name in BAD if name.startswith("runs-"))
    assert not marker.exists()
    # The pickles themselves are sound: whoever loads them as anybody would, runs them.
    os.environ[MARKER] = str(marker)
    for name in ("runs-a-command", "runs-inside", "runs-in-an-array", "runs-python"):
        with (server.repository / name / "1" / "model.joblib").open("rb") as file:
            loaded = joblib.load(file)
        del loaded
        assert marker.exists(), name
        marker.unlink()


@pytest.mark.parametrize("name", GOOD)
def test_the_others_are_served(server: Server, name: str) -> None:
    model = states(server)[name, "1"]
    assert model["state"] == "ready", model
    answer = server.post(f"/models/{name}/versions/1/predict", ROW)
    assert answer.status == 200
    assert answer.json == {"prediction": 1}


@pytest.mark.parametrize("package", ["scikit-learn", "numpy"])
def test_another_patch_release_is_warned_of(server: Server, package: str) -> None:
    name = {"scikit-learn": "patch-sklearn", "numpy": "patch-numpy"}[package]
    warnings = [line for line in server.log() if line["level"] == "warning" and name in line["message"]]
    assert len(warnings) == 1
    assert f"made with {package} {other_patch(package)}" in warnings[0]["message"]
    assert "only the patch release differs" in warnings[0]["message"]


def test_a_broken_release_does_not_fall_back_in_silence(server: Server) -> None:
    """Who asks for no version gets the newest or the reason why not, never an older one's answer."""
    assert "model.onnx" in not_ready(server.post("/models/released/predict", ROW), "released 2")
    assert server.post("/models/released/versions/1/predict", ROW).status == 200


def test_the_server_is_alive_and_says_that_it_is_not_ready(server: Server) -> None:
    assert server.get("/livez").status == 200
    answer = server.get("/readyz")
    assert answer.status == 503
    assert answer.json["code"] == "not_ready"
    assert len(answer.json["reasons"]) == len(BAD) + 1
    assert server.get("/").json["status"] == "not ready"
    assert server.get("/v2/health/live").status == 200
    assert server.get("/v2/health/ready").status == 503
    assert server.get("/metrics").status == 200
    assert server.get("/openapi.json").status == 200
    assert len(server.workers()) == 1


def test_each_failure_is_logged_once_with_its_model(server: Server) -> None:
    failures = [line for line in server.log() if line["message"].startswith("not loaded: ")]
    assert sorted((line["model"], line["version"]) for line in failures) == sorted(
        [*((name, "1") for name in BAD), ("released", "2")]
    )
    assert all(line["level"] == "error" for line in failures)


def test_a_folder_that_is_one_broken_bundle_is_told_too(bundles: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(bundles["both"], tmp_path / "single")
    cut_manifest(0.5)(tmp_path / "single")
    with Server(tmp_path / "single", tmp_path, {"MUELLE_WORKERS": "1"}) as single:
        single.wait_answering()
        single.wait_for(lambda: "manifest.json" in single.get("/readyz").json["error"], "the reason")
        assert single.get("/livez").status == 200
        assert single.post("/predict", ROW).status == 503
