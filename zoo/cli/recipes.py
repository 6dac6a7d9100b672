"""``zoo recipes``: what can be added to a training, and the failure that each addition addresses."""

from __future__ import annotations

from typing import Annotated

import typer

from zoo.cli.output import Json, columns, document


def recipes(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="One of them, with paper and options.")] = None,
    json: Json = False,
) -> None:
    """List what --add adds to a training and the losses of --set loss=, each with the failure that it addresses."""
    from zoo.additions.listing import listed

    rows = listed(name)
    if json:
        document(rows)
    elif name:
        for row in rows:
            typer.echo(row["use"])
            about = {"does": row["summary"], "against": row["failure"], "paper": row["paper"]}
            columns([(f"  {what}", text) for what, text in about.items() if text])
    else:
        header = ("TO USE IT", "AGAINST", "WHAT IT DOES")
        columns([(row["use"].partition(":")[0], row["failure"], row["summary"]) for row in rows], header)
