"""A relativistic GAN as a plugin. This module is light: it names the model's class and imports no torch."""

from zoo.plugin import Architecture, hookimpl


@hookimpl
def zoo_architectures() -> list[Architecture]:
    summary = "small residual GAN whose critic compares each real image with a fake one"
    paper = "Jolicoeur-Martineau, 2019, arXiv:1807.00734"
    return [Architecture("rsgan", model="zoo_rsgan.model:RSGAN", summary=summary, paper=paper)]
