"""`dinoaugseg demo`: the whole loop on the sample study, in about a minute and without anything to download."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from napari_dinoaugseg.cli.output import ProgressLine, print_json, print_text, tell
from napari_dinoaugseg.cli.overlay import Panel, draw_overlay
from napari_dinoaugseg.errors import OutputError
from napari_dinoaugseg.learning.settings import Settings
from napari_dinoaugseg.session.evaluation import evaluate
from napari_dinoaugseg.session.session import Session
from napari_dinoaugseg.study import Study, open_study
from napari_dinoaugseg.study.intensity import choose_window, to_unit_rgb
from napari_dinoaugseg.study.sample import CLASS_NAMES, LABELLED_SLICES, brain_sample

_SHOWN = (33, 59, 85, 111)  # half-way between labelled slices, where the prediction has it hardest


def run_demo(
    folder: Path, changes: Mapping[str, Any], preset: str, weights: Path | None, device: str, *, as_json: bool
) -> None:
    """Write the sample study, learn from five of its slices, predict the rest, and compare with the truth."""
    settings = Settings.of_preset(preset, **changes)
    _make_folder(folder)
    image, truth, mask = folder / "t1.nii.gz", folder / "truth.nii.gz", folder / "mask.nii.gz"
    sample = brain_sample()
    nib.save(sample.image, image)
    nib.save(sample.tissue, truth)
    study = open_study(image)
    session = Session(study, settings, device=device, weights=weights, say=tell)
    started = time.monotonic()
    session.load_labels(truth, LABELLED_SLICES)
    tell(
        f"Brain template: {study.n_slices} axial slices, {len(LABELLED_SLICES)} labelled; "
        f"encoder {session.encoder_name}"
    )
    with ProgressLine().live() as line:
        line.run(session.train())
        line.follow(session.predict(study.n_slices // 2))
    session.export(mask)
    seconds = {stage: round(value, 3) for stage, value in session.seconds.items()}
    seconds["total"] = round(time.monotonic() - started, 3)
    result = evaluate(mask, truth, exclude=LABELLED_SLICES)
    dice = {CLASS_NAMES[number]: entry.dice for number, entry in result.classes.items()}
    overlay = folder / "overlay.png"
    _draw(study, session, truth, dice, overlay)
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
    print_text(f"\nThe same by hand:\n  dinoaugseg segment {image} --labels {truth} --slices {listed} --out {mask}")


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        msg = f"{folder}: the folder for the results cannot be made ({error.strerror}). Choose another with --out."
        raise OutputError(msg) from error


def _draw(study: Study, session: Session, truth: Path, dice: Mapping[str, float], path: Path) -> None:
    window = choose_window(study)
    true_masks = study.read_labels(truth, _SHOWN)
    panels = [
        Panel(
            f"slice {index}, not labelled",
            np.moveaxis(to_unit_rgb(study.slice(index), window), 0, -1),
            {"prediction": session.labels.result(index), "truth": true_masks[index]},
        )
        for index in _SHOWN
    ]
    colours = {entry.number: entry.colour for entry in session.labels.classes}
    legend = {number: f"{name}  Dice {100 * dice[name]:.1f} %" for number, name in CLASS_NAMES.items()}
    heading = f"{len(LABELLED_SLICES)} of {study.n_slices} slices labelled, the others predicted"
    draw_overlay(panels, colours, legend, heading).save(path)
