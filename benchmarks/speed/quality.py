"""(b) Seconds to a Dice: the paper's recipe in the plain loop, and our presets on the same labels and encoder."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.cases import SampleCases
from benchmarks.one_volume import even_slices, holding
from benchmarks.samples import SETS, load_set
from benchmarks.speed import plain
from benchmarks.speed.alone import Figures, alone
from benchmarks.speed.made import encoder_for_time, result_of, store_for
from napari_dinoaugseg.case import Slices
from napari_dinoaugseg.case.array import LABELLED_SLICES, brain_sample, sample_case
from napari_dinoaugseg.learning.features import FeatureStore
from napari_dinoaugseg.learning.predict import choose_tta, predict
from napari_dinoaugseg.learning.settings import Settings
from napari_dinoaugseg.learning.train import Example, fit

PRESETS = ("fast", "balanced")
SHARES = (0.25, 0.5, 0.75, 1.0)  # of a preset's steps: the shortest that reaches the recipe's Dice counts
Truth = Mapping[int, NDArray[np.integer]]


def measure(data: Path | None, steps: int = 1000, device: str = "cpu") -> list[Figures]:
    """A row for each case and preset; only the brain without the folder of the public sets."""
    rows = []
    for name in ("brain", *(("la2018", "ph2") if data else ())):
        theirs = alone(the_recipe, name, data, steps, device)
        for preset in PRESETS:
            trainings = [alone(a_preset, name, data, preset, share, device) for share in SHARES]
            whole = trainings[-1]
            enough = next((found for found in trainings if found["dice"] >= theirs["dice"]), None)
            rows.append(
                {
                    "what": f"{name}, {preset}",
                    "recipe_dice": theirs["dice"],
                    "recipe_s": theirs["seconds"],
                    "dice": whole["dice"],
                    "seconds": whole["seconds"],
                    "share_of_time": round(whole["seconds"] / theirs["seconds"], 4),
                    "reached_steps": enough and enough["steps"],
                    "reached_dice": enough and enough["dice"],
                    "reached_s": enough and enough["seconds"],
                    "reached_share": enough and round(enough["seconds"] / theirs["seconds"], 4),
                }
            )
    return rows


def the_recipe(name: str, data: Path | None, steps: int, device: str = "cpu") -> Figures:
    """The paper's recipe, for that many steps."""
    case, examples, truth, n_classes = _problem(name, data)
    settings = Settings.of_preset("paper", input_size=256, steps=steps)
    store = _store(case, settings, device)
    seconds = 0.0
    for decoder, taken in plain.train(store, examples, settings, n_classes):  # noqa: B007 - the last one is used
        seconds += taken
    return {"seconds": round(seconds, 2), "dice": _percent(dict(plain.predict(store, decoder, list(truth))), truth)}


def a_preset(name: str, data: Path | None, preset: str, share: float = 1.0, device: str = "cpu") -> Figures:
    """A preset of the program, with a share of its steps: seconds to encode the labelled slices and to train."""
    case, examples, truth, n_classes = _problem(name, data)
    settings = Settings.of_preset(preset)
    settings = settings.with_changes(steps=round(share * settings.steps))
    store = _store(case, settings, device)
    started = time.perf_counter()
    trained = result_of(fit(store, examples, settings, n_classes=n_classes))
    seconds = time.perf_counter() - started
    labelled = {example.index: example.target for example in examples}
    tta = choose_tta(store, settings, n_classes)
    items = predict(store, trained.decoder, list(truth), labelled=labelled, tta=tta)
    found = {item.index: item.classes for item in items}
    return {"seconds": round(seconds, 2), "steps": trained.steps, "dice": _percent(found, truth)}


def _problem(name: str, data: Path | None) -> tuple[Slices, list[Example], Truth, int]:
    """Slices, labelled ones, the truth of the others, and the number of classes with the background."""
    if name == "brain":
        case = sample_case()
        truth = case.to_slices(np.asarray(brain_sample().tissue.dataobj))
        labelled, others = LABELLED_SLICES, set(range(case.n_slices)) - set(LABELLED_SLICES)
        examples = [Example(i, truth[i].astype(np.int16)) for i in labelled]
        return case, examples, {i: truth[i] for i in sorted(others)}, 3
    if data is None:
        msg = f"{name} is one of the public sets: name their folder."
        raise ValueError(msg)
    if name == "la2018":
        sample = sorted(load_set(data, name), key=lambda sample: sample.name)[-1]
        many = SampleCases([sample])
        chosen = even_slices(holding(sample), 5, 0)
    else:
        pool = load_set(data, name, "train")
        many = SampleCases([*pool, *load_set(data, name, "test")])
        chosen = list(range(10))
    others = set(range(many.slices.n_slices)) - (set(chosen) if name == "la2018" else set(range(len(pool))))
    examples = [many.example(i) for i in chosen]
    return many.slices, examples, {i: many.truth(i) for i in sorted(others)}, len(SETS[name].classes) + 1


def _store(case: Slices, settings: Settings, device: str) -> FeatureStore:
    return store_for(case, encoder_for_time("efficientnet-lite0", device), settings.input_size, settings.context)


def _percent(found: Truth, truth: Truth) -> float:
    return round(100 * plain.dice_of(found, truth, int(max(labels.max() for labels in truth.values())) + 1), 1)
