"""Pictures by which people judge a generative model: what it makes, how it moves, and what it may have copied."""

from zoo.pictures.animation import save_animation
from zoo.pictures.classes import class_grid
from zoo.pictures.interpolation import interpolation, interpolation_strip
from zoo.pictures.neighbours import neighbour_sheet
from zoo.pictures.samples import sample_grid
from zoo.pictures.side_by_side import real_and_fake
from zoo.pictures.truncation import truncation_sweep

__all__ = [
    "class_grid",
    "interpolation",
    "interpolation_strip",
    "neighbour_sheet",
    "real_and_fake",
    "sample_grid",
    "save_animation",
    "truncation_sweep",
]
