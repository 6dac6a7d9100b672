"""AutoencoderKL and TAESD files of every spelling: the same latents and images as upstream's, and strict reading."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from types import MappingProxyType

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import zoo
from zoo.errors import WeightsError
from zoo.formats.contract import Format, Source
from zoo_vae import diffusers, latent_diffusion, taesd
from zoo_vae.diffusers import settings_of
from zoo_vae.kl import AutoencoderKL, KLConfig
from zoo_vae.tiny import TinyAutoencoder, TinyConfig

PARITY = Path(__file__).parent / "parity"
KL, TINY = PARITY / "diffusers_kl_gray3", PARITY / "diffusers_taesd"
GROUPS = MappingProxyType({"norm_groups": 4, "scaling_factor": 0.13025})      # what latent-diffusion's files cannot say
WEIGHTS = "diffusion_pytorch_model.safetensors"
Tensors = dict[str, Tensor]


def case(folder: Path) -> tuple[Tensors, Tensors]:
    return load_file(folder / "inputs.safetensors"), load_file(folder / "outputs.safetensors")


def close(ours: Tensor, reference: Tensor) -> None:
    torch.testing.assert_close(ours, reference, rtol=0, atol=1e-5 * reference.abs().max().item())


def moments(gaussian: zoo.Gaussian) -> Tensor:
    return torch.cat([gaussian.mean, 2 * gaussian.std.log()], 1)


# AutoencoderKL.


def check_kl(model: zoo.Model) -> None:
    given, wanted = case(KL)
    posterior = model.encode(given["x"])
    mean, std = posterior
    found = {
        "moments": moments(posterior),
        "mean": mean,
        "std": std,
        "kl": 0.5 * (mean.square() + std.square() - 1 - 2 * std.log()).sum((1, 2, 3)),
        "sample_with_eps": mean + std * given["eps"],
        "recon_mode": model.decode(mean),
        "decode_z": model.decode(given["z"]),
        "moments_40x24": moments(model.encode(given["x_40x24"])),
        "scaled_latent": model.scale_latents(mean),
    }
    assert set(found) == set(wanted)
    for name, reference in wanted.items():
        close(found[name], reference)


@pytest.mark.parametrize(
    ("place", "settings"),
    [
        ("diffusers", {}),
        (f"diffusers/{WEIGHTS}", {}),
        (f"diffusers_old/{WEIGHTS}", {}),
        ("diffusers_old/diffusion_pytorch_model.bin", {}),
        ("ldm/vae.ckpt", GROUPS),
        ("ldm/vae.safetensors", GROUPS),
        ("ldm", GROUPS),
    ],
)
def test_every_spelling_of_autoencoder_kl_computes_the_same(place, settings):
    model = zoo.convert(KL / place, **settings)
    assert (model.architecture, model.config.variant, model.absent) == ("vae", "kl", ())
    assert (model.config.widths, model.config.depth, model.config.channels) == ((8, 16, 24), 1, 1)
    assert model.config.resolution == (32 if place.startswith("diffusers") else 256)
    check_kl(model)


def test_sizes_come_from_shapes_where_there_is_no_config(tmp_path):
    shutil.copy(KL / "diffusers" / WEIGHTS, tmp_path)
    check_kl(zoo.convert(tmp_path, **GROUPS))


def test_convolutions_as_attention_and_half_precision(tmp_path):
    tensors = load_file(KL / "diffusers_old" / WEIGHTS)
    for name, tensor in tensors.items():
        if re.search(r"(query|key|value|proj_attn)\.weight", name):
            tensors[name] = tensor[:, :, None, None]
    shutil.copy(KL / "diffusers_old" / "config.json", tmp_path)
    save_file(tensors, tmp_path / WEIGHTS)
    check_kl(zoo.convert(tmp_path))
    halves = {name: tensor.half() for name, tensor in tensors.items()}
    save_file(halves, tmp_path / "diffusion_pytorch_model.fp16.safetensors")
    model = zoo.convert(tmp_path / "diffusion_pytorch_model.fp16.safetensors")
    assert {tensor.dtype for tensor in model.state_dict().values()} == {torch.float32}


def test_the_autoencoder_inside_a_whole_stable_diffusion_checkpoint(tmp_path):
    inner = {f"first_stage_model.{n}": t for n, t in load_file(KL / "ldm" / "vae.safetensors").items()}
    rest = {"model.diffusion_model.out.2.weight": torch.ones(3), "cond_stage_model.logit_scale": torch.ones(())}
    loss = {"first_stage_model.loss.logvar": torch.ones(())}
    torch.save({"state_dict": {**rest, **inner, **loss}, "global_step": 3}, tmp_path / "sd.ckpt")
    check_kl(zoo.convert(tmp_path / "sd.ckpt", **GROUPS))


def test_a_decoder_alone(tmp_path):
    given, wanted = case(KL)
    tensors = load_file(KL / "ldm" / "vae.safetensors")
    kept = {name: tensor for name, tensor in tensors.items() if name.startswith(("decoder.", "post_quant_conv."))}
    save_file(kept, tmp_path / "vae.safetensors")
    model = zoo.convert(tmp_path / "vae.safetensors", **GROUPS)
    assert model.absent == ("encoder",)
    close(model.decode(given["z"]), wanted["decode_z"])
    with pytest.raises(zoo.ZooError, match="hold no encoder"):
        model.encode(given["x"])


def test_a_config_beside_latent_diffusions_file_says_the_groups(tmp_path):
    shutil.copy(KL / "ldm" / "vae.safetensors", tmp_path)
    shutil.copy(KL / "diffusers" / "config.json", tmp_path)
    check_kl(zoo.convert(tmp_path / "vae.safetensors"))


def test_groups_that_cannot_be_right_are_asked_for():
    with pytest.raises(zoo.ZooError, match=r"norm_groups 32 does not divide .* such as norm_groups=4") as caught:
        zoo.convert(KL / "ldm" / "vae.ckpt")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "settings",
    [
        {"widths": (8, 12), "quant_conv": False, "post_quant_conv": False, "latent_channels": 16},
        {"mid_attention": False, "depth": 2},
        {"attention_levels": (1,), "widths": (4, 8, 12), "channels": 4},
        {"widths": (8,), "post_quant_conv": False},
    ],
    ids=str,
)
def test_shapes_tell_every_size(settings, tmp_path):
    """A model of ours, written under latent-diffusion's names, is found again with its settings and tensors."""
    from zoo_vae.kl_names import LATENT_DIFFUSION, LINEAR

    torch.manual_seed(0)
    sizes = {"resolution": 256, "widths": (4, 8), "depth": 1, "norm_groups": 4}
    model = zoo.create("vae", variant="kl", **{**sizes, **settings})
    levels = len(model.config.widths)
    tensors = {
        LATENT_DIFFUSION.of(name, levels): tensor[:, :, None, None] if LINEAR.fullmatch(name) else tensor
        for name, tensor in model.state_dict().items()
    }
    torch.save({"state_dict": tensors}, tmp_path / "last.ckpt")
    again = zoo.convert(tmp_path / "last.ckpt", norm_groups=4)
    assert again.config == model.config
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in model.state_dict().items())


