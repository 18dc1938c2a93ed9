import json

import pytest

from napari_dinoaugseg.errors import SettingsError
from napari_dinoaugseg.learning.settings import PRESETS, Settings, frozen_steps


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_valid_and_carries_its_name(preset):
    assert Settings.of_preset(preset).preset == preset


def test_the_paper_preset_is_the_papers_recipe():
    paper = Settings.of_preset("paper")
    assert (paper.input_size, paper.width, paper.batch_size, paper.steps) == (768, None, 2, 2000)
    assert (paper.optimiser, paper.learning_rate, paper.schedule) == ("adam", 1e-4, "constant")
    assert (paper.augment_probability, paper.augment_drop) == (0.7, 0.3)
    assert (paper.views, paper.average, paper.norm, paper.rotary) == (0, 0.0, "batch", "1d")
    assert (paper.context, paper.mirrors, paper.class_balance, paper.absent_in_dice) == (0, False, 0.0, True)
    assert (paper.scaling, paper.dice, paper.clip_gradient) == ("slice", "sums", None)
    assert (paper.precision, paper.resize) == ("float32", "nearest")


NEWER = {
    "scaling": "window",
    "dice": "squares",
    "clip_gradient": 5.0,
    "precision": "auto",
    "resize": "bilinear",
}
"""What was done before these could be chosen."""


@pytest.mark.parametrize("preset", PRESETS)
def test_a_file_of_an_older_version_means_what_was_done_then(preset):
    older = {
        name: value for name, value in Settings.of_preset(preset).model_dump(mode="json").items() if name not in NEWER
    }
    found = Settings.checked(older).model_dump()
    assert {name: found[name] for name in NEWER} == NEWER
    assert {name: value for name, value in found.items() if name not in NEWER} == older


@pytest.mark.parametrize("preset", ["fast", "balanced"])
def test_the_other_presets_do_what_they_did(preset):
    found = Settings.of_preset(preset).model_dump()
    assert {name: found[name] for name in NEWER} == NEWER


def test_an_input_size_that_the_encoder_cannot_halve_is_refused_with_a_better_one():
    with pytest.raises(SettingsError, match=r"input_size.*multiple of 32.*256"):
        Settings.of_preset("fast", input_size=250)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps", 0),
        ("learning_rate", -1.0),
        ("norm", "none"),
        ("nonsense", 1),
        ("scaling", "volume"),
        ("dice", "none"),
        ("clip_gradient", 0.0),
        ("precision", "float16"),
        ("resize", "cubic"),
        ("adaptation", {"after": 1.5}),
    ],
)
def test_a_value_out_of_its_range_is_named(name, value):
    with pytest.raises(SettingsError, match=name):
        Settings.of_preset("balanced", **{name: value})


def test_an_unknown_preset_is_refused_with_the_known_ones():
    with pytest.raises(SettingsError, match="fast, balanced, adapt, paper"):
        Settings.of_preset("best")


def test_settings_survive_a_round_trip_through_plain_values():
    for preset in PRESETS:
        settings = Settings.of_preset(preset, seed=7)
        assert Settings.checked(json.loads(json.dumps(settings.model_dump(mode="json")))) == settings


def test_only_adapt_lets_the_encoder_learn_and_a_continued_training_lets_it_at_once():
    for preset in PRESETS:
        steps = [frozen_steps(Settings.of_preset(preset), 120, warm=warm) for warm in (False, True)]
        assert steps == ([40, 0] if preset == "adapt" else [120, 120])


def test_more_classes_take_more_steps_within_a_limit():
    settings = Settings(steps=200, class_steps=0.1)
    steps = [settings.planned_steps(n_classes, 5, warm=False) for n_classes in (2, 3, 12, 100)]
    assert steps == [200, 220, 400, 600]


def test_many_labelled_slices_take_more_steps_of_a_first_training_within_a_limit():
    settings = Settings(steps=100, shows=16, batch_size=4, warm_steps=0.4)
    assert [settings.planned_steps(2, slices, warm=False) for slices in (1, 25, 40, 1000)] == [100, 100, 160, 300]
    assert settings.planned_steps(2, 1000, warm=True) == 40


def test_a_training_of_the_preset_balanced_does_not_depend_on_how_much_is_labelled():
    settings = Settings.of_preset("balanced")
    assert settings.planned_steps(2, 5, warm=False) == settings.planned_steps(2, 500, warm=False) == settings.steps
