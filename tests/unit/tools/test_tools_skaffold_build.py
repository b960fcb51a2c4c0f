"""What skaffold's profile ``buildah`` runs."""

from pathlib import Path

import pytest

from tools.image import ImageError
from tools.skaffold_build import commands

ASKED = {"IMAGE": "localhost:5000/muelle:git-1", "PUSH_IMAGE": "true", "BUILD_CONTEXT": "/src", "PATH": ""}


def test_an_image_is_built_and_pushed():
    build, push = commands({**ASKED, "MUELLE_BUILDER": "buildah --root /r"})
    assert build[:3] == ["buildah", "--root", "/r"]
    assert build[-5:] == ["--tag", ASKED["IMAGE"], "--target", "muelle", str(Path("/src"))]
    assert push == ["buildah", "--root", "/r", "push", "--tls-verify=false", ASKED["IMAGE"]]


@pytest.mark.parametrize(
    ("builder", "image"), [("docker", "localhost:5000/muelle:1"), ("podman", "registry.example.org/muelle:1")]
)
def test_only_a_registry_on_this_machine_goes_without_tls(builder, image):
    _, push = commands({**ASKED, "IMAGE": image, "MUELLE_BUILDER": builder})
    assert push == [builder, "push", image]


def test_nothing_is_pushed_unasked():
    (build,) = commands({**ASKED, "PUSH_IMAGE": "false", "MUELLE_BUILD_COMMAND": "own build"})
    assert build == ["own", "build", ASKED["IMAGE"], "/src", "--target", "muelle"]


def test_an_own_build_command_leaves_pushing_to_the_builder():
    environ = {**ASKED, "MUELLE_BUILD_COMMAND": "own build", "MUELLE_BUILDER": "buildah"}
    build, push = commands(environ)
    assert build[0] == "own"
    assert push[:2] == ["buildah", "push"]


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({}, "IMAGE is not set: skaffold runs this"),
        (ASKED, "building images needs docker"),
        ({**ASKED, "MUELLE_BUILD_COMMAND": "own"}, "pushing images needs MUELLE_BUILDER"),
    ],
)
def test_what_is_missing_is_named(environ, said):
    with pytest.raises(ImageError, match=said):
        commands(environ)
