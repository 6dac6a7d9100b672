"""The table of transfer methods."""

from __future__ import annotations

from zoo.additions.texts import completed, parsed
from zoo.errors import UnknownName, suggest
from zoo.model import Model
from zoo.recipe import Recipe
from zoo.transfer.anchored import EWC, L2_SP
from zoo.transfer.correspondence import CDC
from zoo.transfer.lora import LORA
from zoo.transfer.method import Method
from zoo.transfer.still import FREEZE_D, FREEZE_G, SCALE_SHIFT


def full(model: Model, recipe: Recipe) -> Recipe:
    """Move every weight."""
    return recipe


METHODS: dict[str, Method] = {
    "full": Method("train every weight on", "Wang et al., 2018, arXiv:1805.01677", full),
    "freeze_d": FREEZE_D,
    "freeze_g": FREEZE_G,
    "scale_shift": SCALE_SHIFT,
    "l2_sp": L2_SP,
    "ewc": EWC,
    "cdc": CDC,
    "lora": LORA,
}


def asked(text: object) -> tuple[str, dict[str, object]]:
    """Return the method that a text such as ``l2_sp:weight=0.1`` asks for, or "auto", and all of its options.

    Raises:
        UnknownName: no such method.
        ConfigError: an option that it has not, or a value of the wrong type or range.
    """
    name, given = parsed(text) if isinstance(text, str) else (str(text), {})
    if not isinstance(text, str) or name not in ("auto", *METHODS):
        names = ["auto", *METHODS]
        raise UnknownName(f"No transfer method {name[:60]!r}.{suggest(name, names)} Methods: {', '.join(names)}.")
    return name, completed(METHODS[name].apply if name in METHODS else full, given, f"Method {name}")
