"""The images that the tests run, and the repository of models in them: the "user's own image" of the docs.

``muelle:e2e`` is ``FROM muelle:VERSION`` and a COPY of four versions of iris: two good ones whose probabilities differ,
one whose file has a flipped byte, one that claims libraries that nobody has. ``muelle:e2e-2`` is the same under another
tag, for upgrades.
"""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from muelle import __version__
from tools.image import build_all, build_command

ROOT = Path(__file__).resolve().parents[2]
#: Kept between runs, so that a run that builds nothing knows what is in the images.
BUILD = ROOT / "build" / "e2e"
#: Between versicolor and virginica: forests of other seeds give it other probabilities.
ROW = [6.0, 2.7, 5.1, 1.6]
DOCUMENT = {
    "inputs": [{"name": "input", "shape": [1, 4], "datatype": "FP64", "data": ROW}],
    "outputs": [{"name": "predict_proba"}],
}
GOOD = ("1", "2")
FLIPPED, SKEWED = "3", "4"


@dataclass(frozen=True)
class Images:
    """Tags that are in every node, and what the models in them answer."""

    muelle: str
    slim: str
    e2e: str
    e2e_2: str
    repository: Path

    @cached_property
    def expected(self) -> dict[str, list[float]]:
        """Version to the probabilities of `ROW`."""
        return {version: predictor.predict_proba([ROW])[0].tolist() for version, predictor in self._predictors.items()}

    @cached_property
    def digests(self) -> dict[str, str]:
        """Version to the bundle's digest."""
        return {version: predictor.digest for version, predictor in self._predictors.items()}

    @cached_property
    def _predictors(self) -> dict[str, Any]:
        from muelle.inference import Predictor

        return {version: Predictor.load(self.repository / "iris" / version) for version in GOOD}


def names() -> Images:
    """Return the tags, built or not."""
    return Images(
        muelle=f"muelle:{__version__}",
        slim=f"muelle:{__version__}-slim",
        e2e="muelle:e2e",
        e2e_2="muelle:e2e-2",
        repository=BUILD / "repository",
    )


def prepare_once(context: str) -> Images:
    """Prepare, or wait until another process of this run has done it."""
    run_id = os.environ.get("PYTEST_XDIST_TESTRUNUID")
    BUILD.mkdir(parents=True, exist_ok=True)
    stamp = BUILD / "built-by"
    with (BUILD / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if run_id and stamp.is_file() and stamp.read_text() == run_id:
            return names()
        images = prepare(context)
        stamp.write_text(run_id or "")
        return images


def prepare(context: str) -> Images:
    """Build all images and bring them into the nodes, unless ``MUELLE_E2E_SKIP_BUILD`` says that they are there."""
    images = names()
    if os.environ.get("MUELLE_E2E_SKIP_BUILD"):
        assert images.repository.is_dir(), "MUELLE_E2E_SKIP_BUILD: nothing was built here yet"
        return images
    build_all(os.environ)
    for tag in (images.muelle, images.slim):
        load(context, tag)
    make_repository(images.repository)
    for tag, label in ((images.e2e, "1"), (images.e2e_2, "2")):
        folder = BUILD / f"image-{label}"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(images.repository, folder / "models")
        (folder / "Dockerfile").write_text(f"FROM {images.muelle}\nCOPY models /models\nLABEL muelle.e2e={label}\n")
        run(build_command(os.environ, tag, folder, []))
        load(context, tag)
    return images


def make_repository(folder: Path) -> None:
    """Write the four versions."""
    from sklearn.ensemble import RandomForestClassifier

    from muelle.bundle import save
    from training.data import iris

    shutil.rmtree(folder, ignore_errors=True)
    data = iris()
    for version, seed in (("1", 1), ("2", 2), (FLIPPED, 3), (SKEWED, 4)):
        forest = RandomForestClassifier(n_estimators=20, max_depth=4, random_state=seed)
        forest.fit(data.features, data.target)
        save(forest, data.features, name="iris", version=version, repository=folder, onnx=version != SKEWED)
    _flip_a_byte(folder / "iris" / FLIPPED / "model.onnx")
    _claim(folder / "iris" / SKEWED / "manifest.json", "scikit-learn", "0.24.2")


def load(context: str, tag: str) -> None:
    """Bring an image that was built into every node, as kind and minikube, known by the context's name, do it.

    A ``MUELLE_BUILD_COMMAND`` has brought it already.
    """
    if os.environ.get("MUELLE_BUILD_COMMAND"):
        return
    if context.startswith("kind-"):
        run(["kind", "load", "docker-image", tag, "--name", context.removeprefix("kind-")])
    elif shutil.which("minikube") and context in _minikube_profiles():
        run(["minikube", "image", "load", tag, "--profile", context])
    else:
        raise AssertionError(
            f"how images get into the cluster {context!r} is unknown: it is neither kind's nor minikube's; set "
            "MUELLE_BUILD_COMMAND to a command that builds and loads, or bring them and set MUELLE_E2E_SKIP_BUILD=1"
        )


def _minikube_profiles() -> list[str]:
    listed = subprocess.run(["minikube", "profile", "list", "-o", "json"], capture_output=True, text=True, check=False)
    document = json.loads(listed.stdout or "{}")
    return [profile["Name"] for profile in document.get("valid", [])]


def run(command: Sequence[str]) -> None:
    """Run a command that must succeed."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{shlex.join(command)}: exit code {done.returncode}\n{done.stdout}{done.stderr}"


def _flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _claim(manifest: Path, package: str, version: str) -> None:
    document = json.loads(manifest.read_text())
    document["libraries"][package] = version
    manifest.write_text(json.dumps(document, indent=2))
