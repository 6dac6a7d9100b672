"""From a name to a model: create with random weights, load with trained ones, save."""

from __future__ import annotations

from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo import conversion_cache
from zoo.errors import UnknownName, WeightsError
from zoo.registry import architecture as find_architecture
from zoo.registry import resolve

if TYPE_CHECKING:
    import torch

    from zoo.model import Model
    from zoo.plugin import Weights
    from zoo.storage import Checkpoint, Parent


def create(name: str, **config: object) -> Model:
    """Return a model of the named architecture with random weights.

    Args:
        config: the architecture's settings, such as ``resolution=64, channels=1, num_classes=10``; `zoo info NAME`
            lists them.

    Raises:
        UnknownName, ConfigError: with one line that names what is possible.
    """
    from zoo.weights import build

    _refuse_other_than_text(name)
    return build(find_architecture(name).name, config)


def load(
    name: str,
    *,
    revision: str | None = None,
    adapt: bool = False,
    device: str | torch.device | None = None,
    parent: str | None = None,
    cache_dir: str | Path | None = None,
    token: str | None = None,
    **config: Any,
) -> Model:
    """Return a model with trained weights.

    Args:
        name: ``ARCH`` (its default weights), ``ARCH.TAG``, ``hub:OWNER/REPO[@REVISION]`` or ``dir:PATH``.
        revision: commit, tag or branch of a Hub repository.
        adapt: fit the weights to `config`: another resolution, channel count or number of classes;
            ``model.adapted`` lists what was copied, grown or re-initialised.
        device: where to put the weights; None: the CPU.
        parent: of a delta (`zoo.deltas`): the name of the weights it is added to, where these are not those it names.
        cache_dir, token: of the Hub client.
        config: settings to change from the stored ones.

    Raises:
        UnknownName, HubError, WeightsError, ConfigError: with one line that says what to do.
    """
    from zoo import weights

    folder, origin = _locate(name, revision, cache_dir, token)
    whole = partial(made_whole, parent=parent, cache_dir=cache_dir, token=token)
    try:
        model = weights.load(folder, adapt=adapt, device=device, whole=whole, **config)
    except WeightsError:
        if not folder.is_relative_to(conversion_cache.home(cache_dir)) or conversion_cache.sound(folder):
            raise
        conversion_cache.forget(folder)      # made on this machine from a foreign file: make it again
        folder, origin = _locate(name, revision, cache_dir, token)
        model = weights.load(folder, adapt=adapt, device=device, whole=whole, **config)
    # What a folder remembers of its own weights comes first; where they were fetched from is known here alone.
    kept = model.origin if origin["name"].startswith("dir:") else {}
    data = origin.pop("data", "")
    model.origin = {**({"data": {"name": data}} if data else {}), **model.origin, **origin, **kept}
    return model


def save(model: Model, directory: str | Path, *, delta: bool = False) -> Path:
    """Write config.json, model.safetensors, README.md and manifest.json into a folder and return it.

    Args:
        delta: write only what a fine-tune with method lora changed; `zoo.load` adds it to the parent.
    """
    from zoo import deltas, weights

    return deltas.save(model, directory) if delta else weights.save(model, directory)


def made_whole(
    delta: Checkpoint,
    *,
    parent: str | None = None,
    cache_dir: str | Path | None = None,
    token: str | None = None,
) -> Checkpoint:
    """Return the checkpoint of a delta added to its parent, which is looked up by name.

    Args:
        parent: another name to look for it by.

    Raises:
        WeightsError: the delta names no parent that others have, or one of other weights.
    """
    from zoo import deltas
    from zoo.storage import read

    given = [parent] if parent is not None else []

    def find(said: Parent) -> Checkpoint:
        name = given.pop() if given else ""
        if not name and (not said.name or said.name.startswith("dir:")):
            known = f" ({said.name})" if said.name else ""
            raise WeightsError(
                f"This delta was made on weights that lie in a folder{known}, sha256 {said.sha256[:12]}: give them as "
                "parent='dir:PATH'."
            )
        folder, _ = _locate(name or said.name, None if name else said.commit, cache_dir, token)
        return read(folder)

    return deltas.whole(delta, find)


def _locate(
    name: str, revision: str | None, cache_dir: str | Path | None, token: str | None
) -> tuple[Path, dict[str, Any]]:
    _refuse_other_than_text(name)
    kind, _, rest = name.partition(":")
    if kind == "dir" and rest:
        if revision is not None:
            raise WeightsError(f"{name} is a folder and has no revisions: leave revision={revision!r} out.")
        return Path(rest), {"name": f"dir:{Path(rest).name}"}
    if kind == "hub" and rest:
        return _fetched(rest, revision, cache_dir, token, {"name": name})
    if "/" in name:
        raise UnknownName(f"{name!r} is ambiguous: write 'hub:{name}' (a Hub repository) or 'dir:{name}' (a folder).")
    architecture, tag, entry = resolve(name)
    origin = {"name": f"{architecture.name}.{tag}", "license": entry.license, "data": entry.data}
    if entry.bundled is not None:
        if revision is not None:
            raise WeightsError(f"{name} is bundled with its plugin and has no revisions: leave revision out.")
        return bundled(entry.bundled), origin
    assert entry.repo is not None
    if entry.files:
        full = str(origin["name"])
        found = conversion_cache.fetched(full, entry, revision=revision, cache_dir=cache_dir, token=token)
        return found, {**origin, "repo": entry.repo}
    return _fetched(entry.repo, revision or entry.revision, cache_dir, token, origin)


def _refuse_other_than_text(name: object) -> None:
    if not isinstance(name, str):
        given = f"{type(name).__name__} {str(name)[:80]!r}"
        raise UnknownName(f"{given} is no name: give text, such as 'stylegan', 'hub:OWNER/REPO' or 'dir:PATH'.")


def bundled(place: str) -> Path:
    """Return the folder of weights that an installed package holds, from "package:folder".

    Raises:
        WeightsError: the package is not installed.
    """
    package, _, folder = place.partition(":")
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise WeightsError(f"{place}: the package {package!r} is not installed; reinstall the plugin.")
    return Path(spec.submodule_search_locations[0], folder)


def held(name: str, entry: Weights) -> Path | None:
    """Return the folder of weights of the Hub that lie on this machine, or None; makes no request."""
    from zoo import hub

    if entry.files:
        return conversion_cache.cached(name, entry)
    assert entry.repo is not None
    return hub.held(entry.repo, entry.revision)


def _fetched(
    repo: str, revision: str | None, cache_dir: str | Path | None, token: str | None, origin: dict[str, Any]
) -> tuple[Path, dict[str, Any]]:
    from zoo import hub

    repo, _, written = repo.partition("@")
    if written and revision and written != revision:
        raise UnknownName(f"Two revisions for {repo}: @{written} in the name and revision={revision!r}; give one.")
    fetched = hub.fetch(repo, revision=revision or written or None, cache_dir=cache_dir, token=token)
    return fetched.directory, {**origin, "repo": repo, "commit": fetched.commit}
