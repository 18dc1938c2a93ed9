"""What is measured on: made-up volumes of any size, and encoders with random weights where time alone counts."""

from __future__ import annotations

import tempfile
from collections.abc import Generator
from pathlib import Path

import numpy as np
import timm
import torch

from benchmarks.memory import column, write_volume
from napari_dinoaugseg.learning.context import neighbour_distance
from napari_dinoaugseg.learning.events import Event
from napari_dinoaugseg.learning.features import FeatureStore
from napari_dinoaugseg.learning.held import Trained
from napari_dinoaugseg.learning.trainer import Example
from napari_dinoaugseg.model.encoder import Encoder, load_encoder
from napari_dinoaugseg.model.specs import ENCODERS, trunk_shapes
from napari_dinoaugseg.study import Study, choose_window, open_study


def encoder_for_time(name: str, device: str = "cpu") -> Encoder:
    """An encoder by name, with its weights where the package brings them; random ones take the same time."""
    if name == "efficientnet-lite0":
        return load_encoder(name, device=device)
    torch.manual_seed(0)
    state = timm.create_model(ENCODERS[name].timm_name, pretrained=False, num_classes=0).state_dict()
    return Encoder(ENCODERS[name], {key: state[key] for key in trunk_shapes(name)}, device)


def made_volume(slices: int) -> Study:
    """A CT-like volume of 512 x 512 pixels: a bright column in noise."""
    folder = Path(tempfile.mkdtemp(prefix="speed-"))
    write_volume(folder / "volume.nii", slices)
    study = open_study(folder / "volume.nii", plane="axial")
    study.slice(0)  # it is read
    (folder / "volume.nii").unlink()
    folder.rmdir()
    return study


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


def store_for(study: Study, encoder: Encoder, input_size: int, context: int | None = None) -> FeatureStore:
    """Features of a study, in memory only."""
    window = choose_window(study)
    distance = neighbour_distance(study, window, context)
    return FeatureStore(study, encoder, input_size=input_size, window=window, context=distance)