# What config.json may say.

PUBLISHED = {
    "in_channels": 3, "out_channels": 3, "block_out_channels": [128, 256, 512, 512], "layers_per_block": 2,
    "down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4, "act_fn": "silu",
    "norm_num_groups": 32, "latent_channels": 4,
}  # fmt: skip


@pytest.mark.parametrize(
    ("more", "count", "scale"),
    [
        ({"sample_size": 256}, 83_653_863, (0.18215, 0.0)),                                   # sd-vae-ft-mse, 335 MB
        ({"sample_size": 1024, "scaling_factor": 0.13025}, 83_653_863, (0.13025, 0.0)),       # sdxl-vae
        (                                                                                     # FLUX.1
            {"latent_channels": 16, "scaling_factor": 0.3611, "shift_factor": 0.1159, "sample_size": 1024,
             "use_quant_conv": False, "use_post_quant_conv": False, "mid_block_add_attention": True},
            83_819_683, (0.3611, 0.1159),
        ),
    ],
)  # fmt: skip
def test_published_configurations_have_the_published_sizes(more, count, scale):
    settings = settings_of({**PUBLISHED, **more})
    with torch.device("meta"):
        model = AutoencoderKL(KLConfig(**settings))
    assert sum(tensor.numel() for tensor in model.state_dict().values()) == count
    assert (model.config.scaling_factor, model.config.shift_factor, model.config.resolution) == (
        *scale, more["sample_size"],
    )  # fmt: skip


def test_taesd_has_the_published_size():
    with torch.device("meta"):
        model = TinyAutoencoder(TinyConfig())
    for network in (model.encoder, model.decoder):
        assert sum(tensor.numel() * 4 for tensor in network.state_dict().values()) == pytest.approx(4.9e6, rel=0.01)


