"""The model card, README.md: written from what is recorded about a model, and from nothing else.

Every value that reaches the text is escaped for Markdown, or stands in a code span; the YAML header is dumped by a YAML
writer. The template is the package's own: none is ever taken from a repository.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from zoo.documents import mapping
from zoo.licences import non_commercial
from zoo.markdown import Ready, code, escape
from zoo.uncertainty import with_errors

if TYPE_CHECKING:
    from jinja2 import Template

    from zoo.model import Model

# Licences that the Hub has an identifier for; any other goes under "other" with its name.
_LICENSES = frozenset((
    "apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "cc-by-3.0", "cc-by-4.0", "cc-by-sa-4.0",
    "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "cc-by-nc-nd-4.0", "cc-by-nd-4.0", "openrail",
    "creativeml-openrail-m", "gpl-3.0", "lgpl-3.0", "agpl-3.0", "mpl-2.0", "unlicense", "odbl", "ofl-1.1",
))  # fmt: skip
_COLOURS = {1: "grey", 3: "RGB", 4: "RGBA"}
_REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)


def render(
    model: Model,
    *,
    run: Mapping[str, Any] | None = None,
    evaluation: Mapping[str, Any] | None = None,
    repo_id: str | None = None,
    samples: str | None = None,
) -> str:
    """Return the card of a model as Markdown with a YAML header; what is not recorded is left out.

    Args:
        model: its configuration, `architecture`, `origin` and `adapted` are read.
        run: what run.json says about the training that made these weights.
        evaluation: what evaluation.json says: {"values": ..., "receipt": ...}.
        repo_id: ``OWNER/REPO`` that it is published under.
        samples: name of a picture of samples beside the card.
    """
    config, origin, settings = model.config, model.origin, dict(run or {})
    values, receipt = _measured(evaluation)
    parent, license_ = _parent(model, settings), _license(model, settings)
    shape = f"[{4 if config.num_classes else 16}, {config.channels}, {config.resolution}, {config.resolution}]"
    versions = mapping(settings.get("versions"))
    text = _template().render(
        front=Ready(_front(model, settings, values, receipt, repo_id)),
        title=repo_id or f"{_kind(model)}, {config.resolution}x{config.resolution}",
        kind=_kind(model),
        images=_images(model),
        **_about(model.architecture),
        parent=parent and _named(parent),
        address=Ready(json.dumps(f"hub:{repo_id}" if repo_id else "dir:PATH_OF_THIS_FOLDER")),
        example=Ready("4, labels=[0, 0, 0, 0], seed=0" if config.num_classes else "16, seed=0"),
        shape=Ready(shape),
        samples=samples and Ready(re.sub(r"[^\w.-]", "_", samples, flags=re.ASCII)),
        training=_training(settings, origin, parent, license_),
        values=[(name, _told(value, error)) for name, value, error in with_errors(values)],
        receipt=_receipt(receipt),
        limitations=_limitations(model, license_, values),
        config=[(code(name), code(json.dumps(value))) for name, value in config.model_dump(mode="json").items()],
        versions=", ".join(f"{name} {version}" for name, version in versions.items()),
    )
    return re.sub(r"\n{3,}", "\n\n", text).rstrip() + "\n"


# What is said.


def _kind(model: Model) -> str:
    return f"{model.architecture or type(model).__name__} model"


def _images(model: Model) -> str:
    config = model.config
    colour = _COLOURS.get(config.channels, f"{config.channels}-channel")
    classes = f", {config.num_classes} classes" if config.num_classes else ""
    return f"{colour} images of {config.resolution}x{config.resolution} pixels{classes}"


def _about(architecture: str) -> dict[str, str]:
    """Return what the architecture's plugin says of it; nothing where no plugin does."""
    from zoo.registry import architectures

    found = architectures().get(architecture)
    return {"summary": found.summary.rstrip(".") if found else "", "paper": found.paper.rstrip(".") if found else ""}


def _parent(model: Model, run: Mapping[str, Any]) -> Mapping[str, Any]:
    return mapping(run.get("parent") or model.origin.get("parent"))


def _license(model: Model, run: Mapping[str, Any]) -> str:
    """Return the licence of the weights: what the origin says, which a fine-tune takes over from its parent."""
    return str(model.origin.get("license") or _parent(model, run).get("license") or "")


def _named(parent: Mapping[str, Any]) -> str:
    repo, name = parent.get("repo"), parent.get("name")
    words = [str(repo or name or "")] + ([f"at {str(parent['commit'])[:10]}"] if parent.get("commit") else [])
    return " ".join(words).strip()


def _training(
    run: Mapping[str, Any], origin: Mapping[str, Any], parent: Mapping[str, Any], license_: str
) -> list[tuple[str, object]]:
    given = {**origin, **run}
    data, recipe = given.get("data"), mapping(run.get("recipe"))
    facts = mapping(data) or {"name": data}
    rows = {
        "data": public_name(facts.get("name")),
        "images": facts.get("images"),
        "data fingerprint": facts.get("fingerprint"),
        "classes in the data": len(classes) if isinstance(classes := facts.get("classes"), list) and classes else None,
        "thousand images shown": given.get("kimg"),
        "images a step": recipe.get("batch"),
        "method": given.get("method"),
        "learning rate": recipe.get("lr"),
        "precision": run.get("precision"),
        "processes": run.get("processes"),
        "seed": run.get("seed"),
        "values that were not finite": _faults(mapping(given.get("faults"))),
        "what the watchdog saw": _watchdog(mapping(given.get("watchdog"))),
        "parent": _named(parent),
        "licence": license_,
    }
    return [(name, _number(value)) for name, value in rows.items() if value not in (None, "")]


