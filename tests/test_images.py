"""Grids that people look at."""

import numpy as np
import pytest
import torch
from PIL import Image

from zoo.errors import ConfigError
from zoo.images import grid, save_grid, to_bytes


def plain(n: int, channels: int, value: float, height: int = 5, width: int = 4) -> torch.Tensor:
    return torch.full((n, channels, height, width), value)


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB"), (4, "RGBA")])
def test_file_holds_each_image_where_it_belongs(channels, mode, tmp_path):
    images = torch.linspace(-1, 1, 5).reshape(5, 1, 1, 1).expand(5, channels, 6, 4)
    path = save_grid(images, tmp_path / "deep" / "grid.png")
    with Image.open(path) as picture:
        assert picture.mode == mode
        pixels = np.asarray(picture).reshape(*np.asarray(picture).shape[:2], channels)
    assert pixels.shape == (2 * (6 + 2) + 2, 3 * (4 + 2) + 2, channels)       # three across, two down
    for i, value in enumerate([0, 64, 128, 191, 255]):
        top, left = 2 + (i // 3) * 8, 2 + (i % 3) * 6
        assert (pixels[top : top + 6, left : left + 4] == value).all()
    assert (pixels[:2] == 255).all()
    assert (pixels[10:16, 14:18] == 255).all()                                # the sixth place stays white


@pytest.mark.parametrize(
    ("n", "columns", "size"), [(1, None, (8, 9)), (7, 7, (44, 9)), (2, 9, (14, 9)), (64, None, (50, 58))]
)
def test_columns(n, columns, size):
    assert grid(plain(n, 3, 0.0), columns).size == size


def test_values_outside_are_clamped_and_nan_is_black():
    pixels = to_bytes(torch.tensor([-9.0, 9.0, float("nan"), float("inf"), 0.0]))
    assert pixels.tolist() == [0, 255, 0, 255, 128]


@pytest.mark.parametrize("shape", [(0, 3, 4, 4), (3, 4, 4), (1, 2, 4, 4), (1, 5, 4, 4)])
def test_shapes_that_make_no_grid(shape):
    with pytest.raises(ConfigError, match="make no grid"):
        grid(torch.zeros(shape))


@pytest.mark.parametrize(("name", "channels"), [("grid", 3), ("grid.txt", 3), ("grid.jpg", 4)])
def test_name_that_fits_no_format(name, channels, tmp_path):
    with pytest.raises(ConfigError, match=r"end (it|the name) with \.png"):
        save_grid(plain(1, channels, 0.0), tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_no_columns():
    with pytest.raises(ConfigError, match="0 columns"):
        grid(plain(1, 3, 0.0), 0)
