"""All that a plugin's entry module needs; importing this module imports no torch.

A plugin is a distribution with an entry point in the group ``zoo`` that names a light module::

    [project.entry-points.zoo]
    acme = "acme_gan"

whose hooks *return* what it adds::

    from zoo.plugin import Architecture, hookimpl

    @hookimpl
    def zoo_architectures():
        return [Architecture("acme", model="acme_gan.model:AcmeGAN", summary="...", paper="...")]

The model class is named, not imported, so that ``zoo list`` answers without loading torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pluggy

from zoo.errors import PluginError

GROUP = "zoo"
hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)

_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
_CLASS = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


@dataclass(frozen=True)
class Weights:
    """Facts about one set of trained weights; its tag is the key it stands under in `Architecture.weights`.

    Exactly one of `bundled` and `repo` says where they are.
    """

    summary: str                      # one line: what it makes
    license: str                      # SPDX name, or the words of the licence that covers the weights
    bundled: str | None = None        # "package:folder": a published model's files inside an installed package
    repo: str | None = None           # "owner/name" on the Hub
    revision: str | None = None       # commit, tag or branch of `repo`; None: its main branch
    resolution: int | None = None     # pixels
    data: str = ""                    # what it was trained on
    files: tuple[str, ...] = ()       # foreign files of `repo` to convert; (): it is a model that zoo.publish made
    format: str = "auto"              # of the foreign files: a name that a plugin's `zoo_formats` gives
    expected: Mapping[str, object] = field(default_factory=dict)      # settings that the conversion must find
    size: int | None = None           # bytes to download, where it is known
    paper: str = ""                   # of these weights, where it is another than the architecture's

    def __post_init__(self) -> None:
        if (self.bundled is None) == (self.repo is None):
            raise PluginError("Weights need exactly one of bundled='package:folder' and repo='owner/name'.")
        if self.files and self.repo is None:
            raise PluginError("Weights with files='...' are foreign ones on the Hub: give repo='owner/name'.")


@dataclass(frozen=True)
class Architecture:
    """One architecture that a plugin adds: a name, where its model class is, and its known weights."""

    name: str                                                    # lower case letters, digits and _
    model: str                                                   # "package.module:Class", a subclass of zoo.Model
    summary: str                                                 # one line
    paper: str = ""                                              # authors, year, arXiv number
    weights: Mapping[str, Weights] = field(default_factory=dict)  # tag -> facts
    default: str | None = None                                   # the tag that the bare name stands for
    variants: Mapping[str, str] = field(default_factory=dict)    # value of the setting `variant` -> another model class

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise PluginError(f"{self.name!r} is no architecture name: use a-z, 0-9 and '_', at most 40 of them.")
        for model in (self.model, *self.variants.values()):
            if not _CLASS.fullmatch(model):
                raise PluginError(f"Architecture {self.name!r}: model={model!r} must read 'package.module:Class'.")
        for tag in self.weights:
            if not re.fullmatch(r"[a-z0-9][a-z0-9_]{0,39}", tag):
                raise PluginError(f"Architecture {self.name!r}: {tag!r} is no weights tag: use a-z, 0-9 and '_'.")
        if self.default is not None and self.default not in self.weights:
            raise PluginError(f"Architecture {self.name!r}: its default tag {self.default!r} is not among its weights.")


class Hooks:
    """The whole contract: each hook takes nothing and returns what the plugin adds."""

    @hookspec
    def zoo_architectures(self) -> Iterable[Architecture]:
        """Return the architectures of this plugin. Light: names the model class, does not import it."""
        raise NotImplementedError

    @hookspec
    def zoo_metrics(self) -> Mapping[str, Any]:
        """Return metric name -> "package.module:function"; see `zoo.metrics` for what the function takes."""
        raise NotImplementedError

    @hookspec
    def zoo_features(self) -> Mapping[str, Any]:
        """Return feature name -> "package.module:factory"; see `zoo.metrics.features` for what it returns."""
        raise NotImplementedError

    @hookspec
    def zoo_formats(self) -> Mapping[str, Any]:
        """Return format name -> "package.module:FORMAT", a `zoo.formats.contract.Format`: a reader of foreign files."""
        raise NotImplementedError

    @hookspec
    def zoo_additions(self) -> Mapping[str, Any]:
        """Return addition name -> "package.module:ADDITION", a `zoo.additions.contract.Addition`: what `--add` adds."""
        raise NotImplementedError
