"""The three servers under the same load, in turn."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.check import check_answer, check_bytes, input_tensor
from benchmarks.load import Measurement, medians, run_load
from benchmarks.servers import Server, naive, ours, raw, running
from benchmarks.works import CHECKED_ROWS, Call, Case, Work, binary_call, json_call, raw_answer

SERVERS: Final = ("ours", "naive", "raw")
_WARM_UP_SECONDS: Final = 1


@dataclass(frozen=True)
class Plan:
    """How long and where.

    Attributes
    ----------
    folder : Path
        What `benchmarks.prepare` filled; logs and bodies go there too.
    rounds, seconds : int
        So many rounds of so many seconds a server.
    server_core, load_core : int
        Two different cores.
    tell : callable
        Gets a line for each step.
    """

    folder: Path
    rounds: int
    seconds: int
    server_core: int
    load_core: int
    tell: Callable[[str], None]


@dataclass(frozen=True)
class Comparison:
    """What was measured for one work: the rounds of each server, by its name."""

    rounds: dict[str, list[Measurement]]

    def median(self, server: str) -> Measurement:
        """Return a server's medians."""
        return medians(self.rounds[server])

    def times(self, server: str) -> float:
        """Return our requests per second as a multiple of a server's.

        It is the median of the rounds' own ratios: the two numbers of a round are seconds apart, so most of what else
        the machine does is in both.
        """
        pairs = zip(self.rounds["ours"], self.rounds[server], strict=True)
        return statistics.median(mine.requests_per_second / other.requests_per_second for mine, other in pairs)


def compare(plan: Plan, work: Work, workers: int, cores: Iterable[int]) -> Comparison:
    """Check the answers of all three, warm them up, then load one after the other, round by round.

    All three are up the whole time and only one is loaded: short rounds in turn spread what else the machine does over
    all of them, and an idle gunicorn costs nothing that could be measured.

    Raises
    ------
    BenchmarkError
        At a wrong answer, or any failed request.
    """
    case = Case.read(plan.folder, work.model)
    answer = plan.folder / "answer"
    answer.write_bytes(raw_answer(work, case.labels))
    programs = [
        ours(plan.folder / "repository", workers),
        naive(plan.folder / f"{work.model}.joblib", workers),
        raw(answer, workers),
    ]
    rounds: dict[str, list[Measurement]] = {name: [] for name in SERVERS}
    with contextlib.ExitStack() as stack:
        servers = [
            stack.enter_context(running(program, cores, plan.folder / f"{program.name}.log")) for program in programs
        ]
        calls = _checked_calls(work, case, dict(zip(SERVERS, servers, strict=True)), answer.read_bytes())
        for number in range(plan.rounds + 1):
            for server in servers:
                seconds = plan.seconds if number else _WARM_UP_SECONDS
                measured = run_load(server, calls[server.name], plan.folder / "body", seconds)
                if number:
                    rounds[server.name].append(measured)
            plan.tell(
                f"{work.name}: {f'round {number} of {plan.rounds}' if number else 'answers are right, warmed up'}"
            )
    return Comparison(rounds)


def _checked_calls(work: Work, case: Case, servers: dict[str, Server], answer: bytes) -> dict[str, Call]:
    """Return the call that each server is loaded with, after all its answers were found right."""
    tensor = input_tensor(servers["ours"], work.model) if work.binary else ""
    starts = [0] if work.rows > 1 else range(0, len(case.rows), len(case.rows) // CHECKED_ROWS)
    loaded: dict[str, Call] = {}
    for start in starts:
        rows, labels = case.rows[start : start + work.rows], case.labels[start : start + work.rows]
        plain = json_call("/predict", rows)
        mine = (
            binary_call(work.model, tensor, rows) if work.binary else json_call(f"/models/{work.model}/predict", rows)
        )
        check_answer(servers["ours"], mine, labels)
        check_answer(servers["naive"], plain, labels)
        check_bytes(servers["raw"], mine, answer)
        loaded = loaded or {"ours": mine, "naive": plain, "raw": mine}
    return loaded
