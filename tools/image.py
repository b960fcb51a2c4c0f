"""``make image``: both container images, with whichever builder there is, and their sizes.

``MUELLE_BUILDER`` names the builder, with options if need be: ``podman``, ``buildah --root DIR``, a path.
``MUELLE_BUILD_COMMAND`` is for anything else: a command that is called as ``COMMAND TAG CONTEXT ARGUMENT…``.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from muelle import __version__

ROOT: Final = Path(__file__).resolve().parents[1]
#: The Dockerfile's targets, and what follows the version in their tags.
TARGETS: Final = {"muelle": "", "slim": "-slim"}
#: In the order in which they are looked for.
BUILDERS: Final = ("docker", "podman", "buildah")


class ImageError(Exception):
    """What stands in the way, in a sentence."""


@dataclass(frozen=True)
class Builder:
    """A program that builds images, or knows about them.

    Attributes
    ----------
    command : tuple of str
        Its path or name, and options that go before any subcommand.
    """

    command: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.kind not in BUILDERS:
            raise ImageError(
                f"MUELLE_BUILDER: expected {', '.join(BUILDERS)} or a path to one, got {self.command[0]!r}"
            )

    @property
    def kind(self) -> str:
        """Which of `BUILDERS` it is."""
        return Path(self.command[0]).name

    def build(self, tag: str, context: Path, arguments: Sequence[str]) -> list[str]:
        """Return the command that builds an image."""
        # Unlike the others, buildah keeps no layers unless it is told to.
        layers = ["--layers"] if self.kind == "buildah" else []
        return [*self.command, "build", *layers, "--tag", tag, *arguments, str(context)]

    def size(self, tag: str) -> list[str]:
        """Return the command that prints an image's size."""
        if self.kind == "buildah":
            return [*self.command, "images", "--format", "{{.Size}}", tag]
        return [*self.command, "image", "inspect", "--format", "{{.Size}}", tag]


def find_builder(environ: Mapping[str, str]) -> Builder | None:
    """Return the builder that is named, else the first that is there, if any.

    Raises
    ------
    ImageError
        When the named one is none that is known.
    """
    named = shlex.split(environ.get("MUELLE_BUILDER", ""))
    if named:
        return Builder(tuple(named))
    found = next((name for name in BUILDERS if shutil.which(name, path=environ.get("PATH"))), None)
    return Builder((found,)) if found else None


def build_command(environ: Mapping[str, str], tag: str, context: Path, arguments: Sequence[str]) -> list[str]:
    """Return the command that builds an image here.

    Raises
    ------
    ImageError
        When there is nothing to build with.
    """
    own = shlex.split(environ.get("MUELLE_BUILD_COMMAND", ""))
    if own:
        return [*own, tag, str(context), *arguments]
    builder = find_builder(environ)
    if builder is None:
        raise ImageError(
            f"building images needs {', '.join(BUILDERS[:-1])} or {BUILDERS[-1]} on the PATH, or MUELLE_BUILD_COMMAND: "
            "a command that is called as COMMAND TAG CONTEXT ARGUMENT…"
        )
    return builder.build(tag, context, arguments)


def size(environ: Mapping[str, str], tag: str) -> str:
    """Return an image's size in words; that it isn't known when only an own command knows the image."""
    own = environ.get("MUELLE_BUILD_COMMAND") and not environ.get("MUELLE_BUILDER")
    builder = None if own else find_builder(environ)
    if builder is None:
        return "not known (MUELLE_BUILDER names whom to ask)"
    done = subprocess.run(builder.size(tag), capture_output=True, text=True, env=dict(environ), check=False)  # noqa: S603
    lines = done.stdout.split("\n")
    if done.returncode != 0 or not lines[0]:
        raise ImageError(f"{tag}: {builder.kind} can't say its size: {(done.stderr or done.stdout).strip()}")
    return f"{int(lines[0]) / 1e6:.0f} MB" if lines[0].isdecimal() else lines[0]


def revision() -> str:
    """Return the commit that is checked out, ``-dirty`` behind it when files have changed; ``unknown`` outside git."""
    try:
        commit = _git("rev-parse", "HEAD")
        return f"{commit}-dirty" if _git("status", "--porcelain", "--untracked-files=no") else commit
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603


def build_all(environ: Mapping[str, str]) -> dict[str, str]:
    """Build every target; return tag to size.

    Raises
    ------
    ImageError
        When there is nothing to build with, or a build fails.
    """
    labels = {"VERSION": __version__, "REVISION": revision()}
    if base := environ.get("PYTHON_IMAGE"):
        labels["PYTHON_IMAGE"] = base
    tags = []
    for target, suffix in TARGETS.items():
        tag = f"muelle:{__version__}{suffix}"
        arguments = ["--target", target]
        for name, value in labels.items():
            arguments += ["--build-arg", f"{name}={value}"]
        command = build_command(environ, tag, ROOT, arguments)
        sys.stderr.write(f"{shlex.join(command)}\n")
        try:
            status = subprocess.run(command, env=dict(environ), check=False).returncode  # noqa: S603
        except OSError as error:
            raise ImageError(f"{command[0]}: {error.strerror}") from error
        if status != 0:
            raise ImageError(f"{tag}: the build failed with exit code {status}")
        tags.append(tag)
    return {tag: size(environ, tag) for tag in tags}


def main() -> None:
    """Build, and print the table."""
    try:
        sizes = build_all(os.environ)
    except ImageError as error:
        sys.exit(f"image: {error}")
    width = max(map(len, sizes)) + 3
    sys.stdout.write(f"\n{'image':{width}}size\n")
    for tag, words in sizes.items():
        sys.stdout.write(f"{tag:{width}}{words}\n")


if __name__ == "__main__":
    main()
