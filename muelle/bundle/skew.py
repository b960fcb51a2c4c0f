"""Whether the running libraries are close enough to those that made the model."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib import metadata
from typing import Final

from muelle.errors import LibrarySkewError

#: What a manifest records of the process that wrote it.
RECORDED: Final = ("muelle", "scikit-learn", "numpy", "scipy", "joblib", "pandas", "onnxruntime", "skl2onnx", "skops")
#: An unpickled estimator carries these libraries' private attributes, so another minor release may misread it.
_UNPICKLED: Final = ("scikit-learn", "numpy")


def running_versions() -> dict[str, str]:
    """Return the versions of this process: python, and whichever of `RECORDED` is installed."""
    found = {"python": platform.python_version()}
    for package in RECORDED:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def check_skew(recorded: Mapping[str, str], engine: str) -> list[str]:
    """Compare the manifest's libraries with the running ones.

    Parameters
    ----------
    recorded : mapping
        Package to version, from the manifest.
    engine : str
        ``joblib`` and ``skops`` rebuild Python objects and are checked; an ONNX graph does not depend on them.

    Returns
    -------
    list of str
        One warning for each patch release that differs.

    Raises
    ------
    LibrarySkewError
        When the major or minor version of scikit-learn or numpy differs, or one of them is missing.
    """
    if engine == "onnx":
        return []
    running = running_versions()
    warnings = []
    for package in _UNPICKLED:
        made, here = recorded.get(package), running.get(package)
        if made is None or made == here:
            continue
        if here is None:
            raise LibrarySkewError(f"the model was made with {package} {made}, which is not installed here")
        if made.split(".")[:2] != here.split(".")[:2]:
            raise LibrarySkewError(
                f"the model was made with {package} {made}, {here} runs here; install {package}=={made}, "
                "bundle it anew, or serve its ONNX variant"
            )
        warnings.append(f"the model was made with {package} {made}, {here} runs here (only the patch release differs)")
    return warnings
