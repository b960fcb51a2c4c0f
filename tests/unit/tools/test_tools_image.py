"""`make image`: which builder it takes, what it asks of it, what it prints. The builders are scripts that answer."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from muelle import __version__
from tools.image import Builder, ImageError, build_all, build_command, find_builder, size

ROOT = Path(__file__).parents[3]
#: Notes its arguments; knows one size.
BUILDER = """#!/bin/sh
echo "$(basename "$0") $*" >>"$CALLS"
case "$*" in
  *inspect*) echo 735601780 ;;
  *images*) echo "736 MB" ;;
  *broken*) echo "no such image" >&2; exit 3 ;;
esac
exit "${STATUS:-0}"
"""


@pytest.fixture
def machine(tmp_path):
    """Return a function that makes an environment in which these programs, and no other builders, exist."""

    def make(*programs, **environ):
        folder = tmp_path / "bin"
        folder.mkdir()
        for name in programs:
            path = folder / name
            path.write_text(BUILDER)
            path.chmod(0o755)
        for name in ("sh", "basename"):
            (folder / name).symlink_to(
                next(path for path in (f"/bin/{name}", f"/usr/bin/{name}") if Path(path).exists())
            )
        return {"PATH": str(folder), "CALLS": str(tmp_path / "calls"), **environ}

    return make


def calls(environ):
    path = Path(environ["CALLS"])
    return path.read_text().splitlines() if path.exists() else []


@pytest.mark.parametrize(
    ("programs", "found"),
    [(("buildah", "podman", "docker"), "docker"), (("buildah", "podman"), "podman"), (("buildah",), "buildah")],
)
def test_the_first_builder_of_the_list_that_is_there_is_taken(machine, programs, found):
    builder = find_builder(machine(*programs))
    assert builder is not None
    assert builder.kind == found


def test_the_named_builder_goes_before_what_is_found_and_keeps_its_options(machine):
    environ = machine("docker", MUELLE_BUILDER="/opt/bin/buildah --root '/var/my images'")
    builder = find_builder(environ)
    assert builder == Builder(("/opt/bin/buildah", "--root", "/var/my images"))
    command = build_command(environ, "t:1", Path("here"), ["--target", "slim"])
    assert command[:4] == ["/opt/bin/buildah", "--root", "/var/my images", "build"]


def test_a_builder_that_nobody_knows_is_refused_by_name(machine):
    with pytest.raises(
        ImageError, match="MUELLE_BUILDER: expected docker, podman, buildah or a path to one, got 'img'"
    ):
        find_builder(machine(MUELLE_BUILDER="img build"))


def test_without_any_builder_the_message_says_what_would_do(machine):
    with pytest.raises(ImageError, match="docker, podman or buildah on the PATH, or MUELLE_BUILD_COMMAND"):
        build_command(machine(), "t:1", ROOT, [])


def test_only_buildah_must_be_told_to_keep_its_layers(machine):
    assert Builder(("docker",)).build("t:1", Path("x"), []) == ["docker", "build", "--tag", "t:1", "x"]
    assert Builder(("buildah",)).build("t:1", Path("x"), []) == ["buildah", "build", "--layers", "--tag", "t:1", "x"]


def test_both_targets_are_built_with_their_version_and_measured(machine):
    environ = machine("podman")
    assert build_all(environ) == {f"muelle:{__version__}": "736 MB", f"muelle:{__version__}-slim": "736 MB"}
    builds = [line for line in calls(environ) if " build " in line]
    assert [re.findall(r"--tag (\S+) --target (\S+)", line) for line in builds] == [
        [(f"muelle:{__version__}", "muelle")],
        [(f"muelle:{__version__}-slim", "slim")],
    ]
    assert all(f"--build-arg VERSION={__version__} --build-arg REVISION=" in line for line in builds)
    assert all(line.endswith(str(ROOT)) for line in builds)


def test_another_base_image_is_handed_on(machine):
    environ = machine("docker", PYTHON_IMAGE="python:3.12-slim")
    build_all(environ)
    assert "--build-arg PYTHON_IMAGE=python:3.12-slim" in calls(environ)[0]


def test_an_own_command_gets_tag_folder_and_arguments(machine):
    environ = machine("docker", "mine", MUELLE_BUILD_COMMAND="mine --quiet build")
    sizes = build_all(environ)
    assert calls(environ)[0].startswith(f"mine --quiet build muelle:{__version__} {ROOT} --target muelle ")
    assert all("MUELLE_BUILDER" in words for words in sizes.values())


def test_the_named_builder_is_asked_for_sizes_when_an_own_command_builds(machine):
    environ = machine("buildah", MUELLE_BUILD_COMMAND="mine", MUELLE_BUILDER="buildah")
    assert size(environ, "muelle:1") == "736 MB"
    assert calls(environ) == ["buildah images --format {{.Size}} muelle:1"]


def test_a_failed_build_is_told_with_its_exit_code(machine):
    with pytest.raises(ImageError, match=rf"muelle:{re.escape(__version__)}: the build failed with exit code 7"):
        build_all(machine("docker", STATUS="7"))


def test_a_command_that_is_not_there_is_told_by_its_name(machine):
    with pytest.raises(ImageError, match=r"^no-such-program: No such file"):
        build_all(machine(MUELLE_BUILD_COMMAND="no-such-program build"))


def test_the_table_ends_what_make_prints(machine):
    environ = {**os.environ, **machine("docker")}
    done = subprocess.run(
        [sys.executable, "-m", "tools.image"], cwd=ROOT, env=environ, capture_output=True, text=True, check=True
    )
    words = [line.split(maxsplit=1) for line in done.stdout.splitlines() if line]
    assert words == [
        ["image", "size"],
        [f"muelle:{__version__}", "736 MB"],
        [f"muelle:{__version__}-slim", "736 MB"],
    ]


def test_what_stands_in_the_way_is_one_line(machine):
    environ = {**os.environ, **machine()}
    done = subprocess.run(
        [sys.executable, "-m", "tools.image"], cwd=ROOT, env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith("image: building images needs docker")
    assert len(done.stderr.splitlines()) == 1


def test_the_example_and_the_docs_name_the_image_of_this_version():
    dockerfile = (ROOT / "examples" / "own-image" / "Dockerfile").read_text()
    instructions = [line for line in dockerfile.splitlines() if line and not line.startswith("#")]
    page = (ROOT / "docs" / "how-to" / "own-image.md").read_text()
    assert instructions == [f"FROM muelle:{__version__}", "COPY models/iris/1 /models"]
    assert "\n".join(instructions) in page
    assert set(re.findall(r"muelle:(\d+\.\d+\.\d+)", page)) == {__version__}


def test_every_folder_that_the_dockerfile_copies_gets_past_dockerignore():
    ignore = (ROOT / ".dockerignore").read_text().splitlines()
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    paths = {path for line in copied for path in line.split()}
    assert paths
    assert {f"!{path}" for path in paths} <= set(ignore)
    assert all((ROOT / path).exists() for path in paths)
