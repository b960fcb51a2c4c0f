"""A cgroup of one's own, in either of the kernel's two hierarchies: what a group of processes used, as it is billed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Self

_ROOT = Path("/sys/fs/cgroup")


def _parents() -> dict[str, Path]:
    """Return the folders to make ours in, by what is counted there."""
    if (_ROOT / "cgroup.controllers").exists():
        return {"cpu": _ROOT, "memory": _ROOT}
    return {"cpu": _ROOT / "cpuacct", "memory": _ROOT / "memory"}


def writable() -> bool:
    """Whether a cgroup can be made here, which takes root, and no container without them."""
    return all(path.is_dir() and os.access(path, os.W_OK) for path in _parents().values())


class Cgroup:
    """A new cgroup, gone at the end; a context manager. All its processes must have ended by then."""

    def __init__(self, name: str) -> None:
        parents = _parents()
        self._second = parents["cpu"] == parents["memory"]
        self._cpu, self._memory = (parents[kind] / name for kind in ("cpu", "memory"))

    def __enter__(self) -> Self:
        if self._second:
            (_ROOT / "cgroup.subtree_control").write_text("+cpu +memory")
        for folder in {self._cpu, self._memory}:
            folder.mkdir()
        return self

    def __exit__(self, *_: object) -> None:
        for folder in {self._cpu, self._memory}:
            folder.rmdir()

    @property
    def prefix(self) -> list[str]:
        """A command that is given another, and becomes it in the cgroup."""
        enter = " && ".join(f"echo $$ > {folder}/cgroup.procs" for folder in sorted({self._cpu, self._memory}))
        return ["sh", "-c", f'{enter} && exec "$@"', "sh"]

    def cpu_seconds(self) -> float:
        """Return the CPU time of all its processes, those that have ended among them."""
        if self._second:
            return _numbers(self._cpu / "cpu.stat")["usage_usec"] / 1e6
        return int((self._cpu / "cpuacct.usage").read_text()) / 1e9

    def unfiled_bytes(self) -> int:
        """Return the memory that belongs to no file on a disk, each page counted once."""
        stat = _numbers(self._memory / "memory.stat")
        return stat["anon" if self._second else "rss"] + stat["shmem"]


def _numbers(path: Path) -> dict[str, int]:
    return {key: int(value) for key, value in (line.split() for line in path.read_text().splitlines())}