def test_scales_shifts_and_statistics():
    latents = torch.randn(2, 2, 3, 3)
    model = zoo.create("vae", variant="kl", resolution=8, widths=(4,), norm_groups=2, latent_channels=2,
                       scaling_factor=0.5, latent_mean=[1.0, -2.0], latent_std=[2.0, 4.0])  # fmt: skip
    scaled = model.scale_latents(latents)
    torch.testing.assert_close(scaled[:, 0], (latents[:, 0] - 1) * 0.5 / 2)
    torch.testing.assert_close(scaled[:, 1], (latents[:, 1] + 2) * 0.5 / 4)
    torch.testing.assert_close(model.unscale_latents(scaled), latents)
    shifted = zoo.create("vae", variant="kl", resolution=8, widths=(4,), norm_groups=2, latent_channels=2,
                         scaling_factor=0.3611, shift_factor=0.1159)  # fmt: skip
    torch.testing.assert_close(shifted.scale_latents(latents), (latents - 0.1159) * 0.3611)
    torch.testing.assert_close(shifted.unscale_latents(shifted.scale_latents(latents)), latents)


def refused(reader: Format, path: Path, change: dict[str, object], message: str) -> None:
    """Check that a file beside its config.json with these changes is refused, reading in memory what lies there."""
    config = json.loads((path.parent / "config.json").read_text())
    source = Source(path, {path.name: load_file(path)}, {"config.json": {**config, **change}})
    assert reader.recognise(source)
    with pytest.raises(WeightsError, match=message) as caught:
        reader.read(source)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"_class_name": "VQModel"}, "describes a VQModel: this reader takes AutoencoderKL"),
        ({"act_fn": "mish"}, "act_fn='mish' is not supported"),
        ({"out_channels": 3}, "out_channels='3' is not supported, only 1"),
        ({"block_out_channels": 8}, "block_out_channels='8'"),
        ({"block_out_channels": [8, 16, "24"]}, r"widths\.2=24"),
        ({"block_out_channels": [8, 16, 10**9]}, r"widths\.2=1000000000"),
        ({"down_block_types": ["DownBlock2D"] * 3}, "has 'DownBlock2D'"),
        ({"down_block_types": ["AttnDownEncoderBlock2D"] + ["DownEncoderBlock2D"] * 2}, "at different levels"),
        ({"up_block_types": None}, "up_block_types='None'"),
        ({"layers_per_block": 10**9}, "depth=1000000000"),
        ({"layers_per_block": {}}, "depth="),
        ({"scaling_factor": -1}, "scaling_factor=-1"),
        ({"latents_mean": [0.0]}, "latent_mean has 1 numbers for 3"),
        ({"use_quant_conv": False}, r"'quant_conv\.\w+' is unknown"),
        ({"mid_block_add_attention": False}, r"'encoder\.mid_block\.attentions\.0\.\S+' is unknown"),
        ({"layers_per_block": 2}, r"'encoder\.down_blocks\.0\.resnets\.1\.norm1\.weight' is missing"),
    ],
    ids=str,
)
def test_a_config_that_does_not_fit_is_refused(change, message):
    refused(diffusers.FORMAT, KL / "diffusers" / WEIGHTS, change, message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"norm_num_groups": 5}, "norm_groups 5 does not divide"),
        ({"latent_channels": 5}, r"'(encoder\.conv_out|quant_conv)\.\w+' is \[.*, this network needs"),
    ],
    ids=str,
)
def test_a_config_that_the_finished_model_contradicts_is_refused(change, message, tmp_path):
    config = json.loads((KL / "diffusers" / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
    shutil.copy(KL / "diffusers" / WEIGHTS, tmp_path)
    with pytest.raises(WeightsError, match=message):
        zoo.convert(tmp_path)


# TAESD.


def check_encoder(model: zoo.Model) -> None:
    given, wanted = case(TINY)
    mean, std = model.encode(given["x"])
    close(mean, wanted["latents"])
    assert not std.any()


def check_decoder(model: zoo.Model) -> None:
    given, wanted = case(TINY)
    close(model.decode(given["z"]), wanted["decode_z"])
    close(model.decode(wanted["latents"]), wanted["recon"])
    close(model.scale_latents(given["z"]), wanted["scaled"])
    close(model.unscale_latents(wanted["scaled"]), wanted["unscaled"])


@pytest.mark.parametrize("place", ["diffusers", f"diffusers/{WEIGHTS}", "."])
def test_both_layouts_of_taesd_compute_the_same(place):
    model = zoo.convert(TINY / place)
    assert (model.architecture, model.config.variant, model.absent) == ("vae", "tiny", ())
    check_encoder(model)
    check_decoder(model)


def test_one_network_of_taesd_alone():
    encoder, decoder = (zoo.convert(TINY / f"taesd_{name}.safetensors") for name in ("encoder", "decoder"))
    assert (encoder.absent, decoder.absent) == (("decoder",), ("encoder",))
    check_encoder(encoder)
    check_decoder(decoder)
    with pytest.raises(zoo.ZooError, match="hold no decoder"):
        encoder.sample(1, seed=0)
    with pytest.raises(zoo.ZooError, match="hold no encoder"):
        decoder.encode(torch.zeros(1, 3, 8, 8))


def test_taesd_as_pth_and_without_config(tmp_path):
    torch.save(load_file(TINY / "taesd_decoder.safetensors"), tmp_path / "taesd_decoder.pth")
    check_decoder(zoo.convert(tmp_path / "taesd_decoder.pth"))
    shutil.copy(TINY / "diffusers" / WEIGHTS, tmp_path / "taesd.safetensors")
    model = zoo.convert(tmp_path / "taesd.safetensors")
    assert (model.config.encoder_blocks, model.config.decoder_blocks) == ((1, 3, 3, 3), (3, 3, 3, 1))
    check_encoder(model)
    check_decoder(model)


def test_taesd_of_other_sizes_is_found_again(tmp_path):
    """FLUX.2's blocks mix channels, 16 latent channels are FLUX's and SD3's: written under the author's numbers."""
    from zoo_vae.tiny_layers import Row, layers_of

    torch.manual_seed(0)
    model = zoo.create("vae", variant="tiny", latent_channels=16, channels=1, encoder_width=4, decoder_width=8,
                       encoder_blocks=(2, 0, 1), decoder_blocks=(1, 2, 0), mixing=True)  # fmt: skip
    leaves = {"conv1": "conv.0", "conv2": "conv.2", "conv3": "conv.4",
              "mixing.widen": "pool.0", "mixing.norm": "pool.1", "mixing.narrow": "pool.3"}  # fmt: skip
    for network in ("encoder", "decoder"):
        numbers = {ours: n + Row("", network == "decoder").first for n, ours, _ in layers_of(network, model.config)}
        tensors = {}
        for name, tensor in model.get_submodule(network).state_dict().items():
            ours = max((ours for ours in numbers if name.startswith(f"{ours}.")), key=len)
            inner, _, kind = name.removeprefix(f"{ours}.").rpartition(".")
            tensors[".".join(filter(None, (str(numbers[ours]), leaves.get(inner), kind)))] = tensor
        save_file(tensors, tmp_path / f"taexx_{network}.safetensors")
    again = zoo.convert(tmp_path)
    assert again.config == model.config
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"act_fn": "silu"}, "act_fn='silu' is not supported"),
        ({"upsampling_scaling_factor": 4}, "upsampling_scaling_factor='4'"),
        ({"encoder_block_out_channels": [16, 32, 16, 16]}, "all stages have the same width"),
        ({"num_encoder_blocks": [1, 3]}, "encoder_blocks has 2 stages"),
        ({"num_decoder_blocks": "many"}, "decoder_blocks=many"),
        ({"num_decoder_blocks": [3, 3, 3, 10**9]}, r"decoder_blocks\.3=1000000000"),
        ({"num_encoder_blocks": [1, 3, 3, 2]}, r"'encoder\.layers\.13\.weight' is missing"),
        ({"latent_magnitude": 0}, "latent_magnitude=0"),
    ],
    ids=str,
)
def test_a_config_of_taesd_that_does_not_fit_is_refused(change, message):
    refused(taesd.FORMAT, TINY / "diffusers" / WEIGHTS, change, message)


