"""Muelle's server beside a naive one and a do-nothing one, under the same load: ``python -m benchmarks``."""

from __future__ import annotations


class BenchmarkError(Exception):
    """The run can't go on: a server did not start, a wrong answer, or an error under load."""
