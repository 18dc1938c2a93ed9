"""What the panel says of errors and notices names its own buttons, never an option of the command."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tests.case.builders import numbers, write_nifti
from tests.gui.conftest import wait_idle


@pytest.fixture
def controller(windowless_or_not):
    """With a window where it is looked at."""
    return windowless_or_not


def test_a_volume_that_is_not_there_is_chosen_in_the_case_section(controller, said, tmp_path):
    controller.cases.open_path(
        write_nifti(tmp_path / "cine.nii.gz", numbers((4, 5, 3, 6))), background=False, component=9
    )
    assert said == [
        f"{tmp_path / 'cine.nii.gz'}: there is no component 9. "
        "Choose one, from 0 to 5, when you open it in the Case section of the DINO-AugSeg panel."
    ]


def test_weights_given_as_a_model_are_asked_for_as_the_button_says(controller, case, said, tmp_path, qtbot):
    (tmp_path / "encoder.safetensors").write_bytes(b"no model")
    controller.jobs.load_model(tmp_path / "encoder.safetensors")
    wait_idle(qtbot, controller)
    assert any("'Save model…' wrote" in text for text in said)


def test_white_beside_labels_is_explained_without_the_commands_option(controller, said, tmp_path, qtbot):
    for folder in ("scans", "masks"):
        (tmp_path / folder).mkdir()
    Image.fromarray(numbers((16, 16), np.uint8)).save(tmp_path / "scans" / "a.png")
    mask = np.zeros((16, 16), np.uint8)
    mask[2:6, 2:6], mask[8:14, 8:14] = 1, 255
    Image.fromarray(mask).save(tmp_path / "masks" / "a.png")
    controller.cases.open_path(tmp_path / "scans", background=False)
    controller.jobs.load_labels(tmp_path / "masks")
    wait_idle(qtbot, controller)
    assert any("nothing is learnt there. If it is a class, save the masks with another number" in text for text in said)
