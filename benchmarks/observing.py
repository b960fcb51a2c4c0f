"""What counting for drift costs: our server with it and without it, in turn, under the same load of single rows."""

from __future__ import annotations

import contextlib
import statistics
from dataclasses import replace
from typing import Final

from benchmarks.check import check_answer
from benchmarks.compare import Plan
from benchmarks.load import run_load
from benchmarks.servers import ours, running
from benchmarks.works import Case, json_call

#: Processor time of a request with counting, as a multiple of that without.
COST_LIMIT: Final = 1.05
_MODEL: Final = "breast-cancer"
_WARM_UP_SECONDS: Final = 1
#: Many short rounds: the cost is smaller than what the machine's other work does to any one of them.
_TIMES_ROUNDS: Final = 3


def measure_observing(plan: Plan) -> float:
    """Return the processor time of a one-row request with drift counted, divided by that without.

    It is the median of the rounds' own ratios. Processor time, because on a busy machine a rate shows what was left of
    the core; the counting is done in the background by the same process, so it is in there.

    Raises
    ------
    BenchmarkError
        At a wrong answer, or any failed request.
    """
    case = Case.read(plan.folder, _MODEL)
    call = json_call(f"/models/{_MODEL}/predict", case.rows[:1])
    on = ours(plan.folder / "repository", 1)
    off = replace(on, name="ours-without-drift", environ={**on.environ, "MUELLE_DRIFT": "false"})
    ratios = []
    with contextlib.ExitStack() as stack:
        servers = [
            stack.enter_context(running(program, [plan.server_core], plan.folder / f"{program.name}.log"))
            for program in (on, off)
        ]
        for server in servers:
            check_answer(server, call, case.labels[:1])
            run_load(server, call, plan.folder / "body", _WARM_UP_SECONDS)
        rounds, seconds = plan.rounds * _TIMES_ROUNDS, max(1, plan.seconds // _TIMES_ROUNDS)
        for number in range(1, rounds + 1):
            # Whoever comes second may find a warmer machine, so they take turns at that, too.
            order = servers if number % 2 else servers[::-1]
            spent = {server.name: run_load(server, call, plan.folder / "body", seconds).cpu_ms for server in order}
            ratios.append(spent[on.name] / spent[off.name])
            plan.tell(f"observing: round {number} of {rounds}, {ratios[-1]:.3f}")
    return statistics.median(ratios)
