"""Random sequences of everything that changes labels, against a plain model of what a person expects of undo.

DINOAUGSEG_UNDO_SEEDS=1000 makes it a long run, 113-114 runs one seed. A failure tells its seed and the few actions that
it takes.
"""

from __future__ import annotations

import gc
import os
import time

import nibabel as nib
import numpy as np
import pytest

from napari_dinoaugseg.case import open_case
from napari_dinoaugseg.gui import painting
from napari_dinoaugseg.gui.controller import Controller
from tests.conftest import look_at_everything
from tests.gui.undo_attack import Attack, actions_of

pytestmark = pytest.mark.filterwarnings("ignore:System theme detection")

*_FIRST, LAST = (int(number) for number in os.environ.get("DINOAUGSEG_UNDO_SEEDS", "9").split("-"))
AT_ONCE = 25  # seeds in one viewer
LENGTH = 45  # actions of a seed
SHRINKING = 60  # seconds


@pytest.fixture
def cases(tmp_path):
    """A volume of 6 x 12 x 14 voxels, cut along each plane."""
    rng = np.random.default_rng(0)
    image = nib.Nifti1Image(rng.integers(0, 500, (14, 12, 6)).astype(np.int16), np.diag([0.8, 0.9, 3.0, 1.0]))
    nib.save(image, tmp_path / "image.nii.gz")
    return [open_case(tmp_path / "image.nii.gz", plane=plane) for plane in ("axial", "coronal", "sagittal")]


@pytest.fixture
def attack(make_napari_viewer, monkeypatch, tmp_path, cases):
    """Runs the actions of a seed, or some of them; returns what went wrong, or an empty text."""
    monkeypatch.setattr(painting, "_SETTLE", 1)  # ms; nobody wants to wait here
    monkeypatch.setattr("napari.utils.notifications.show_error", lambda sentence: None)
    controller = Controller.of(make_napari_viewer())
    gc.collect()
    gc.freeze()  # napari collects garbage with each layer that goes; what is there now is none

    def run(seed, actions):
        made = Attack(controller, cases[seed % len(cases)], tmp_path)
        try:
            made.run(actions)
        except AssertionError as error:
            return str(error)
        finally:
            made.end()
        return ""

    yield run
    look_at_everything()
    controller.dispose()


def shrunk(run, seed, actions):
    """The actions without those that the failure does not need."""
    until, size = time.monotonic() + SHRINKING, len(actions) // 2
    while size:
        start = 0
        while start < len(actions) and time.monotonic() < until:
            fewer = actions[:start] + actions[start + size :]
            if run(seed, fewer):
                actions = fewer
            else:
                start += size
        size //= 2
    return actions


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("first", range(*_FIRST or [0], LAST, AT_ONCE))
def test_labels_and_undo_are_what_a_person_expects(attack, first):
    for seed in range(first, min(first + AT_ONCE, LAST)):
        actions = actions_of(seed, LENGTH)
        if attack(seed, actions):
            few = shrunk(attack, seed, actions)
            pytest.fail(f"seed {seed}, {len(few)} actions: {few}\n{attack(seed, few)}")


def test_a_failure_is_shrunk_to_the_actions_that_it_takes():
    actions = actions_of(0, LENGTH)
    needed = [actions[3], actions[30]]
    assert shrunk(lambda _, some: all(one in some for one in needed), 0, actions) == needed
