"""Additions by name: the built-in ones and those of plugins.

A plugin's hook `zoo_additions` returns name -> "package.module:ADDITION", a `zoo.additions.contract.Addition`. A plugin
cannot replace a built-in name.
"""

from __future__ import annotations

from zoo import registry
from zoo.additions.contract import Addition
from zoo.discovery import imported
from zoo.errors import PluginError

_ADDITIONS = {
    "apa": "zoo.additions.deception:APA",
    "bcr": "zoo.additions.consistency:BCR",
    "bures": "zoo.additions.diversity:BURES",
    "cr": "zoo.additions.consistency:CR",
    "critic_steps": "zoo.additions.turns:CRITIC_STEPS",
    "dragan": "zoo.additions.penalties:DRAGAN",
    "fading_penalty": "zoo.additions.optimisation:FADING_PENALTY",
    "feature_matching": "zoo.additions.diversity:FEATURE_MATCHING",
    "gradient_penalty": "zoo.additions.penalties:GRADIENT_PENALTY",
    "instance_noise": "zoo.additions.turns:INSTANCE_NOISE",
    "lecam": "zoo.additions.penalties:LECAM",
    "minibatch_std": "zoo.additions.diversity:MINIBATCH_STD",
    "mode_seeking": "zoo.additions.diversity:MODE_SEEKING",
    "orthogonal": "zoo.additions.penalties:ORTHOGONAL",
    "pacgan": "zoo.additions.diversity:PACGAN",
    "progressive": "zoo.additions.growing:PROGRESSIVE",
    "r1": "zoo.additions.penalties:R1",
    "r2": "zoo.additions.penalties:R2",
    "spectral_norm": "zoo.additions.turns:SPECTRAL_NORM",
    "top_k": "zoo.additions.turns:TOP_K",
    "ttur": "zoo.additions.optimisation:TTUR",
    "unrolled": "zoo.additions.turns:UNROLLED",
    "weight_clipping": "zoo.additions.turns:WEIGHT_CLIPPING",
    "zcr": "zoo.additions.consistency:ZCR",
}


def addition_names() -> dict[str, str]:
    """Return addition name -> "package.module:attribute"."""
    return registry.additions() | _ADDITIONS


def addition(name: str) -> Addition:
    """Return the addition of this name.

    Raises:
        UnknownName: neither zoo nor a plugin has it.
        PluginError: a plugin's addition does not import, or is none.
    """
    places = addition_names()
    found = imported("addition", name, places)
    if not isinstance(found, Addition):
        raise PluginError(f"The addition {name!r} ({places[name]}) is a {type(found).__name__}, no Addition.")
    return found
