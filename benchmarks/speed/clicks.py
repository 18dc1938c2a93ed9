"""(c) From the press on Train to the first mask and to the last one, and the same after a correction.

PyTorch and timm are loaded before, as the panel does it while a person paints; the encoder's weights are not.
"""

from __future__ import annotations

import time

import numpy as np

from benchmarks.speed.alone import Figures, alone
from benchmarks.speed.made import made_example, made_volume
from benchmarks.speed.plain import dice_of
from napari_dinoaugseg.case import Case
from napari_dinoaugseg.case.array import LABELLED_SLICES, brain_sample, sample_case
from napari_dinoaugseg.learning.settings import Settings
from napari_dinoaugseg.session.compute import ComputeConfig
from napari_dinoaugseg.session.local import load_libraries
from napari_dinoaugseg.session.session import Session

PRESETS = ("fast", "balanced")


def measure(slices: int = 300, device: str = "cpu") -> list[Figures]:
    """A row for each case and preset."""
    rows = [{"what": f"brain, 140 slices, {preset}", **alone(on_brain, preset, device)} for preset in PRESETS]
    return rows + [
        {"what": f"512 x 512 x {slices}, {preset}", **alone(on_made, preset, slices, device)} for preset in PRESETS
    ]


def on_brain(preset: str, device: str = "cpu") -> Figures:
    """The sample case; Dice of both tissues on the slices that are not labelled, after each round."""
    case = sample_case()
    truth = case.to_slices(np.asarray(brain_sample().tissue.dataobj))
    session = _session(case, preset, device)
    session.labels.add_class("grey matter")
    session.labels.add_class("white matter")
    for index in LABELLED_SLICES:
        session.paint(index, truth[index].astype(np.uint16))
    first = _round(session, case.n_slices // 2)
    first_dice = _dice(session, truth)
    wrong = session.suggest(1)[0].index
    session.paint(wrong, truth[wrong].astype(np.uint16))
    second = _round(session, wrong)
    return _figures(first, second) | {"dice": first_dice, "dice_again": _dice(session, truth)}


def on_made(preset: str, slices: int, device: str = "cpu") -> Figures:
    """A made-up CT."""
    session = _session(made_volume(slices), preset, device)
    session.labels.add_class("column")
    for part in (2, 5, 8):
        index = slices * part // 10
        session.paint(index, made_example(index).target.astype(np.uint16))
    first = _round(session, slices // 2)
    session.paint(slices // 3, made_example(slices // 3).target.astype(np.uint16))
    return _figures(first, _round(session, slices // 3))


def _session(case: Case, preset: str, device: str) -> Session:
    settings = Settings.of_preset(preset, encoder="efficientnet-lite0")
    load_libraries(settings.encoder)
    return Session(case, settings, ComputeConfig(device, cache=False))


def _round(session: Session, centre: int) -> tuple[float, float, float]:
    """Seconds to the end of the training, to the first mask, to the last one."""
    started = time.perf_counter()
    for _ in session.train():
        pass
    trained = time.perf_counter() - started
    masks = [time.perf_counter() - started for _ in session.predict(centre)]
    return trained, masks[0], masks[-1]


def _figures(first: tuple[float, float, float], second: tuple[float, float, float]) -> Figures:
    names = ("trained_s", "first_mask_s", "last_mask_s")
    return {
        **{name: round(value, 2) for name, value in zip(names, first, strict=True)},
        **{f"again_{name}": round(value, 2) for name, value in zip(names, second, strict=True)},
        "again_share": round(second[2] / first[2], 2),
    }


def _dice(session: Session, truth: np.ndarray) -> list[float]:
    """Of each tissue, in percent."""
    found = {index: session.labels.result(index) for index in session.labels.open_slices}
    return [
        round(100 * dice_of({i: m == n for i, m in found.items()}, {i: truth[i] == n for i in found}, 2), 1)
        for n in (1, 2)
    ]
