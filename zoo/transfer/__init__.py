"""Transfer methods: how a fine-tune differs from training on. Each is a function from a recipe to a recipe."""

from zoo.transfer.choice import FEW, OFTEN, choose
from zoo.transfer.method import Method
from zoo.transfer.methods import METHODS
from zoo.transfer.preparation import AUGMENT, WARMUP, changed, prepare

__all__ = ["AUGMENT", "FEW", "METHODS", "OFTEN", "WARMUP", "Method", "changed", "choose", "prepare"]
