"""What model files hold, found out without loading any of them."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from muelle.bundle.allowlist import refused
from muelle.bundle.files import sha256
from muelle.bundle.manifest import MANIFEST, Manifest
from muelle.bundle.pickles import scan_pickle
from muelle.bundle.skops_files import scan_skops
from muelle.errors import BundleError, IntegrityError

#: Ending of a file → what `look_into` takes it for.
FORMATS: Final = {".joblib": "pickle", ".pkl": "pickle", ".pickle": "pickle", ".skops": "skops", ".onnx": "onnx"}


@dataclass
class Contents:
    """What was found in one file.

    Attributes
    ----------
    name : str
        The file's name.
    state : str
        ``ok``, ``altered``, ``missing``, ``extra`` or ``unreadable``; ``ok`` for a file that stands alone.
    format : str, optional
        ``pickle``, ``skops`` or ``onnx`` for a model file.
    globals : list of (str, bool)
        What a pickle or skops file would import, and whether the allow-list lets it.
    graph : dict, optional
        Facts of an ONNX graph.
    problem : str, optional
        What is wrong with it.
    """

    name: str
    state: str = "ok"
    size_bytes: int | None = None
    sha256: str | None = None
    format: str | None = None
    globals: list[tuple[str, bool]] = field(default_factory=list)
    graph: dict[str, Any] | None = None
    problem: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the form of ``--output json``."""
        document = {**vars(self), "globals": [{"name": name, "allowed": allowed} for name, allowed in self.globals]}
        if self.format not in ("pickle", "skops"):
            del document["globals"]
        if self.format != "onnx":
            del document["graph"]
        return document


def look_into(path: Path, allowed_modules: Sequence[str]) -> Contents:
    """Read one file and say what it holds; nothing of it is executed or constructed.

    Parameters
    ----------
    path : Path
        A plain file; its ending says what it is.
    allowed_modules : sequence of str
        Modules that count as allowed, besides the built-in allow-list.
    """
    found = Contents(name=path.name, format=FORMATS.get(path.suffix.lower()))
    try:
        data = _read_plain(path)
    except OSError as error:
        found.state, found.problem = "unreadable", f"can't be read: {error.strerror or error}"
        return found
    found.size_bytes, found.sha256 = len(data), sha256(data)
    try:
        if found.format == "onnx":
            found.graph = _graph(data, path.name)
        elif found.format is not None:
            found.globals = _globals(data, path.name, found.format, allowed_modules)
    except BundleError as error:
        found.problem = str(error)
    return found


def look_into_folder(folder: Path, manifest: Manifest | None, allowed_modules: Sequence[str]) -> list[Contents]:
    """Look into each file of a bundle's folder, and compare it with the manifest where there is one."""
    expected = {} if manifest is None else dict(manifest.files)
    try:
        names = sorted(entry.name for entry in os.scandir(folder))
    except OSError as error:
        raise IntegrityError(f"{folder}: can't be read: {error.strerror}") from error
    found = []
    for name in sorted({*names, *expected, MANIFEST}):
        if name not in names:
            found.append(Contents(name=name, state="missing", problem="missing from the bundle"))
            continue
        contents = look_into(folder / name, allowed_modules)
        entry = expected.get(name)
        if contents.state == "ok" and entry is not None and contents.sha256 != entry.sha256:
            contents.state = "altered"
            contents.problem = _join(contents.problem, f"altered: the manifest says SHA-256 {entry.sha256}")
        if entry is None and manifest is not None and name != MANIFEST:
            contents.state = "extra"
            contents.problem = _join(contents.problem, "not in the manifest")
        found.append(contents)
    return found


def _join(first: str | None, second: str) -> str:
    return f"{first}; {second}" if first else second


def _read_plain(path: Path) -> bytes:
    # A link may lead anywhere, and a pipe would hang.
    if not stat.S_ISREG(path.lstat().st_mode):
        raise OSError(0, "not a plain file")
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
        return file.read()


def _globals(data: bytes, where: str, kind: str, allowed_modules: Sequence[str]) -> list[tuple[str, bool]]:
    names = scan_skops(data, where) if kind == "skops" else scan_pickle(data)
    pairs = {name: (name.rpartition(".")[0], name.rpartition(".")[2]) for name in names}
    bad = set(refused(pairs.values(), allowed_modules))
    return [(name, name not in bad) for name in names]


def _graph(data: bytes, where: str) -> dict[str, Any]:
    """Return the facts of an ONNX graph; the file is parsed, no session is made of it."""
    try:
        import onnx
    except ImportError:
        return {
            "note": "the package onnx, which shows a graph's contents, is not installed: pip install 'muelle[train]'"
        }
    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:  # protobuf's errors have no common root
        raise BundleError(f"{where}: not a readable ONNX file: {error}") from error
    if not model.graph.node:
        raise BundleError(f"{where}: not a readable ONNX file: it has no graph")
    operators = Counter(f"{node.domain}.{node.op_type}".lstrip(".") for node in model.graph.node)
    return {
        "producer": f"{model.producer_name} {model.producer_version}".strip(),
        "opsets": {item.domain or "ai.onnx": item.version for item in model.opset_import},
        "inputs": [_value(item, onnx) for item in model.graph.input],
        "outputs": [_value(item, onnx) for item in model.graph.output],
        "operators": dict(sorted(operators.items())),
    }


def _value(item: Any, onnx: Any) -> dict[str, Any]:
    tensor = item.type.tensor_type
    return {
        "name": item.name,
        "dtype": onnx.TensorProto.DataType.Name(tensor.elem_type).lower(),
        "shape": [dimension.dim_value or -1 for dimension in tensor.shape.dim],
    }
