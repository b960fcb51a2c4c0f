"""The two images alone, as pods: restricted, read-only, one as a uid that nobody has."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from cluster import Kube, until
from image_pods import ANY_UID, Answer, Pod, ask, manifest
from images import ROOT, load, run

from tools.image import build_command

EXAMPLE = ROOT / "examples" / "own-image"
IRIS = [5.1, 3.5, 1.4, 0.2]
#: The first row of scikit-learn's breast cancer data: malignant.
MALIGNANT = [
    *(17.99, 10.38, 122.8, 1001, 0.1184, 0.2776, 0.3001, 0.1471, 0.2419, 0.07871),
    *(1.095, 0.9053, 8.589, 153.4, 0.006399, 0.04904, 0.05373, 0.01587, 0.03003, 0.006193),
    *(25.38, 17.33, 184.6, 2019, 0.1622, 0.6656, 0.7119, 0.2654, 0.4601, 0.1189),
]
ANSWERS = (
    ("/predict", {"features": IRIS}, {"prediction": 0}),
    ("/models/iris/predict", {"features": IRIS}, {"prediction": 0}),
    ("/models/linear/predict", {"input": [6]}, {"output": [12.0]}),
    ("/models/breast-cancer/predict", {"features": MALIGNANT}, {"prediction": 0}),
)
ONE_BUNDLE = "import glob, shutil; [shutil.copy(path, '/scratch') for path in glob.glob('/opt/muelle/demo/linear/1/*')]"
FITTED = (
    "import csv, joblib; from sklearn.datasets import load_iris; from sklearn.tree import DecisionTreeClassifier; "
    "X, y = load_iris(return_X_y=True); joblib.dump(DecisionTreeClassifier().fit(X, y), '/scratch/fitted.joblib'); "
    "csv.writer(open('/scratch/rows.csv', 'w')).writerows([list('abcd'), *X.tolist()])"
)
#: Imports, and uses, of what lies nearest to the parts that the Dockerfile leaves out.
NEIGHBOURS = (
    "import onnx.checker, onnx.reference, skl2onnx, skops.io, obstore, kubernetes.client, kubernetes.dynamic, "
    "kubernetes.watch, pyarrow.compute, pyarrow.dataset, pyarrow.parquet, scipy.stats, scipy.optimize, scipy.sparse, "
    "sklearn.ensemble, sklearn.linear_model, sklearn.pipeline, sklearn.svm, pandas as pd; "
    "pd.DataFrame({'a': [1, 2]}).to_parquet('/tmp/a.parquet'); print(pd.read_parquet('/tmp/a.parquet').a.sum())"
)
UNCOMPILED = (
    "import os, sys, flask, numpy, onnxruntime, gunicorn.app.wsgiapp, service.wsgi, service.hooks, muelle.cli.serve; "
    "cached = {getattr(module, '__cached__', None) for module in list(sys.modules.values())}; "
    "print(len(cached), [path for path in cached if path and not os.path.exists(path)])"
)


@pytest.fixture(scope="module")
def image(request: pytest.FixtureRequest) -> str:
    """The full image: what MUELLE_E2E_IMAGE names, else the one that is built for all tests."""
    return os.environ.get("MUELLE_E2E_IMAGE") or str(request.getfixturevalue("images").muelle)


@pytest.fixture(scope="module")
def pods(kube: Kube, namespace: str, image: str) -> Iterator[Mapping[str, Pod]]:
    """All pods, started together; each test waits for its own."""
    slim = f"{image}-slim"
    made = [
        manifest("demo", image, env={"PORT": "5000"}, port=5000, uid=ANY_UID),
        manifest("stopped", image, kept=True),
        manifest("mounted", image, mounts={"models": "/models"}, init={"models": ONE_BUNDLE}, uid=ANY_UID),
        manifest("empty", image, mounts={"models": "/models"}),
        manifest("slim", slim),
        manifest("help", image, ["--help"]),
        manifest("train", image, ["train", "linear", "--repository", "/tmp/models", "--output", "json"]),
        manifest(
            "bundle",
            image,
            [
                "bundle",
                "/scratch/fitted.joblib",
                "--sample",
                "/scratch/rows.csv",
                "--name",
                "own",
                "--repository",
                "/tmp/m",
            ],
            mounts={"work": "/scratch"},
            init={"work": FITTED},
        ),
        manifest("slim-train", slim, ["train", "linear", "--repository", "/tmp/models"]),
    ]
    kube.apply(made, namespace)
    found = {pod["metadata"]["name"]: Pod(kube, namespace, pod["metadata"]["name"]) for pod in made}
    yield found
    if kube.exists("pod", "stopped", namespace):
        found["stopped"].release()


@pytest.mark.parametrize(("name", "port"), [("demo", 5000), ("slim", 8080)])
def test_an_image_alone_answers_with_the_demo_models(pods: Mapping[str, Pod], name: str, port: int) -> None:
    with pods[name].ready().url(port) as url:
        for path, document, expected in ANSWERS:
            assert ask(url, path, document).json == expected, path
        status = ask(url, "/").json
        assert [model["name"] for model in status["models"]] == ["breast-cancer", "iris", "linear"]
        assert status["model"]["name"] == "iris"
        refused = ask(url, "/predict", {"features": [*IRIS[:3], "abc"]})
        assert refused.status == 400
        assert "features[3]" in refused.json["error"]


def test_it_runs_as_any_uid_and_writes_nothing_but_tmp(pods: Mapping[str, Pod]) -> None:
    demo = pods["demo"].ready()
    assert demo.shell("id -u") == str(ANY_UID)
    assert demo.shell("stat -c %u /proc/1") == str(ANY_UID)
    for folder in ("/", "/opt/muelle", "/opt/muelle/demo", "/var/tmp"):
        assert demo.shell(f"touch {folder}/x 2>/dev/null || echo refused") == "refused", folder


def test_the_images_own_user_is_a_number_and_not_root(pods: Mapping[str, Pod]) -> None:
    assert pods["slim"].ready().shell("id -u") == "65532"


@pytest.mark.parametrize("name", ["demo", "slim"])
def test_nothing_that_installs_or_compiles_is_left(pods: Mapping[str, Pod], name: str) -> None:
    pod = pods[name].ready()
    programs = "pip pip3 uv gcc cc c++ g++ clang ld make git"
    assert pod.shell(f"for p in {programs}; do command -v $p; done; true") == ""
    for python in ("python", "/usr/local/bin/python3", "/usr/bin/python3"):
        assert pod.shell(f"test -x {python} && {python} -m pip --version 2>/dev/null || echo none") == "none"
    assert pod.shell("find / -xdev \\( -name '.cache' -o -name 'pip-*.tmp' \\) 2>/dev/null; true") == ""


def test_what_the_image_leaves_out_is_missed_by_nothing(pods: Mapping[str, Pod]) -> None:
    assert pods["demo"].ready().python(NEIGHBOURS) == "3"


@pytest.mark.parametrize("name", ["demo", "slim"])
def test_every_module_of_the_service_comes_with_bytecode(pods: Mapping[str, Pod], name: str) -> None:
    count, missing = pods[name].ready().python(UNCOMPILED).split(" ", 1)
    assert int(count) > 300
    assert missing == "[]"


def test_the_slim_image_has_no_library_for_estimators(pods: Mapping[str, Pod]) -> None:
    names = ["sklearn", "scipy", "pandas", "joblib", "pyarrow", "onnx", "kubernetes"]
    code = f"import importlib.util as u; print([n for n in {names} if u.find_spec(n)])"
    assert pods["slim"].ready().python(code) == "[]"
    with pods["slim"].url(8080) as url:
        assert {model["engine"] for model in ask(url, "/").json["models"]} == {"onnx"}


def test_the_slim_image_says_what_it_lacks_for_other_roles(pods: Mapping[str, Pod]) -> None:
    assert pods["slim-train"].ended() == 1
    assert "needs sklearn, which is not installed" in pods["slim-train"].logs()
    assert "Traceback" not in pods["slim-train"].logs()


def test_one_bundle_mounted_at_models_is_served_instead_of_the_demo(pods: Mapping[str, Pod]) -> None:
    with pods["mounted"].ready().url(8080) as url:
        assert ask(url, "/predict", {"input": [6]}).json == {"output": [12.0]}
        assert [model["name"] for model in ask(url, "/").json["models"]] == ["linear"]


def test_an_empty_mount_at_models_is_no_models_and_not_the_demo(pods: Mapping[str, Pod]) -> None:
    empty = pods["empty"]
    empty.kube.wait("jsonpath={.status.phase}=Running", "pod/empty", empty.namespace)
    answer = until(lambda: first_answer(empty), "the first answer", 60)
    assert answer.status == 503
    assert "/models" in answer.body.decode()


def first_answer(pod: Pod) -> Answer:
    """Return what /readyz says; a pod that runs may not listen yet, and then the forwarding has ended, too."""
    try:
        with pod.url(8080) as url:
            return ask(url, "/readyz")
    except OSError as error:
        raise AssertionError(repr(error)) from error


def test_sigterm_ends_it_with_0_within_the_grace_period(pods: Mapping[str, Pod]) -> None:
    stopped = pods["stopped"].ready()
    stopped.delete()
    assert stopped.ended() == 0, stopped.logs()


def test_roles_are_arguments(pods: Mapping[str, Pod]) -> None:
    assert pods["help"].ended() == 0
    for role in ("serve", "bundle", "train"):
        assert f"\n  {role} " in pods["help"].logs()


def test_the_train_role_makes_a_bundle(pods: Mapping[str, Pod]) -> None:
    assert pods["train"].ended() == 0, pods["train"].logs()
    (trained,) = json.loads(pods["train"].logs())
    assert (trained["name"], trained["engines"]) == ("linear", ["onnx", "joblib"])


def test_the_bundle_role_bundles_an_estimator_of_ones_own(pods: Mapping[str, Pod]) -> None:
    assert pods["bundle"].ended() == 0, pods["bundle"].logs()
    assert "/tmp/m/own/1" in pods["bundle"].logs()


def test_the_example_of_an_own_image_serves_its_bundle_alone(
    kube: Kube, namespace: str, image: str, tmp_path: Path
) -> None:
    from training.iris import RECIPE
    from training.publish import publish

    lines = (EXAMPLE / "Dockerfile").read_text().splitlines()
    base = next(line for line in lines if line.startswith("FROM "))
    text = "\n".join(f"FROM {image}" if line == base else line for line in lines)
    (tmp_path / "Dockerfile").write_text(f"{text}\n")
    publish(RECIPE, repository=tmp_path / "models", version="1")
    # Others' pods answer requests meanwhile.
    run(["nice", "-n", "15", *build_command(os.environ, "muelle-own-image:e2e", tmp_path, [])])
    load(kube.context, "muelle-own-image:e2e")
    shutil.rmtree(tmp_path / "models")
    kube.apply(manifest("own", "muelle-own-image:e2e", uid=ANY_UID), namespace)
    with Pod(kube, namespace, "own").ready().url(8080) as url:
        assert ask(url, "/predict", {"features": IRIS}).json == {"prediction": 0}
        assert [model["name"] for model in ask(url, "/").json["models"]] == ["iris"]
