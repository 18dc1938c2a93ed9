"""What is measured on: made-up volumes of any size, and encoders with random weights where time alone counts."""

from __future__ import annotations

import tempfile
from collections.abc import Generator
from pathlib import Path

import numpy as np
import timm
import torch

from benchmarks.memory import column, write_volume
from napari_dinoaugseg.case import Case, Slices, choose_window, open_case
from napari_dinoaugseg.learning.augmentation import neighbour_distance
from napari_dinoaugseg.learning.events import Event
from napari_dinoaugseg.learning.features import FeatureStore
from napari_dinoaugseg.learning.train import Example, Trained
from napari_dinoaugseg.model.encoder import Encoder, load_encoder
from napari_dinoaugseg.model.specs import ENCODERS, trunk_shapes


def encoder_for_time(name: str, device: str = "cpu") -> Encoder:
    """An encoder by name, with its weights where the package brings them; random ones take the same time."""
    if name == "efficientnet-lite0":
        return load_encoder(name, device=device)
    torch.manual_seed(0)
    state = timm.create_model(ENCODERS[name].timm_name, pretrained=False, num_classes=0).state_dict()
    return Encoder(ENCODERS[name], {key: state[key] for key in trunk_shapes(name)}, device)


def made_volume(slices: int) -> Case:
    """A CT-like volume of 512 x 512 pixels: a bright column in noise."""
    folder = Path(tempfile.mkdtemp(prefix="speed-"))
    write_volume(folder / "volume.nii", slices)
    case = open_case(folder / "volume.nii", plane="axial")
    case.slice(0)  # it is read
    (folder / "volume.nii").unlink()
    folder.rmdir()
    return case


def made_example(index: int) -> Example:
    """Slice `index` of a made-up volume, with the column labelled."""
    return Example(index, column(index).astype(np.int16))


def result_of(events: Generator[Event, None, Trained]) -> Trained:
    """What a training returns when its events are over."""
    while True:
        try:
            next(events)
        except StopIteration as end:
            trained: Trained = end.value
            return trained


def store_for(case: Slices, encoder: Encoder, input_size: int, context: int | None = None) -> FeatureStore:
    """Features of a case, in memory only."""
    window = choose_window(case)
    distance = neighbour_distance(case, window, context)
    return FeatureStore(case, encoder, input_size=input_size, window=window, context=distance)
