"""Predictions of mirrored views mixed with that of the slice."""

import numpy as np
import pytest
import torch
from PIL import Image

from napari_dinoaugseg.case import open_case
from napari_dinoaugseg.learning.augmentation import tta_views
from napari_dinoaugseg.learning.features import FeatureStore
from napari_dinoaugseg.learning.predict import choose_tta, predict
from napari_dinoaugseg.learning.settings import Settings
from napari_dinoaugseg.learning.train import new_decoder


@pytest.fixture
def pictures(tmp_path, encoder):
    """A store of a coloured picture and the same one mirrored, left and right."""
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    for name, shown in (("a", pixels), ("b", pixels[:, ::-1])):
        Image.fromarray(shown).save(tmp_path / f"{name}.png")
    return FeatureStore(open_case(tmp_path), encoder, input_size=64, window=None)


@pytest.fixture
def decoder(encoder):
    torch.manual_seed(0)
    return new_decoder(encoder.channels, 2, Settings(width=16)).eval()


def masks(store, decoder, mirrors):
    return list(predict(store, decoder, [0, 1], tta=mirrors))


@pytest.mark.parametrize("symmetry", ["sides", "any"])
def test_a_mirrored_picture_gets_the_mirrored_mask(pictures, decoder, symmetry):
    mirrored = masks(pictures, decoder, tta_views(symmetry))
    first, second = (item.pixel_confidence for item in mirrored)
    assert np.allclose(first, second[:, ::-1], atol=1e-4)
    alone = [item.pixel_confidence for item in masks(pictures, decoder, ())]
    assert not np.allclose(alone[0], alone[1][:, ::-1], atol=1e-3)


def test_each_mirrored_view_is_encoded_once(pictures, decoder):
    for _ in range(2):
        masks(pictures, decoder, tta_views("any"))
        assert pictures.encoded == 8


def test_only_pictures_that_may_be_mirrored_are_and_only_where_it_is_wanted(pictures, make_store):
    assert choose_tta(pictures, Settings(), 2) == tta_views("any")
    assert choose_tta(pictures, Settings(), 3) == ()  # they may be left and right
    assert choose_tta(pictures, Settings.of_preset("fast"), 2) == ()
    assert choose_tta(pictures, Settings.of_preset("paper"), 2) == ()
    assert choose_tta(make_store(), Settings(), 2) == ()
