"""`dinoaugseg demo` without a window: the whole loop on the sample case, and a picture of the result."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor, ImageDraw, ImageFont

from napari_dinoaugseg.case import Case, open_case
from napari_dinoaugseg.case.array import CLASS_NAMES, LABELLED_SLICES, brain_sample
from napari_dinoaugseg.case.intensity import choose_window, to_unit_rgb
from napari_dinoaugseg.cli.output import ProgressLine, print_json, print_text, tell
from napari_dinoaugseg.errors import OutputError
from napari_dinoaugseg.learning.settings import Settings
from napari_dinoaugseg.session.compute import ComputeConfig
from napari_dinoaugseg.session.evaluation import evaluate
from napari_dinoaugseg.session.session import Session

_TEXT, _GROUND = "#f2f2f2", "#101010"
_MARGIN = 14
_SHOWN = (33, 59, 85, 111)  # halfway between labelled slices, where prediction is hardest


def run_demo(
    folder: Path, changes: Mapping[str, Any], preset: str, weights: Path | None, device: str, *, as_json: bool
) -> None:
    """Write the sample case, learn from five of its slices, predict the rest, and compare with the truth."""
    settings = Settings.of_preset(preset, **changes)
    _make_folder(folder)
    image, truth, mask = folder / "t1.nii.gz", folder / "truth.nii.gz", folder / "mask.nii.gz"
    sample = brain_sample()
    nib.save(sample.image, image)
    nib.save(sample.tissue, truth)
    case = open_case(image)
    session = Session(case, settings, ComputeConfig(device, weights), notify=tell)
    started = time.monotonic()
    session.load_labels(truth, LABELLED_SLICES)
    tell(
        f"Brain template: {case.n_slices} axial slices, {len(LABELLED_SLICES)} labelled; encoder {session.encoder_name}"
    )
    with ProgressLine().live() as line:
        line.run(session.train())
        line.follow(session.predict(case.n_slices // 2, report=line.show))
    session.export(mask)
    seconds = {stage: round(value, 3) for stage, value in session.seconds.items()}
    seconds["total"] = round(time.monotonic() - started, 3)
    result = evaluate(mask, truth, exclude=LABELLED_SLICES)
    dice = {CLASS_NAMES[number]: entry.dice for number, entry in result.classes.items()}
    overlay = folder / "overlay.png"
    _draw(case, session, truth, dice, overlay)
    if as_json:
        print_json({"dice": dice, "seconds": seconds, "mask": str(mask), "overlay": str(overlay)})
        return
    print_text(f"\nDice on the {result.slices} slices that were not labelled:")
    for name, value in dice.items():
        print_text(f"  {name:<13} {100 * value:.1f} %")
    parts = ", ".join(f"{stage} {value:.1f}" for stage, value in seconds.items())
    print_text(f"seconds   {parts}  ({session.encoder_name} on {session.device_name}, preset {preset})")
    print_text(f"mask      {mask}\npicture   {overlay}")
    listed = ",".join(str(index) for index in LABELLED_SLICES)
    by_hand = f"dinoaugseg segment {image} --labels {truth} --slices {listed} --preset {preset} --out {mask}"
    print_text(f"\nThe same by hand:\n  {by_hand}")


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        msg = f"{folder}: the folder for the results cannot be made ({error.strerror}). Choose another with --out."
        raise OutputError(msg) from error


def _draw(case: Case, session: Session, truth: Path, dice: Mapping[str, float], path: Path) -> None:
    window = choose_window(case)
    true_masks = case.read_labels(truth, _SHOWN)
    panels = [
        Panel(
            f"slice {index}, not labelled",
            np.moveaxis(to_unit_rgb(case.slice(index), window), 0, -1),
            {"prediction": session.labels.result(index), "truth": true_masks[index]},
        )
        for index in _SHOWN
    ]
    colours = {entry.number: entry.colour for entry in session.labels.classes}
    legend = {number: f"{name}  Dice {100 * dice[name]:.1f} %" for number, name in CLASS_NAMES.items()}
    heading = f"{len(LABELLED_SLICES)} of {case.n_slices} slices labelled, the others predicted"
    draw_overlay(panels, colours, legend, heading).save(path)


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
    """Draw slices side by side: the image in the first row, then a row for each mask over it.

    Args:
        panels: slices of one size.
        colours: ``#rrggbb`` by label value.
        legend: text by label value.
        heading: text at the top.
        scale: the factor by which slices are enlarged.
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
    # Nearest-neighbour, to show the voxels unaltered.
    return picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)
