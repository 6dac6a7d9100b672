"""zoo: generative image models as plugins, with their weights, fine-tuning, evaluation and publishing.

Importing zoo loads neither torch nor any other heavy package: each public name is imported when it is first used.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo import losses, testing
    from zoo.comparison import Comparison, compare
    from zoo.conversion import convert
    from zoo.doctor import Diagnosis, diagnose
    from zoo.errors import ZooError
    from zoo.evaluation import Evaluation, evaluate
    from zoo.explanation import Explanation, explain
    from zoo.loading import create, load, save
    from zoo.model import Gaussian, Model, ModelConfig
    from zoo.plugin import Architecture, Weights, hookimpl
    from zoo.publishing import Publication, publish
    from zoo.recipe import Batch, Phase, Recipe, Terms
    from zoo.registry import list_architectures, list_models
    from zoo.reporting import report
    from zoo.training import Run, finetune, train

    __version__: str

__all__ = [
    "Architecture",
    "Batch",
    "Comparison",
    "Diagnosis",
    "Evaluation",
    "Explanation",
    "Gaussian",
    "Model",
    "ModelConfig",
    "Phase",
    "Publication",
    "Recipe",
    "Run",
    "Terms",
    "Weights",
    "ZooError",
    "__version__",
    "compare",
    "convert",
    "create",
    "diagnose",
    "evaluate",
    "explain",
    "finetune",
    "hookimpl",
    "list_architectures",
    "list_models",
    "load",
    "losses",
    "publish",
    "report",
    "save",
    "testing",
    "train",
]

# Public name -> the module that defines it; a name that is itself a module stands for its contents.
_HOME = {
    "list_architectures": "zoo.registry",
    "list_models": "zoo.registry",
    "convert": "zoo.conversion",
    "create": "zoo.loading",
    "diagnose": "zoo.doctor",
    "Diagnosis": "zoo.doctor",
    "load": "zoo.loading",
    "save": "zoo.loading",
    "train": "zoo.training",
    "finetune": "zoo.training",
    "Run": "zoo.training",
    "evaluate": "zoo.evaluation",
    "Evaluation": "zoo.evaluation",
    "compare": "zoo.comparison",
    "Comparison": "zoo.comparison",
    "explain": "zoo.explanation",
    "Explanation": "zoo.explanation",
    "publish": "zoo.publishing",
    "report": "zoo.reporting",
    "Publication": "zoo.publishing",
    "Model": "zoo.model",
    "ModelConfig": "zoo.model",
    "Gaussian": "zoo.model",
    "Recipe": "zoo.recipe",
    "Phase": "zoo.recipe",
    "Terms": "zoo.recipe",
    "Batch": "zoo.recipe",
    "Weights": "zoo.plugin",
    "Architecture": "zoo.plugin",
    "hookimpl": "zoo.plugin",
    "ZooError": "zoo.errors",
}
_MODULES = ("losses", "testing")


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name in _MODULES:
        return import_module(f"zoo.{name}")
    if name == "__version__":
        from importlib.metadata import version

        value: Any = version("genzoo")
    elif name in _HOME:
        value = getattr(import_module(_HOME[name]), name)
    else:
        raise AttributeError(f"module 'zoo' has no attribute {name!r}")
    globals()[name] = value                  # the next access finds it without coming here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
