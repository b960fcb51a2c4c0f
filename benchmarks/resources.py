"""Memory of our server, and the time until it is ready."""

from __future__ import annotations

import shutil
import statistics
from dataclasses import dataclass
from typing import Final

from benchmarks import BenchmarkError
from benchmarks.check import check_answer
from benchmarks.compare import Plan
from benchmarks.load import run_load
from benchmarks.servers import ours, running
from benchmarks.works import Case, json_call

PSS_LIMIT_MIB: Final = 200.0
START_LIMIT_SECONDS: Final = 3.0
_MEMORY_WORKERS: Final = 2


@dataclass(frozen=True)
class Memory:
    """Proportional set size of all processes, in MiB, after load, and how many there are."""

    pss_mib: float
    processes: int


def measure_memory(plan: Plan) -> Memory:
    """Return the memory of two workers that serve the iris forest by ONNX and have answered for a while.

    Raises
    ------
    BenchmarkError
        When the forest's bundle has no ONNX variant, or a request fails.
    """
    case = Case.read(plan.folder, "iris")
    if case.engine != "onnx":
        raise BenchmarkError(f"iris: expected the engine onnx, the bundle is served with {case.engine}")
    alone = plan.folder / "forest"
    shutil.copytree(plan.folder / "repository" / "iris", alone / "iris")
    call = json_call("/models/iris/predict", case.rows[:1])
    with running(ours(alone, _MEMORY_WORKERS), [plan.server_core], plan.folder / "ours.log") as server:
        check_answer(server, call, case.labels[:1])
        run_load(server, call, plan.folder / "body", plan.seconds)
        memory = Memory(server.pss_bytes() / 2**20, server.process_count())
    plan.tell(f"memory: {memory.processes} processes")
    return memory


def measure_starts(plan: Plan) -> list[float]:
    """Return the seconds from spawn to the first 200 of /readyz, once a round; all models, all defaults, one core."""
    seconds = []
    for number in range(plan.rounds):
        with running(ours(plan.folder / "repository"), [plan.server_core], plan.folder / "ours.log") as server:
            seconds.append(server.start_seconds)
        plan.tell(f"start: {number + 1} of {plan.rounds}, median {statistics.median(seconds):.2f} s")
    return seconds
