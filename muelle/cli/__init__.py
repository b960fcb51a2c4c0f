"""``muelle …``: one module a command, each imported only when it is called, so that ``muelle serve`` starts at once."""

from __future__ import annotations

import click

from muelle import __version__
from muelle.cli.lazy import LazyGroup

#: Command → where it is, and its line in ``muelle --help``.
_COMMANDS = {
    "demo": ("muelle.cli.demo:demo", "Train, bundle, serve and predict: the whole way on real data."),
    "train": ("muelle.cli.train:train", "Train the examples and write them as bundles."),
    "bundle": ("muelle.cli.bundle:bundle", "Turn a fitted estimator into a bundle, without writing Python."),
    "inspect": ("muelle.cli.inspect:inspect", "Say what is in a bundle or model file, executing nothing of it."),
    "verify": ("muelle.cli.verify:verify", "Check a bundle: digests, libraries, loading, golden outputs."),
    "serve": ("muelle.cli.serve:serve", "Serve every model of a repository over HTTP."),
    "dev": ("muelle.cli.dev:dev", "Serve, and start anew when the code of Muelle changes."),
    "predict": ("muelle.cli.predict:predict", "Answer rows of a file in this process, without a server."),
    "check": ("muelle.cli.check:check", "Try a running server: health, good input, bad input."),
    "fetch": ("muelle.cli.fetch:fetch_command", "Fetch bundles from a store or registry, verified."),
    "push": ("muelle.cli.push:push_command", "Push a bundle to a store or registry, and print its digest."),
    "list": ("muelle.cli.list_models:list_models", "List the models and versions of a repository."),
    "diff": ("muelle.cli.diff:diff", "Compare two bundles: signature, scores, data, libraries."),
    "drift": ("muelle.cli.drift:drift", "Compare rows of a file with the data that a model was made from."),
    "quality": ("muelle.cli.quality:quality", "Score the prediction log against the labels that came later."),
    "deploy": ("muelle.cli.deploy:deploy", "Put models into the idle slot of a release, without traffic."),
    "traffic": ("muelle.cli.traffic:traffic", "Give the candidate a share of the requests, or copies of them."),
    "promote": ("muelle.cli.promote:promote", "Make the candidate the stable slot."),
    "rollback": ("muelle.cli.rollback:rollback", "Take back the candidate, or the last promotion."),
    "status": ("muelle.cli.status:status", "Show slots, models, pods and shares of a release."),
    "api-key": ("muelle.cli.api_key:api_key", "Make an API key and the line that the server's file needs."),
}


@click.group(cls=LazyGroup, commands_at=_COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="muelle")
def main() -> None:
    """Serve scikit-learn-class models: train or bundle, verify, serve, predict.

    \b
    Example, from nothing to an answer:
      muelle train iris
      muelle serve
      curl -s localhost:8080/predict -H 'Content-Type: application/json' \\
        -d '{"features": [5.1, 3.5, 1.4, 0.2]}'

    Exit codes: 0 fine; 1 what was asked about is bad, or the command failed; 2 wrong usage.
    """  # noqa: D301  # \b is click's mark for "don't rewrap"