def _faults(faults: Mapping[str, Any]) -> str:
    """Return what a training did about values that were not finite; nothing where there were none."""
    skipped, back = (count if isinstance(count := faults.get(name), int) else 0 for name in ("skipped", "rolled_back"))
    said = [f"{skipped} step{'s' if skipped > 1 else ''} left out"] if skipped else []
    if back:
        said.append(f"went back {'once' if back == 1 else f'{back} times'} to an earlier state")
    return ", ".join(said)


def _watchdog(seen: Mapping[str, Any]) -> str:
    """Return what went wrong in a training, in the watchdog's words, and what was done; nothing where nothing was."""
    said = []
    for name, facts in seen.items():
        since, back = mapping(facts).get("since"), mapping(facts).get("rolled_back")
        told = [f"from {since:g} kimg"] if isinstance(since, int | float) else []
        if back and isinstance(back, int):
            told.append(f"went back {'once' if back == 1 else f'{back} times'} to an earlier state")
        said.append(f"{name}: {', '.join(told)}")
    return "; ".join(said)


def _measured(evaluation: Mapping[str, Any] | None) -> tuple[dict[str, float], Mapping[str, Any]]:
    found = mapping(evaluation)
    values = {name: value for name, value in mapping(found.get("values")).items() if isinstance(value, (int, float))}
    return values, mapping(found.get("receipt")) if values else {}


def _receipt(receipt: Mapping[str, Any]) -> list[tuple[str, object]]:
    data, features = mapping(receipt.get("data")), mapping(receipt.get("features"))
    rows = {
        "samples": receipt.get("fake_images"),
        "real images": receipt.get("real_images"),
        "real data": public_name(data.get("name")),
        "data fingerprint": data.get("fingerprint"),
        "features": features.get("name"),
        "sha256 of the features' weights": features.get("digest"),
        "resize": features.get("resize"),
        "seed": receipt.get("seed"),
        "psi": receipt.get("psi"),
        "labels": receipt.get("labels"),
        "from fewer images than can be trusted": "yes" if receipt.get("forced") else None,
    }
    return [(name, _number(value)) for name, value in rows.items() if value not in (None, "")]


def _limitations(model: Model, license_: str, values: Mapping[str, float]) -> list[str]:
    lines = ["The images follow the training data, its gaps and its biases; they can resemble single training images."]
    if not values:
        lines.append("How good the images are has not been measured, or the measurement is not recorded here.")
    if non_commercial(license_):
        lines.append(f"The licence ({license_}) does not allow commercial use.")
    if not license_:
        lines.append("No licence is recorded: ask the publisher before you use the weights.")
    changed = sorted({what.split()[0] for what in model.adapted.values()} - {"copied"})
    if changed:
        lines.append(f"Tensors were fitted to this configuration when the parent was loaded: {', '.join(changed)}.")
    return lines


def _front(
    model: Model, run: Mapping[str, Any], values: Mapping[str, float], receipt: Mapping[str, Any], repo_id: str | None
) -> str:
    import yaml

    license_, parent = _license(model, run), _parent(model, run)
    known = license_.lower() in _LICENSES
    data = mapping({**model.origin, **run}.get("data")).get("name") or model.origin.get("data")
    dataset = str(data).removeprefix("hf:") if str(data).startswith("hf:") else ""
    base = str(parent.get("repo") or "")
    tags = (_line(model.architecture), "class-conditional" if model.config.num_classes else "")
    entries: dict[str, Any] = {
        "library_name": "genzoo",
        "pipeline_tag": "unconditional-image-generation",
        "license": (license_.lower() if known else "other") if license_ else None,
        "license_name": _line(license_) if license_ and not known else None,
        "tags": [tag for tag in tags if tag],
        "base_model": base if _REPO.fullmatch(base) and base != repo_id else None,
        "datasets": [dataset] if _REPO.fullmatch(dataset) else None,
        "model-index": _index(values, receipt, repo_id or _kind(model)) if values else None,
    }
    known_entries = {name: value for name, value in entries.items() if value}
    return yaml.safe_dump(known_entries, sort_keys=False, allow_unicode=True).strip()


def _index(values: Mapping[str, float], receipt: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    data = _line(public_name(mapping(receipt.get("data")).get("name")) or "unnamed")
    result = {
        "task": {"type": "unconditional-image-generation", "name": "Unconditional Image Generation"},
        "dataset": {"type": data, "name": data},
        "metrics": [
            {"type": _line(metric), "name": _line(metric), "value": float(value)}
            for metric, value, _ in with_errors(values)
        ],
    }
    return [{"name": name, "results": [result]}]


# Plain values.


def _number(value: object) -> object:
    return f"{value:.6g}" if isinstance(value, float) else value


def _told(value: float, error: float | None) -> object:
    return _number(value) if error is None else f"{value:.6g} ± {error:.2g}"


def _line(value: object) -> str:
    return " ".join(str(value).split())[:200]


def public_name(name: object) -> str:
    """Return the name of a data set without the folders above it, which are the publisher's own affair."""
    text = str(name or "")
    return text if text == "emoji" or text.startswith(("hf:", "emoji:")) else PurePath(text).name


@cache
def _template() -> Template:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    # What an expression yields goes through `escape`, so that no value can be forgotten.
    places = PackageLoader("zoo", "")
    return Environment(loader=places, undefined=StrictUndefined, finalize=escape).get_template("card.md.jinja")