# Files that are not whole, of every layout.

FILES = {      # file, its reader, whether config.json is read beside it, one of its tensors
    "diffusers": (KL / "diffusers" / WEIGHTS, diffusers, True, "decoder.up_blocks.1.resnets.0.conv_shortcut.weight"),
    "of 2022": (KL / "diffusers_old" / WEIGHTS, diffusers, True, "encoder.mid_block.attentions.0.query.weight"),
    "latent-diffusion": (KL / "ldm" / "vae.safetensors", latent_diffusion, False, "decoder.up.2.block.1.norm2.bias"),
    "AutoencoderTiny": (TINY / "diffusers" / WEIGHTS, taesd, True, "decoder.layers.6.weight"),
    "TAESD's encoder": (TINY / "taesd_encoder.safetensors", taesd, False, "6.weight"),
    "TAESD's decoder": (TINY / "taesd_decoder.safetensors", taesd, False, "12.weight"),
}
every_file = pytest.mark.parametrize(("path", "reader", "has_config", "name"), FILES.values(), ids=FILES.keys())


@every_file
def test_missing_and_extra_tensors_are_named(path, reader, has_config, name):
    tensors = load_file(path)
    configs = {"config.json": json.loads((path.parent / "config.json").read_text())} if has_config else {}

    def refusal(altered: Tensors) -> str:
        source = Source(path, {path.name: altered}, configs)
        assert reader.FORMAT.recognise(source)
        with pytest.raises(WeightsError) as caught:
            reader.FORMAT.read(source)
        return str(caught.value)

    assert f"{name!r} is missing" in refusal({n: t for n, t in tensors.items() if n != name})
    for extra in ("extra.weight", "17.conv.6.weight", f"{name.rpartition('.')[0]}.weight_g", "mask"):
        assert f"{extra!r} is unknown" in refusal({**tensors, extra: torch.ones(2)})


