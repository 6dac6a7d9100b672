"""Metrics and feature extractors by name: the built-in ones and those of plugins.

A plugin's hook `zoo_metrics` returns name -> "package.module:attribute", where the attribute is a function
``(real [N, d], fake [M, d]) -> {name: value}`` or a `zoo.metrics.metric.Metric` around one. Its hook `zoo_features`
returns name -> "package.module:factory", where ``factory(argument, device)`` returns a
`zoo.metrics.features.FeatureExtractor` and the argument is what follows the colon in ``features="name:argument"``.
A plugin cannot replace a built-in name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoo import registry
from zoo.discovery import imported
from zoo.metrics.metric import Metric

if TYPE_CHECKING:
    import torch

    from zoo.metrics.features import FeatureExtractor

_METRICS = {
    "fid": "zoo.metrics.frechet:FID",
    "fid_infinity": "zoo.metrics.extrapolated:FID_INFINITY",
    "kid": "zoo.metrics.kernel:KID",
    "cmmd": "zoo.metrics.kernel:CMMD",
    "precision_recall": "zoo.metrics.manifold:PRECISION_RECALL",
    "density_coverage": "zoo.metrics.manifold:DENSITY_COVERAGE",
    "mind": "zoo.metrics.sliced:MIND",
    "ndb": "zoo.metrics.bins:NDB",
    "vendi": "zoo.metrics.vendi:VENDI",
    "inception_score": "zoo.metrics.inception_score:INCEPTION_SCORE",
    "intra_fid": "zoo.metrics.intra_class:INTRA_FID",
    "conditional_accuracy": "zoo.metrics.conditional:CONDITIONAL_ACCURACY",
    "memorisation": "zoo.metrics.memorisation:MEMORISATION",
    "ms_ssim_diversity": "zoo.metrics.pairwise:MS_SSIM_DIVERSITY",
    "lpips_diversity": "zoo.metrics.pairwise:LPIPS_DIVERSITY",
    "ppl_zfull": "zoo.metrics.path_length:PPL_ZFULL",
    "ppl_zend": "zoo.metrics.path_length:PPL_ZEND",
    "ppl_wfull": "zoo.metrics.path_length:PPL_WFULL",
    "ppl_wend": "zoo.metrics.path_length:PPL_WEND",
    "reconstruction": "zoo.metrics.reconstruction:RECONSTRUCTION",
    "reconstruction_lpips": "zoo.metrics.reconstruction:RECONSTRUCTION_LPIPS",
    "elbo": "zoo.metrics.evidence_bound:ELBO",
}
_FEATURES = {
    "inception": "zoo.metrics.inception:extractor",
    "timm": "zoo.metrics.backbones:extractor",
    "clip": "zoo.metrics.backbones:clip",
    "pixels": "zoo.metrics.pixels:extractor",
}


def metric_names() -> dict[str, str]:
    """Return metric name -> "package.module:attribute"."""
    return registry.metrics() | _METRICS


def feature_names() -> dict[str, str]:
    """Return feature name, before any colon -> "package.module:factory"."""
    return registry.features() | _FEATURES


def metric(name: str) -> Metric:
    """Return the metric of this name.

    Raises:
        UnknownName: neither zoo nor a plugin has it.
        PluginError: a plugin's metric does not import.
    """
    found = imported("metric", name, metric_names())
    return found if isinstance(found, Metric) else Metric(found)


def extractor(name: str, device: str | torch.device | None = None) -> FeatureExtractor:
    """Return the feature extractor of this name: "inception", "inception:clean", "timm:NAME", "timm:NAME@PIXELS",
    "clip:NAME", "pixels" or a plugin's.

    Raises:
        UnknownName: neither zoo nor a plugin has it.
        EvaluationError: its weights are not to be had; the message says what to install.
        PluginError: a plugin's extractor does not import.
    """
    kind, _, argument = str(name).partition(":")
    factory = imported("feature extractor", kind, feature_names())
    found: FeatureExtractor = factory(argument, device)
    return found


def offline_features() -> str:
    """Return features whose weights are on this machine: those of the installed lite0 package, or else "pixels"."""
    from zoo.backbones import LITE0, LITE0_FILE, LITE0_PACKAGE, package_file

    return f"timm:{LITE0}@96" if package_file(LITE0_PACKAGE, LITE0_FILE) else "pixels"
