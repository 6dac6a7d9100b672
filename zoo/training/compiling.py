"""torch.compile for the turns that allow it: a module that a loss calls runs compiled, what it calls within it.

State-dict keys, hooks and samples are untouched: only `forward` is replaced, and only while a turn lasts.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from zoo.errors import ConfigError
from zoo.model import Model
from zoo.recipe import Phase

say = logging.getLogger("zoo")

# How torch says that it compiled a backward which cannot be differentiated once more, as R1 and path length need.
TWICE = ("double backward", "create_graph=False")
VARIANTS = 64      # of one piece of code: blocks of the same class, with and without gradients, in training or not


class Compiled:
    """The compiled forwards of a model's networks; with `enabled` False nothing happens anywhere."""

    def __init__(self, model: Model, enabled: bool):
        self._unable: set[str] = set()
        self._within = False      # a compiled module is running
        modules = [module for network in model.networks().values() for module in network.modules()] if enabled else []
        self._forwards = [(module, self._compiled(module.forward)) for module in modules]

    @contextmanager
    def turn(self, phase: Phase) -> Iterator[None]:
        """Run a phase's losses and backwards within: compiled, unless the phase was found unable to.

        Raises:
            ConfigError: this machine cannot compile.
        """
        if not self._forwards or phase.name in self._unable:
            yield
            return
        import torch._dynamo

        for module, forward in self._forwards:
            module.forward = forward
        try:
            with torch._dynamo.config.patch(recompile_limit=VARIANTS):
                yield
        except torch._dynamo.exc.TorchDynamoException as error:
            cause = str(error).strip().partition("\n")[0]
            raise ConfigError(f"torch.compile does not work here ({cause}): train without --compile.") from error
        finally:
            for module, _ in self._forwards:
                del module.forward

    def unable(self, phase: Phase, error: BaseException) -> bool:
        """Return whether an error means that a phase, which did so far, cannot run compiled; it never will from now on.

        The turn has to be played again, in all processes.
        """
        if not self._forwards or phase.name in self._unable or not any(word in str(error) for word in TWICE):
            return False      # a phase that runs uncompiled would be played again for ever
        self.give_up(phase)
        return True

    def give_up(self, phase: Phase) -> None:
        """Have a phase run uncompiled from now on, as where another process found it unable."""
        if phase.name not in self._unable:
            self._unable.add(phase.name)
            say.warning("Phase %s runs uncompiled: it differentiates twice, which torch.compile cannot.", phase.name)

    def _compiled(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        compiled = torch.compile(forward)

        def either(*given: Any, **named: Any) -> Any:
            if self._within:
                return forward(*given, **named)
            self._within = True
            try:
                return compiled(*given, **named)
            finally:
                self._within = False

        return either