@every_file
def test_a_tensor_of_another_shape_and_a_broken_value_are_named(path, reader, has_config, name, tmp_path):
    tensors = load_file(path)
    if has_config:
        shutil.copy(path.parent / "config.json", tmp_path)
    settings = {"norm_groups": 4} if reader is latent_diffusion else {}
    broken = tensors[name].clone()
    broken.view(-1)[0] = float("nan")
    for value, fault in ((torch.cat([tensors[name], tensors[name][:1]]), "this network needs"), (broken, "not finite")):
        save_file({**tensors, name: value}, tmp_path / path.name)
        with pytest.raises(WeightsError, match=f"{re.escape(repr(name))} .*{fault}"):
            zoo.convert(tmp_path / path.name, **settings)


@pytest.mark.parametrize("path", [KL / "ldm" / "vae.ckpt", TINY / "taesd_encoder.safetensors"], ids=["ckpt", "taesd"])
def test_a_cut_file_is_refused(path, tmp_path):
    place = tmp_path / path.name
    place.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(WeightsError, match=re.escape(path.name)) as caught:
        zoo.convert(place)
    assert "\n" not in str(caught.value)


# A converted model is one of ours.


@pytest.mark.parametrize(
    ("place", "settings"),
    [(KL / "diffusers", {}), (TINY / "diffusers", {}), (TINY / "taesd_encoder.safetensors", {}), (KL / "ldm", GROUPS)],
    ids=["kl", "tiny", "encoder alone", "latent-diffusion"],
)
def test_it_saves_and_loads_as_it_is(place, settings, tmp_path):
    model = zoo.convert(place, **settings, resolution=32)
    again = zoo.load(f"dir:{zoo.save(model, tmp_path / 'model')}")
    assert (again.config, again.absent, again.origin["source"]) == (model.config, model.absent, model.origin["source"])
    stored = again.state_dict()
    assert list(stored) == list(model.state_dict())
    assert all(torch.equal(tensor, stored[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("place", [KL / "diffusers", TINY / "diffusers"], ids=["kl", "tiny"])
def test_it_fits_other_channels_and_latents(place, tmp_path):
    folder = zoo.save(zoo.convert(place, resolution=16), tmp_path / "model")
    model = zoo.load(f"dir:{folder}", adapt=True, channels=4, latent_channels=6)
    assert {"grown", "copied"} <= {what.split()[0] for what in model.adapted.values()}
    size = 16 // model.config.factor
    assert model.sample(2, seed=0).shape == (2, 4, 16, 16)
    assert model.encode(torch.zeros(1, 4, 16, 16)).mean.shape == (1, 6, size, size)


def test_a_head_without_a_convolution_after_it_starts_afresh_when_latents_change(tmp_path):
    settings = {"resolution": 8, "widths": (4, 4), "norm_groups": 2, "quant_conv": False}
    torch.manual_seed(0)
    folder = zoo.save(zoo.create("vae", variant="kl", **settings), tmp_path / "model")
    model = zoo.load(f"dir:{folder}", adapt=True, latent_channels=3)
    assert model.adapted["encoder.head.weight"] == model.adapted["encoder.head.bias"] == "re-initialised"
    assert model.adapted["encoder.stem.weight"] == "copied"
    assert model.adapted["decoder.stem.weight"].startswith("trimmed")
    trained, fitted = zoo.load(f"dir:{folder}").encoder.head.weight, model.encoder.head.weight
    assert not torch.equal(trained[:6], fitted)
