"""``muelle serve``: flags become ``MUELLE_*`` variables, and gunicorn takes this process's place."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, Final

import click

from muelle.cli.options import ENGINES, allow_module_option
from muelle.cli.output import note, print_table
from muelle.store import first_existing
from service.auth import ApiKeys
from service.command import gunicorn_command
from service.settings import Settings, describe

#: The client's variable (`muelle check`): in a shell that serves too, it is no setting of the server.
_CLIENT_KEY: Final = "MUELLE_API_KEY"
#: Workers are what takes the processors. Numerical libraries that start a thread a core in each of them make large
#: batches ten times slower, as the threads wait for one another. Whoever sets one of these knows better.
_ONE_THREAD: Final = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def _print_settings(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        print_table("", ("variable", "expects", "default", "what for"), describe())
        ctx.exit()


@click.command()
@click.option(
    "--models",
    metavar="PATH[:PATH...]",
    help="Folder of all models, or one bundle; of several the first that exists.  [default: models]",
)
@click.option("--host", help="Address to listen on.  [default: 0.0.0.0]")
@click.option("--port", type=int, help="Port to listen on.  [default: 8080]")
@click.option("--workers", type=int, help="Worker processes.  [default: 2]")
@click.option("--threads", type=int, help="Threads of a worker.  [default: 2]")
@click.option("--engine", type=click.Choice(ENGINES), help="What runs the models.  [default: auto]")
@click.option(
    "--model",
    "default_model",
    help="Model that answers /predict.  [default: the only one, or that in MODELS/default-model]",
)
@allow_module_option
@click.option("--api-keys", "api_keys_file", type=click.Path(path_type=Path), help="File of API keys, see api-key.")
@click.option("--log-level", help="debug, info, warning, error or critical.  [default: info]")
@click.option(
    "--settings", is_flag=True, is_eager=True, expose_value=False, callback=_print_settings, help="List all variables."
)
def serve(*, allowed_modules: tuple[str, ...], **flags: Any) -> None:
    """Serve every model of a repository over HTTP, under gunicorn.

    Each flag stands for a MUELLE_* variable and goes before it; limits and timeouts have variables only, which
    --settings lists. SIGTERM finishes what was accepted, SIGHUP loads the models anew.

    \b
    Example:
      muelle serve --port 5000 --model iris
    """  # noqa: D301  # \b is click's mark for "don't rewrap"
    if allowed_modules:
        flags["allowed_modules"] = ",".join(allowed_modules)
    environ = _ONE_THREAD | {key: value for key, value in os.environ.items() if key != _CLIENT_KEY}
    environ |= {f"MUELLE_{name.upper()}": str(value) for name, value in flags.items() if value is not None}
    # Here, so that a wrong value is told at once, and not by each worker.
    settings = Settings.from_environ(environ)
    if settings.api_keys_file is not None:
        ApiKeys(settings.api_keys_file)
    folder = first_existing(settings.models)
    if folder is None or not folder.is_dir():
        named = ", ".join(map(str, settings.models if folder is None else [folder]))
        note(f"{named}: no such folder; `muelle train iris` makes one with a model in it")
    command = gunicorn_command()
    sys.stdout.flush()
    os.execve(command[0], command, environ)  # noqa: S606  # no shell: the command is ours
