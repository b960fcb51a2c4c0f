"""What skaffold's profile ``buildah`` builds with: the image that skaffold asks for, pushed when it says so.

skaffold says what it wants in the environment: ``IMAGE``, ``PUSH_IMAGE``, ``BUILD_CONTEXT``. ``MUELLE_BUILDER`` and
``MUELLE_BUILD_COMMAND`` mean what they mean to `tools.image`; pushing is the builder's part in any case.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tools.image import Builder, ImageError, build_command, find_builder


def commands(environ: Mapping[str, str]) -> list[list[str]]:
    """Return the commands that build the image, and push it when it is wanted in its registry.

    Raises
    ------
    ImageError
        When skaffold's variables are missing, or there is nothing to build or push with.
    """
    try:
        tag, push, context = environ["IMAGE"], environ["PUSH_IMAGE"], Path(environ["BUILD_CONTEXT"])
    except KeyError as error:
        raise ImageError(
            f"{error.args[0]} is not set: skaffold runs this, with IMAGE, PUSH_IMAGE and BUILD_CONTEXT"
        ) from error
    made = [build_command(environ, tag, context, ["--target", "muelle"])]
    if push == "true":
        builder = find_builder(environ)
        if builder is None:
            raise ImageError("pushing images needs MUELLE_BUILDER, or docker, podman or buildah on the PATH")
        made.append(push_command(builder, tag))
    return made


def push_command(builder: Builder, tag: str) -> list[str]:
    """Return the command that pushes an image.

    A registry on this very machine has no certificate; docker knows that by itself.
    """
    local = tag.partition("/")[0].partition(":")[0] in ("localhost", "127.0.0.1")
    plain = ["--tls-verify=false"] if local and builder.kind != "docker" else []
    return [*builder.command, "push", *plain, tag]


def main() -> None:
    """Build and push."""
    try:
        for command in commands(os.environ):
            subprocess.run(command, check=True)  # noqa: S603
    except (ImageError, OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"skaffold_build: {error}")


if __name__ == "__main__":
    main()
