"""``make sync``: the ``# --`` comments of a chart's values.yaml, copied to where people and editors look for them.

They become the table of values in the chart's README.md, between two marks, and the descriptions in values.schema.json.
A key with a comment is described as a whole; one without must be a map whose keys have comments. values.yaml and the
schema must know the same keys.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

BEGIN: Final = "<!-- values: written by `make sync` -->"
END: Final = "<!-- end of values -->"
#: Helm gives this key to every chart that is part of another; no values.yaml has it.
GLOBAL: Final = "global"
_MARK: Final = re.compile(r"#\s*--\s?(.*)")
_TYPES: Final = {
    "str": "string",
    "int": "integer",
    "float": "number",
    "bool": "boolean",
    "seq": "list",
    "map": "map",
    "null": "null",
}


class ChartError(Exception):
    """What is wrong with the chart's files, in a sentence."""


@dataclass(frozen=True)
class Value:
    """One documented key.

    Attributes
    ----------
    path : tuple of str
        The key and those that it stands in, outermost first.
    type : str
        The type of its default.
    default : object
        Its value in values.yaml.
    text : str
        The comment, as one line.
    """

    path: tuple[str, ...]
    type: str
    default: Any
    text: str


def documented(text: str, where: str) -> list[Value]:
    """Return the documented keys of a values.yaml, in its order.

    Parameters
    ----------
    text : str
        The file.
    where : str
        Its name, for messages.

    Raises
    ------
    ChartError
        When it is no map, or a key has no comment.
    """
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise ChartError(f"{where}: {error}") from error
    if not isinstance(root, yaml.MappingNode):
        raise ChartError(f"{where}: expected a map of values")
    return list(_walk(root, (), text.splitlines(), where))


def _walk(node: yaml.MappingNode, above: tuple[str, ...], lines: Sequence[str], where: str) -> Iterator[Value]:
    for key, value in node.value:
        path = (*above, str(key.value))
        comment = _comment_above(key.start_mark.line, lines)
        if comment is not None:
            # Made from the node itself, so that aliases and tags mean what they mean to Helm.
            default = yaml.constructor.SafeConstructor().construct_document(value)
            yield Value(path, _TYPES.get(value.tag.rsplit(":", 1)[-1], "string"), default, comment)
        elif isinstance(value, yaml.MappingNode) and value.value:
            yield from _walk(value, path, lines, where)
        else:
            raise ChartError(f"{where}:{key.start_mark.line + 1}: {'.'.join(path)} has no `# --` comment above it")


def _comment_above(line: int, lines: Sequence[str]) -> str | None:
    """Return the comment that ends on the line before, as one line of text; None when there is no `# --` in it."""
    found: list[str] = []
    for text in reversed([line.strip() for line in lines[:line]]):
        if not text.startswith("#"):
            break
        if start := _MARK.fullmatch(text):
            return " ".join([start[1], *reversed(found)]).strip()
        found.append(text.lstrip("#").strip())
    return None


def table(values: Sequence[Value]) -> str:
    """Return the values as a Markdown table."""
    rows = ["| Key | Type | Default | Meaning |", "| --- | --- | --- | --- |"]
    for value in values:
        default = json.dumps(value.default, ensure_ascii=False)
        cells = (f"`{'.'.join(value.path)}`", value.type, f"`{default}`", value.text)
        rows.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(rows)


def with_table(readme: str, rows: str, where: str) -> str:
    """Return a README with the table between its marks.

    Raises
    ------
    ChartError
        When the marks aren't there, once each and in order.
    """
    parts = re.split(f"({re.escape(BEGIN)}|{re.escape(END)})", readme)
    if parts[1::2] != [BEGIN, END]:
        raise ChartError(f"{where}: expected the line {BEGIN} and after it the line {END}")
    return f"{parts[0]}{BEGIN}\n\n{rows}\n\n{END}{parts[4]}"


def describe(schema: dict[str, Any], values: Sequence[Value], where: str) -> None:
    """Write the comments into a schema as descriptions.

    Raises
    ------
    ChartError
        When the schema lacks a key, or has one that values.yaml lacks.
    """
    for value in values:
        node = schema
        for depth, step in enumerate(value.path):
            try:
                node = node["properties"][step]
            except KeyError:
                raise ChartError(f"{where}: no property {'.'.join(value.path[: depth + 1])}") from None
        node["description"] = value.text
    known = {value.path[:depth] for value in values for depth in range(1, len(value.path) + 1)}
    whole = {value.path for value in values}
    for path in _properties(schema, (), whole):
        if path not in known and path != (GLOBAL,):
            raise ChartError(f"{where}: property {'.'.join(path)} is not in values.yaml")


def _properties(node: dict[str, Any], above: tuple[str, ...], whole: set[tuple[str, ...]]) -> Iterator[tuple[str, ...]]:
    for name, below in node.get("properties", {}).items():
        path = (*above, name)
        yield path
        if path not in whole:
            yield from _properties(below, path, whole)


def wanted(chart: Path) -> dict[Path, str]:
    """Return what a chart's files that are written from values.yaml must contain.

    Raises
    ------
    ChartError
        When one is missing or doesn't fit values.yaml.
    """
    sources = {name: chart / name for name in ("values.yaml", "README.md", "values.schema.json")}
    texts = {}
    for name, path in sources.items():
        try:
            texts[name] = path.read_text("utf-8")
        except OSError as error:
            raise ChartError(f"{path}: can't be read: {error.strerror}") from error
    values = documented(texts["values.yaml"], str(sources["values.yaml"]))
    readme, schema_file = sources["README.md"], sources["values.schema.json"]
    try:
        schema = json.loads(texts["values.schema.json"])
    except ValueError as error:
        raise ChartError(f"{schema_file}: {error}") from error
    describe(schema, values, str(schema_file))
    return {
        readme: with_table(texts["README.md"], table(values), str(readme)),
        schema_file: json.dumps(schema, indent=2, ensure_ascii=False) + "\n",
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the files, or say which are out of date."""
    parser = argparse.ArgumentParser(prog="python -m tools.chart_readme", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("charts", nargs="+", type=Path, metavar="CHART", help="a chart's folder")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 when a file is out of date")
    options = parser.parse_args(arguments)
    stale = []
    try:
        for chart in options.charts:
            for path, text in wanted(chart).items():
                if path.read_text("utf-8") != text:
                    stale.append(path)
                    if not options.check:
                        path.write_text(text, "utf-8")
    except ChartError as error:
        sys.exit(str(error))
    if stale and options.check:
        sys.exit("\n".join(f"{path}: is not what values.yaml says; run `make sync`" for path in stale))
    for path in stale:
        sys.stdout.write(f"{path}\n")


if __name__ == "__main__":
    main()
