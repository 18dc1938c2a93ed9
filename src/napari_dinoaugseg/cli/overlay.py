"""A picture of slices with their masks, for looking at a result without a viewer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor, ImageDraw, ImageFont

_TEXT, _GROUND = "#f2f2f2", "#101010"
_MARGIN = 14


@dataclass(frozen=True)
class Panel:
    """One slice to draw.

    Attributes:
        title: above the slice.
        image: (H, W) float32 in 0 to 1, or (H, W, 3).
        masks: label images (H, W) by the name of their row, for example prediction and truth.
    """

    title: str
    image: NDArray[np.float32]
    masks: Mapping[str, NDArray[np.integer]]


def draw_overlay(
    panels: Sequence[Panel], colours: Mapping[int, str], legend: Mapping[int, str], heading: str, *, scale: int = 2
) -> Image.Image:
    """Slices side by side: the plain image in the first row, then a row for each mask on top of it.

    Args:
        panels: slices of one size.
        colours: ``#rrggbb`` by label value.
        legend: text by label value.
        heading: above everything.
        scale: how many times the slices are enlarged.
    """
    font, small = ImageFont.load_default(22), ImageFont.load_default(16)
    height, width = panels[0].image.shape[:2]
    rows = ["image", *panels[0].masks]
    cell_width, cell_height = width * scale + _MARGIN, height * scale + _MARGIN
    left, top = 110, 100
    canvas = Image.new("RGB", (left + cell_width * len(panels), top + cell_height * len(rows)), _GROUND)
    pen = ImageDraw.Draw(canvas)
    pen.text((_MARGIN, _MARGIN), heading, fill=_TEXT, font=font)
    position = left
    for number, text in legend.items():
        pen.rectangle((position, 54, position + 16, 70), fill=colours[number])
        pen.text((position + 24, 52), text, fill=_TEXT, font=small)
        position += 48 + round(small.getlength(text))
    for row, name in enumerate(rows):
        pen.text((_MARGIN, top + row * cell_height + cell_height // 2 - 16), name, fill=_TEXT, font=small)
        for column, panel in enumerate(panels):
            corner = (left + column * cell_width, top + row * cell_height)
            mask = None if row == 0 else panel.masks[name]
            canvas.paste(_slice_picture(panel.image, mask, colours, scale), corner)
            if row == 0:
                pen.text((corner[0], top - 22), panel.title, fill=_TEXT, font=small)
    return canvas


def _slice_picture(
    image: NDArray[np.float32], mask: NDArray[np.integer] | None, colours: Mapping[int, str], scale: int
) -> Image.Image:
    grey = image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)
    pixels = np.clip(grey, 0, 1) * 255
    if mask is not None:
        for number, colour in colours.items():
            inside = mask == number
            pixels[inside] = 0.45 * pixels[inside] + 0.55 * np.array(ImageColor.getrgb(colour)[:3], dtype=np.float64)
    picture = Image.fromarray(pixels.astype(np.uint8))
    # Nearest: a reader must see the voxels as they are.
    return picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)
