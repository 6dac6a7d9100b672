"""R3GAN as a plugin of the zoo; light: the model module is named here, not imported."""

from zoo.plugin import Architecture, hookimpl


@hookimpl
def zoo_architectures() -> list[Architecture]:
    return [
        Architecture(
            "r3gan",
            model="zoo_r3gan.model:R3GAN",
            summary="Plain residual blocks under a loss that converges; nothing is normalised",
            paper="Huang et al., 2024, arXiv:2501.05441",
        )
    ]


@hookimpl
def zoo_formats() -> dict[str, str]:
    return {"r3gan": "zoo_r3gan.nvlabs_style:FORMAT"}
