"""Margins: as many lines as have the tone of the first one, wherever the first other one stands."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from vlmill.pipeline.images.margins import find_content
from vlmill.pipeline.steps.image_stats import measure_sharpness


def draw_picture(size: tuple[int, int], margin: int) -> Image.Image:
    """Noise within a white margin of so many pixels."""
    pixels = np.full(size[::-1], 250, np.uint8)
    inside = (size[1] - 2 * margin, size[0] - 2 * margin)
    pixels[margin : size[1] - margin, margin : size[0] - margin] = np.random.default_rng(0).integers(0, 255, inside)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("margin", [0, 1, 7, 8, 9, 23, 24, 25, 60])
def test_a_margin_of_any_width_is_found_to_the_pixel(margin):
    found = find_content(draw_picture((300, 200), margin))
    assert found == (margin, margin, 300 - margin, 200 - margin)


def test_a_picture_of_one_tone_has_no_margins():
    assert find_content(Image.new("L", (300, 200), 7)) == (0, 0, 300, 200)


def test_sharpness_is_exact_at_the_largest_edges_there_can_be():
    """A chessboard: each Laplacian is 4 x 255 or -4 x 255, and as many are of either."""
    board = (np.indices((258, 258)).sum(axis=0) % 2 * 255).astype(np.uint8)[:256, :256]
    assert measure_sharpness(Image.fromarray(board)) == (4 * 255) ** 2
