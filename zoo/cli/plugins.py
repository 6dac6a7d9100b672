"""``zoo plugins list``: what became of every installed plugin."""

from __future__ import annotations

from zoo.cli.output import Json, columns, document


def list_plugins(json: Json = False) -> None:
    """List the installed plugins, and why one of them cannot be used."""
    from dataclasses import asdict

    from zoo.registry import plugins

    if json:
        document([asdict(record) for record in plugins()])
        return
    rows = [
        (record.name, record.source, record.status, ", ".join(record.architectures) or "-", record.reason)
        for record in plugins()
    ]
    columns(rows, ("PLUGIN", "DISTRIBUTION", "STATUS", "ARCHITECTURES", "WHY"))
