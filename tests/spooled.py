"""What a worker writes of some requests into the prediction log's spool."""

from __future__ import annotations

from collections.abc import Sequence

from service.observations import Observation
from service.prediction_lines import Layout, Line, gather, row_line


def row_lines(layout: Layout, group: Sequence[Observation]) -> list[Line]:
    """Return the lines of requests of one model."""
    return [row_line(layout, pieces) for pieces in gather(group)]
