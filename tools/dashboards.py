"""``make sync``: Grafana's dashboards, written from monitoring/dashboards/*.py to monitoring/dashboards/json."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from monitoring.dashboards import cost, model, rollout, service

#: How each is made, by its file's name.
BUILDERS: Final[Mapping[str, Callable[[], Any]]] = {
    "service": service.build,
    "model": model.build,
    "rollout": rollout.build,
    "cost": cost.build,
}
FOLDER: Final = Path("monitoring/dashboards/json")


def wanted() -> Mapping[str, str]:
    """Return what each file must contain, by its name."""
    encoder = JSONEncoder(indent=2, sort_keys=True, ensure_ascii=False)
    return {f"{name}.json": encoder.encode(build()) + "\n" for name, build in BUILDERS.items()}


def stale(folder: Path, texts: Mapping[str, str]) -> list[Path]:
    """Return the files that are missing, differ, or belong to no dashboard."""
    there = {path.name: path for path in folder.glob("*.json")}
    differ = [
        folder / name for name, text in texts.items() if name not in there or there[name].read_text("utf-8") != text
    ]
    return differ + [path for name, path in sorted(there.items()) if name not in texts]


def write(folder: Path, texts: Mapping[str, str]) -> list[Path]:
    """Bring the files up to date; return those that were not."""
    changed = stale(folder, texts)
    folder.mkdir(parents=True, exist_ok=True)
    for path in changed:
        if path.name in texts:
            path.write_text(texts[path.name], "utf-8")
        else:
            path.unlink()
    return changed


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the files, or say which are out of date."""
    parser = argparse.ArgumentParser(prog="python -m tools.dashboards", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the files are (default: %(default)s)")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 when a file is out of date")
    options = parser.parse_args(arguments)
    if options.check:
        if found := stale(options.folder, wanted()):
            sys.exit("\n".join(f"{path}: is not what monitoring/dashboards says; run `make sync`" for path in found))
        return
    for path in write(options.folder, wanted()):
        sys.stdout.write(f"{path}\n")


if __name__ == "__main__":
    main()
