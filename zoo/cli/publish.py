"""``zoo publish``: a model and its card, to the Hub."""

from __future__ import annotations

from typing import Annotated

import typer

from zoo.cli.target import NameOrRun, Parent, with_parent


def publish(
    name: NameOrRun,
    repo: Annotated[str, typer.Argument(metavar="OWNER/REPO", help="Where on the Hub; made if it is not there.")],
    private: Annotated[bool, typer.Option("--private", help="Make the repository private.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Build and check everything, send nothing.")] = False,
    parent: Parent = None,
) -> None:
    """Publish a model with its card to the Hub, in one commit. A delta that needs --parent is published whole."""
    from zoo.publishing import publish as send

    publication = send(with_parent(name, parent), repo, private=private, dry_run=dry_run)
    if dry_run:
        typer.echo(f"Dry run: {publication.directory} holds what would be sent to {repo}.")
    else:
        note = "" if publication.created else " (it held exactly these files already)"
        typer.echo(f"{publication.url} at commit {publication.commit}{note}")
