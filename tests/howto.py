"""The user documents as programs: their ```sh blocks, in order, in one bash session a document.

What a reader has made before (another image, a broken setting) stands in comments, which a rendered page doesn't show:
`<!-- run` and the commands, up to `-->`. A word after ``sh`` or ``run`` says what is special about a block: ``fails``
(it must), ``gateway``, ``helm4`` (left out where there is none). A ```text block is what the commands before it print,
with … for anything. ```console blocks are for programs and clusters that only the reader has: they are only parsed.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

_OPENS: Final = re.compile(r"```(\w*)(.*)")
_HIDDEN: Final = re.compile(r"<!-- run(.*)")
#: Before the output of the block at this line.
_MARK: Final = "\x1e"
_FORWARDS: Final = re.compile(r"^(kubectl port-forward .*?(\d+):\d+.*?) *&$", re.MULTILINE)
#: What is another one each time.
_CHANGING: Final = (
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"), "TIME"),
    (re.compile(r"\b[0-9a-f]{12,64}\b"), "HEX"),
    (re.compile(r"\b([\w-]+-[ab])-[a-z0-9]{6,10}-[a-z0-9]{5}\b"), r"\1-POD"),
    (re.compile(r"\s+"), " "),
)
_PRELUDE: Final = """\
set -euo pipefail
exec 2>&1
# A reader takes a second to type the next line; until then a forwarded port listens. And types that one again when
# kubectl could not reach the pod just then.
listening() {
  local try
  for try in {1..150}; do
    if (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; then return; fi
    kill -0 $! 2>/dev/null || again
    sleep 0.2
  done
  cat "forward-$1.log"
  echo "nothing listens on port $1"
  return 1
}
"""


@dataclass(frozen=True)
class Block:
    """Commands of a document.

    Attributes
    ----------
    line : int
        Where they begin.
    language : str
        ``sh``, ``console``; or ``run`` for those in a comment.
    words : frozenset of str
        What else stands in the opening line.
    text : str
    expected : tuple of str
        Lines that they print, in this order, others between them.
    """

    line: int
    language: str
    words: frozenset[str]
    text: str
    expected: tuple[str, ...] = ()


def blocks(document: str) -> list[Block]:
    """Return a document's commands."""
    found: list[Block] = []
    lines = enumerate(document.splitlines(), 1)
    for number, line in lines:
        opened = _OPENS.fullmatch(line) or _HIDDEN.fullmatch(line)
        if opened is None:
            continue
        hidden = opened.re is _HIDDEN
        language, words = ("run", opened[1]) if hidden else (opened[1], opened[2])
        text = "".join(f"{inner}\n" for inner in _until("-->" if hidden else "```", lines))
        if language == "text":
            assert found, f"line {number}: output without commands before it"
            found[-1] = replace(found[-1], expected=tuple(text.splitlines()))
        elif language in ("sh", "console", "run"):
            found.append(Block(number, language, frozenset(words.split()), text))
    return found


def _until(end: str, lines: Iterator[tuple[int, str]]) -> Iterator[str]:
    for _, line in lines:
        if line == end:
            return
        yield line
    raise AssertionError(f"a block has no {end}")


def complaint(commands: str) -> str:
    """Return what bash finds wrong with commands without running them."""
    return subprocess.run(["bash", "-n"], input=commands, capture_output=True, text=True, check=False).stderr


def missing(expected: Sequence[str], output: str) -> str | None:
    """Return the first expected line that the output has not, after the ones before it; None when all are there."""
    printed = iter([masked(line) for line in output.splitlines()])
    for line in expected:
        pattern = ".*".join(re.escape(part.strip()) for part in masked(line).split("…"))
        if pattern and not any(re.fullmatch(pattern, other) for other in printed):
            return line
    return None


def masked(line: str) -> str:
    """Return a line without what is another one each time."""
    for pattern, constant in _CHANGING:
        line = pattern.sub(constant, line)
    return line.strip()


def script(parts: Sequence[Block], names: Mapping[str, str], before: str = "") -> str:
    """Return the program that runs blocks.

    Parameters
    ----------
    parts : sequence of Block
    names : mapping
        What a reader would have put in the place of the document's own names.
    before : str
        Commands before the first block.
    """
    program = [_PRELUDE, before]
    for part in parts:
        text = part.text
        for name, own in names.items():
            text = text.replace(name, own)
        # What it says itself is none of the next command's output.
        text = _FORWARDS.sub(r"again() { \1 > forward-\2.log 2>&1 & }\nagain\nlistening \2", text)
        program.append(f"printf '{_MARK}%s\\n' {part.line}\n")
        if "fails" in part.words:
            refused = f'if [[ $status == 0 ]]; then echo "line {part.line}: expected to fail"; exit 99; fi\n'
            text = f"set +e\n{text}status=$?\nset -e\n{refused}"
        program.append(text)
    return "".join(program)


@dataclass(frozen=True)
class Run:
    """What a session came to: its exit code and each block's output, by line."""

    code: int
    outputs: dict[int, str]


def run(program: str, folder: Path, environ: Mapping[str, str], seconds: float) -> Run:
    """Run a program with bash, and end whatever it has left running."""
    with tempfile.TemporaryFile("w+") as output:
        # Not by `subprocess.run`: what runs on in the background would keep a pipe open.
        process = subprocess.Popen(
            ["bash", "-c", program],
            cwd=folder,
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            code = -1
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        output.seek(0)
        said = output.read()
    outputs = {}
    for part in said.split(_MARK)[1:]:
        line, _, text = part.partition("\n")
        outputs[int(line)] = text
    return Run(code, outputs)


def environ(**more: str) -> dict[str, str]:
    """Return a reader's environment: `muelle` on the path, no settings of ours."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("MUELLE_")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**kept, "PATH": path, **more}
