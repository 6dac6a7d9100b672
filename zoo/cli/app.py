"""The verbs of the command line; each is one function in the module of its name."""

from __future__ import annotations

from typing import Annotated

import typer

from zoo.cli.compare import compare
from zoo.cli.convert import convert
from zoo.cli.demo import demo
from zoo.cli.doctor import doctor
from zoo.cli.evaluate import evaluate
from zoo.cli.explain import explain
from zoo.cli.finetune import finetune
from zoo.cli.info import info
from zoo.cli.listing import list_models
from zoo.cli.plugins import list_plugins
from zoo.cli.publish import publish
from zoo.cli.recipes import recipes
from zoo.cli.report import report
from zoo.cli.sample import sample
from zoo.cli.show import show
from zoo.cli.train import train

HELP = {"help_option_names": ["-h", "--help"]}
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, context_settings=HELP)
plugins = typer.Typer(help="The plugins that add architectures, metrics and features.")

app.command("list")(list_models)
app.command("info")(info)
app.command("sample")(sample)
app.command("show")(show)
app.command("train")(train)
app.command("finetune")(finetune)
app.command("evaluate")(evaluate)
app.command("compare")(compare)
app.command("publish")(publish)
app.command("convert")(convert)
app.command("doctor")(doctor)
app.command("explain")(explain)
app.command("report")(report)
app.command("recipes")(recipes)
app.command("demo")(demo)
app.add_typer(plugins, name="plugins")
plugins.command("list")(list_plugins)


@plugins.callback()
def _plugins() -> None:
    """The plugins that add architectures, metrics and features."""


@app.callback(invoke_without_command=True)
def _zoo(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error. May stand anywhere.")] = False,
) -> None:
    """A zoo of generative image models: load, convert, sample, fine-tune, evaluate, publish."""
    if version:
        from importlib.metadata import version as installed

        typer.echo(f"zoo {installed('genzoo')}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
