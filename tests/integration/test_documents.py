"""The documents that need no cluster, run as they stand there; tests/e2e/test_howto.py has the others."""

from __future__ import annotations

from pathlib import Path

import pytest
from howto import blocks, complaint, environ, missing, run, script
from support import free_port

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [
    "docs/tutorial.md",
    "docs/how-to/feedback.md",
    "docs/how-to/see-it-without-a-cluster.md",
    "docs/how-to/quality.md",
]
SECONDS = 300.0


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_command_of_the_document_does_what_it_says(document: str, tmp_path: Path) -> None:
    port = str(free_port())
    text = (ROOT / document).read_text().replace("localhost:8080", f"localhost:{port}")
    parts = blocks(text.replace("--port 8080", f"--port {port}"))
    assert [found for part in parts if (found := complaint(part.text))] == []
    chosen = [part for part in parts if part.language != "console"]
    done = run(script(chosen, {}), tmp_path, environ(), SECONDS)
    last = max(done.outputs, default=0)
    assert done.code == 0, f"{document}:{last}: exit code {done.code}\n{done.outputs.get(last)}"
    for part in chosen:
        lost = missing(part.expected, done.outputs[part.line])
        assert lost is None, f"{document}:{part.line}: did not print {lost!r}, but\n{done.outputs[part.line]}"
