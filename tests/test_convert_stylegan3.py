"""NVlabs' StyleGAN3 pickles become models with the same images, or are refused by the name of what is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from stylegan3_reference import Generator, write
from torch import Tensor

import zoo
from zoo.errors import WeightsError
from zoo.formats.contract import network
from zoo.formats.reading import read_file

CASE = Path(__file__).parent / "parity" / "nvlabs_sg3r_32_cond"
PICKLE = CASE / "network-snapshot.inert.pkl"
TINY = {"z_dim": 7, "c_dim": 0, "w_dim": 6, "img_resolution": 16, "img_channels": 3, "channel_base": 128,
        "channel_max": 10, "num_layers": 5}  # fmt: skip


def close(found: Tensor, wanted: Tensor, tolerance: float = 5e-5) -> None:
    torch.testing.assert_close(found.double(), wanted.double(), rtol=0, atol=tolerance * float(wanted.abs().max()))


@pytest.fixture(scope="module")
def upstream() -> tuple[zoo.Model, dict[str, Tensor], dict[str, Tensor]]:
    return zoo.convert(PICKLE), load_file(CASE / "inputs.safetensors"), load_file(CASE / "outputs.safetensors")


def test_upstreams_outputs_are_ours(upstream):
    model, given, wanted = upstream
    z, labels = given["z"], given["c"]
    styles = model.styles(z, labels)
    found = {
        "w": styles,
        "img_psi1_const": model.sample(z=z, labels=labels, clamp=False),
        "img_psi0.5_const": model.sample(z=z, labels=labels, psi=0.5, clamp=False),
        "img_psi0.7_cut3_const": model.sample(z=z, labels=labels, psi=0.7, cutoff=3, clamp=False),
        "synthesis_input": model.synthesis_input(styles),
        "D_logits": model.logits(wanted["img_psi1_const"], labels),
    }
    assert set(found) == set(wanted)
    for name, reference in wanted.items():
        close(found[name], reference)
    close(model.synthesise(styles, clamp=False), wanted["img_psi1_const"])


def test_the_file_says_what_the_model_is(upstream):
    model, _, _ = upstream
    stated = json.loads((CASE / "meta.json").read_text())["G_init_kwargs"]
    assert (model.architecture, model.config.num_classes) == ("stylegan3", stated["c_dim"])
    assert (model.config.layers, model.config.conv_kernel, model.config.radial_filters) == (10, 1, True)
    assert (model.config.mapping_layers, model.config.discriminator_mapping_layers) == (2, 8)
    assert "NVIDIA" in model.origin["license"]
    assert set(model.averages) == {"generator"}
    live, averaged = model.generator, model.averages["generator"]
    assert not torch.equal(live.mapping.layers[0].weight, averaged.mapping.layers[0].weight)


def test_what_was_converted_saves_and_loads(upstream, tmp_path):
    model, given, _ = upstream
    loaded = zoo.load(f"dir:{zoo.save(model, tmp_path / 'model')}")
    labels = given["c"]
    assert torch.equal(loaded.sample(z=given["z"], labels=labels), model.sample(z=given["z"], labels=labels))


def test_the_plain_reference_is_upstreams(upstream):
    """The oracle of the tests below, with the tensors of upstream's file, against upstream's outputs."""
    _, given, wanted = upstream
    oracle = Generator(**json.loads((CASE / "meta.json").read_text())["G_init_kwargs"])
    oracle.load_state_dict(network(read_file(PICKLE)["G_ema"]))
    with torch.no_grad():
        z, labels = given["z"], given["c"]
        close(oracle.mapping(z, labels), wanted["w"])
        close(oracle.synthesis.input(oracle.mapping(z, labels)[:, 0]), wanted["synthesis_input"])
        close(oracle(z, labels, 0.7, 3), wanted["img_psi0.7_cut3_const"])


VARIANTS = {
    "T": {},
    "R in grey with classes": {"c_dim": 3, "img_channels": 1, "conv_kernel": 1, "use_radial_filters": True},
    "T with radial filters": {"use_radial_filters": True, "num_layers": 6},
    "another band": {"first_cutoff": 3, "first_stopband": 5.5, "last_stopband_rel": 1.5, "margin_size": 4,
                     "num_critical": 1, "img_resolution": 32},
    "another mapping": {"mapping_kwargs": {"num_layers": 3, "lr_multiplier": 0.1}, "num_fp16_res": 0},
    "other filters": {"filter_size": 4, "lrelu_upsampling": 3, "output_scale": 1, "magnitude_ema_beta": 0.9},
    "filters up only": {"lrelu_upsampling": 1, "use_radial_filters": True, "conv_clamp": 0.5},
    "no clamp": {"conv_clamp": None, "channel_base": 100, "channel_max": 9},
}  # fmt: skip


@pytest.mark.parametrize("name", VARIANTS)
def test_other_configurations_give_the_images_of_the_plain_reference(name, tmp_path):
    torch.manual_seed(0)
    oracle = Generator(**{**TINY, **VARIANTS[name]})
    model = zoo.convert(write(tmp_path / "network.pkl", G_ema=oracle))
    classes = model.config.num_classes
    z, labels = torch.randn(2, 7), torch.eye(classes)[[2, 0]] if classes else None
    with torch.no_grad():
        oracle = oracle.double()
        oracle.synthesis.input.transform.copy_(torch.tensor([[0.8, -0.6, 0.1], [0.6, 0.8, -0.2], [0, 0, 1]]))
        wanted = oracle(z.double(), None if labels is None else labels.double(), 0.7, 4)
    model.generator.synthesis.input.transform.copy_(oracle.synthesis.input.transform)
    close(model.sample(z=z, labels=labels, psi=0.7, cutoff=4, clamp=False), wanted, 2e-5)
    assert "discriminator" not in model.networks()


def tampered(change) -> Generator:
    torch.manual_seed(0)
    made = Generator(**TINY)
    change(made)
    return made


def _without(path: str):
    def change(made: Generator) -> None:
        owner, _, name = path.rpartition(".")
        module = made.get_submodule(owner)
        for kind in (module._parameters, module._buffers, module._modules):
            kind.pop(name, None)

    return change


def _with(path: str, value: object):
    def change(made: Generator) -> None:
        owner, _, name = path.rpartition(".")
        module = made.get_submodule(owner)
        if isinstance(value, Tensor):
            module._buffers.pop(name, None)
            module._parameters[name] = torch.nn.Parameter(value)
        else:
            vars(module)[name] = value

    return change


def _made_with(module: str, **arguments: object):
    def change(made: Generator) -> None:
        made.get_submodule(module)._init_kwargs.update(arguments)

    return change


L1, L5 = "synthesis.L1_36_10", "synthesis.L5_16_3"
FAULTS = {
    f"'{L1}.bias' is missing": _without(f"{L1}.bias"),
    f"'{L1}.magnitude_ema' is missing": _without(f"{L1}.magnitude_ema"),
    f"'{L1}.up_filter' is missing": _without(f"{L1}.up_filter"),
    "'synthesis.input.phases' is missing": _without("synthesis.input.phases"),
    "'mapping.fc1.weight' is missing": _without("mapping.fc1.weight"),
    "'L1_36_10' is missing": _without(L1),
    f"'{L1}.more' is unknown": _with(f"{L1}.more", torch.zeros(3)),
    "'mapping.fc2' is unknown": _with("mapping.fc2", torch.zeros(3)),
    f"'{L1}.weight' is [10, 10, 2, 3]": _with(f"{L1}.weight", torch.zeros(10, 10, 2, 3)),
    f"'{L5}.bias' is [4]": _with(f"{L5}.bias", torch.zeros(4)),
    f"'{L1}.affine.bias' holds values that are not finite": _with(f"{L1}.affine.bias", torch.full((10,), torch.nan)),
    f"'{L1}.up_filter' is [3]": _with(f"{L1}.up_filter", torch.ones(3)),
    f"'{L1}.down_filter' is not the filter": _with(f"{L1}.down_filter", torch.ones(12) / 12),
    f"{L1}.in_cutoff is 3": _with(f"{L1}.in_cutoff", 3.0),
    f"{L1}.conv_clamp is 7": _with(f"{L1}.conv_clamp", 7),
    "layers=many: Input should be a valid integer": _made_with("synthesis", num_layers="many"),
    "layers=1000000000: Input should be less than or equal to 64": _made_with("synthesis", num_layers=10**9),
    "'use_noise', which is not supported": _made_with("synthesis", use_noise=True),
    "mapping_rate=0: Input should be greater than 0": _made_with("mapping", lr_multiplier=0),
    "resolution=1099511627776: Input should be less than or equal to 2048": _with("img_resolution", 2**40),
    "w=[6]: Input should be a valid integer": _with("w_dim", [6]),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_altered_files_are_refused_by_the_name_of_what_is_wrong(fault, tmp_path):
    path = write(tmp_path / "network.pkl", G_ema=tampered(FAULTS[fault]))
    with pytest.raises(WeightsError) as error:
        zoo.convert(path)
    message = str(error.value)
    assert fault in message
    assert message.startswith("network.pkl")
    assert "\n" not in message


def test_networks_of_two_models_are_refused(tmp_path):
    first, second = Generator(**TINY), Generator(**{**TINY, "img_channels": 1})
    with pytest.raises(WeightsError, match="different configurations"):
        zoo.convert(write(tmp_path / "network.pkl", G=first, G_ema=second))


def test_a_cut_file_is_refused(tmp_path):
    path = tmp_path / "network.pkl"
    path.write_bytes(PICKLE.read_bytes()[:-5000])
    with pytest.raises(WeightsError, match=r"network\.pkl"):
        zoo.convert(path)
