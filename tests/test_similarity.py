"""PSNR, SSIM, MS-SSIM and LPIPS against torchmetrics, on pictures; sizes, extremes and bad input."""

import pytest
import torch

import zoo
from zoo.errors import EvaluationError
from zoo.metrics import lpips_weights
from zoo.metrics.lpips import LPIPS
from zoo.metrics.similarity import SCALES, ms_ssim, psnr, scales, ssim


@pytest.fixture(scope="module")
def pairs():
    """Emoji and, for each, what a poor copy of it is like: two batches [6, 3, 32, 32] in float64."""
    from zoo.data import open_images

    images = open_images("emoji", resolution=32, channels=3).read(range(0, 600, 100)).double() / 127.5 - 1
    chance = torch.Generator().manual_seed(0)
    blurred = torch.nn.functional.avg_pool2d(images, 3, 1, 1, count_include_pad=False)
    noisy = images + 0.2 * torch.randn(images.shape, generator=chance, dtype=images.dtype)
    return images, torch.cat([noisy[:2].clamp(-1, 1), blurred[2:4], images[4:5] * 0.5, images[:1]])


def enlarged(images, size):
    return torch.nn.functional.interpolate(images, size=size, mode="bilinear", align_corners=False)


def theirs(a, b):
    """Return torchmetrics' SSIM of the places whose window lies inside, and contrast times structure there, both [N].

    Its own mean has the border too, where it continues images by reflection.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure as measure

    _, places = measure(a, b, data_range=2.0, reduction="none", return_full_image=True)
    _, structure = measure(a, b, data_range=2.0, reduction="none", return_contrast_sensitivity=True)
    return places[..., 5:-5, 5:-5].mean((1, 2, 3)), structure


def test_psnr_is_torchmetrics(pairs):
    from torchmetrics.functional.image import peak_signal_noise_ratio

    expected = peak_signal_noise_ratio(*pairs, data_range=2.0, reduction="none", dim=(1, 2, 3))
    torch.testing.assert_close(psnr(*pairs), expected, rtol=1e-6, atol=0)


def test_ssim_is_torchmetrics(pairs):
    expected, _ = theirs(*pairs)
    assert expected.min() < 0.3 < 0.7 < expected.max()
    torch.testing.assert_close(ssim(*pairs), expected, rtol=0, atol=1e-6)
    single = ssim(*(each.float() for each in pairs))
    assert single.dtype == torch.float64
    torch.testing.assert_close(single, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("size", "count"), [((32, 32), 2), ((50, 70), 3), ((176, 190), 5)])
def test_ms_ssim_is_torchmetrics_scale_by_scale(pairs, size, count):
    a, b = x, y = tuple(enlarged(each[::3], size) for each in pairs)
    found = [theirs(x, y)]
    for _ in range(count - 1):
        x, y = (torch.nn.functional.avg_pool2d(each, 2) for each in (x, y))
        found.append(theirs(x, y))
    factors = torch.stack([*(structure for _, structure in found[:-1]), found[-1][0]]).relu()
    exponents = torch.tensor(SCALES[:count], dtype=torch.float64)
    expected = (factors ** (exponents / exponents.sum())[:, None]).prod(0)
    assert scales(*size) == count
    torch.testing.assert_close(ms_ssim(a, b), expected, rtol=0, atol=1e-6)


def their_lpips(network, tensors):
    """Return torchmetrics' LPIPS with its own heads and our trunk, which it would download."""
    from torchmetrics.functional.image.lpips import _LPIPS

    found = _LPIPS(net=network, pnet_rand=True)
    trunk = {}
    for slice_, layers in found.net.named_children():
        trunk |= {f"{slice_}.{name}": layer for name, layer in layers.named_children() if hasattr(layer, "weight")}
    assert len(trunk) == len(lpips_weights.NETWORKS[network].shapes)
    for number, layer in enumerate(trunk.values()):
        layer.weight.data = tensors[f"convolutions.{number}.weight"]
        layer.bias.data = tensors[f"convolutions.{number}.bias"]
    return found


@pytest.mark.parametrize("network", ["alex", "vgg"])
def test_lpips_and_its_heads_are_torchmetrics(network, pairs, tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO_HOME", str(tmp_path))
    tensors = lpips_weights.load(network)
    expected = their_lpips(network, tensors)
    for number, head in enumerate(expected.lins):
        assert torch.equal(tensors[f"heads.{number}"], head.model[-1].weight.flatten())
    pairs = tuple(enlarged(each, (64, 64)).float() for each in pairs)
    found = LPIPS(network)(*pairs)
    assert found.dtype == torch.float64
    assert found.max() > 0.3
    torch.testing.assert_close(found, expected(*pairs).flatten().double(), atol=1e-5, rtol=0)


def test_the_scales_of_a_resolution():
    assert [scales(size, 256) for size in (10, 11, 21, 22, 43, 44, 87, 88, 175, 176)] == [0, 1, 1, 2, 2, 3, 3, 4, 4, 5]
    assert scales(512, 512) == 5
    assert sum(SCALES) == pytest.approx(1, abs=1e-3)


def test_equal_and_opposite_images(pairs):
    images, _ = pairs
    assert torch.allclose(ssim(images, images), torch.ones(6, dtype=torch.float64))
    assert torch.allclose(ms_ssim(images, images), torch.ones(6, dtype=torch.float64))
    assert psnr(images, images).isinf().all()
    black, white = torch.full((1, 1, 16, 16), -1.0), torch.full((1, 1, 16, 16), 1.0)
    assert psnr(black, white).item() == pytest.approx(0)
    assert psnr(black, black + 2 / 255).item() == pytest.approx(48.1308, abs=1e-4)      # 20 log10(255)
    c1 = (0.01 * 2) ** 2
    assert ssim(black, white).item() == pytest.approx((c1 - 2) / (c1 + 2))
    assert ms_ssim(black, white).item() == 0      # its luminance is negative


@pytest.mark.parametrize("measure", [psnr, ssim, ms_ssim])
def test_what_cannot_be_compared_is_refused(pairs, measure):
    images, _ = pairs
    for a, b in ((images, images[:2]), (images[0], images[0]), (images, (images * 127).to(torch.uint8))):
        with pytest.raises(EvaluationError, match=r"give two batches of images \[N, C, H, W\] in \[-1, 1\]"):
            measure(a, b)
    for wrong in (images * 127, images * float("nan")):
        with pytest.raises(zoo.ZooError, match="clamp them"):
            measure(images, wrong)


def test_images_smaller_than_the_window_are_refused(pairs):
    small = tuple(each[..., :10, :20] for each in pairs)
    for measure in (ssim, ms_ssim):
        with pytest.raises(EvaluationError, match=r"20x10 pixels have no structural similarity.*11x11.*PSNR"):
            measure(*small)
    assert psnr(*small).isfinite()[:4].all()
    assert ssim(*(each[..., :11, :11] for each in pairs)).shape == (6,)
