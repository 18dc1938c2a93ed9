"""Labels from a file in the panel: a start, never in place of what the person painted."""

from __future__ import annotations

import json
import shutil

import nibabel as nib
import nrrd
import numpy as np
import pytest
from PIL import Image
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFileDialog

from napari_dinoaugseg.case.case import Segment
from napari_dinoaugseg.gui.core import Change
from tests.blobs import AFFINE, truth_voxels
from tests.gui.conftest import paint, settle, wait_idle

pytestmark = pytest.mark.shared_window


def load(qtbot, panel, path, monkeypatch) -> None:
    """Press the button, and choose the file."""
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_, **__: (str(path), ""))
    panel.label.load_button.click()
    wait_idle(qtbot, panel.controller)


def test_labels_of_a_file_are_shown_and_count_as_painted(
    qtbot, panel, controller, case, truth, blob_files, monkeypatch
):
    load(qtbot, panel, blob_files[1], monkeypatch)

    book = controller.session.labels
    holding = [index for index in range(case.n_slices) if truth[index].any()]
    assert book.labelled == holding
    assert {entry.number for entry in book.classes} >= {1, 3}
    shown = np.moveaxis(np.asarray(controller.layers.manual.data), controller.layers.axis, 0)
    for index in holding:
        np.testing.assert_array_equal(book.manual(index), truth[index])
        np.testing.assert_array_equal(shown[index] % 65535, truth[index])


def test_loading_labels_leaves_what_was_painted_and_is_taken_back_by_undo(
    qtbot, panel, controller, case, truth, blob_files, said, monkeypatch
):
    mine = np.where(truth == 3, 1, 0)
    paint(controller, mine, [8])

    load(qtbot, panel, blob_files[1], monkeypatch)

    book = controller.session.labels
    np.testing.assert_array_equal(book.manual(8), mine[8])
    assert len(book.labelled) > 1
    assert "1 that you labelled by hand stay as they are" in said[-1]
    controller.layers.manual.undo()
    controller.flush()
    assert book.labelled == [8]
    np.testing.assert_array_equal(book.manual(8), mine[8])


def test_names_and_colours_of_a_segmentation_become_those_of_the_classes(
    qtbot, panel, controller, case, truth, said, tmp_path, monkeypatch
):
    meant = [Segment(1, "Tumour", "#e61a1a"), Segment(3, "Kidney left", "#1ae61a")]
    case.write_mask(tmp_path / "whole.seg.nrrd", lambda i: truth[i], meant)
    content, header = nrrd.read(str(tmp_path / "whole.seg.nrrd"))
    header["space origin"] = header["space origin"] + header["space directions"].T @ [4, 6, 1]
    nrrd.write(str(tmp_path / "part.seg.nrrd"), content[4:36, 6:44, 1:15], header)

    load(qtbot, panel, tmp_path / "part.seg.nrrd", monkeypatch)

    classes = [(entry.number, entry.name, entry.colour) for entry in controller.session.labels.classes]
    assert classes == [(1, "Tumour", "#e61a1a"), (3, "Kidney left", "#1ae61a")]
    assert "begins at voxel (4, 6, 1) of the image" in said[-1]
    holding = [index for index in range(case.n_slices) if truth[index].any()]
    assert controller.session.labels.labelled == holding
    assert all(np.array_equal(controller.session.labels.manual(index), truth[index]) for index in holding)


def test_labels_of_another_image_are_refused_in_one_sentence(
    qtbot, panel, controller, case, said, tmp_path, monkeypatch
):
    elsewhere = AFFINE + np.array([[0, 0, 0, 5.0], [0] * 4, [0] * 4, [0] * 4])
    nib.save(nib.Nifti1Image(truth_voxels(), elsewhere), tmp_path / "other.nii")

    load(qtbot, panel, tmp_path / "other.nii", monkeypatch)

    assert "do not fit" in said[-1]
    assert controller.session.labels.labelled == []


def pictures_with_masks(folder) -> None:
    """Four grey pictures, masks beside two of them."""
    for name in ("images", "masks"):
        (folder / name).mkdir()
    for number in range(4):
        Image.fromarray(np.full((8, 9), 20 * number, np.uint8)).save(folder / "images" / f"IMD{number}.png")
    for number in (1, 3):
        mask = np.zeros((8, 9), np.uint8)
        mask[2:4, 3 : 3 + number] = 255
        Image.fromarray(mask).save(folder / "masks" / f"IMD{number}.png")


@pytest.mark.usefixtures("case")
def test_masks_beside_pictures_are_offered_and_loaded_by_a_click(qtbot, panel, controller, said, tmp_path):
    pictures_with_masks(tmp_path)
    offer = panel.label.masks_offer
    controller.cases.open_path(tmp_path / "images", background=False)
    qtbot.waitUntil(lambda: not offer.isHidden())
    assert "in masks" in offer.text.text()
    assert controller.session.labels.labelled == []  # only offered
    qtbot.mouseClick(offer.load_button, Qt.MouseButton.LeftButton)
    wait_idle(qtbot, controller)
    assert controller.session.labels.labelled == [1, 3]
    assert np.count_nonzero(controller.session.labels.manual(3)) == 6
    assert offer.isHidden()


@pytest.mark.usefixtures("case")
def test_an_offer_of_masks_that_is_dismissed_does_not_come_back(qtbot, panel, controller, tmp_path):
    pictures_with_masks(tmp_path)
    offer = panel.label.masks_offer
    controller.cases.open_path(tmp_path / "images", background=False)
    qtbot.waitUntil(lambda: not offer.isHidden())
    qtbot.mouseClick(offer.dismiss_button, Qt.MouseButton.LeftButton)
    assert offer.isHidden()
    controller.touch(Change.LABELS)
    settle()
    assert offer.isHidden()


def test_where_no_masks_lie_nothing_is_offered(qtbot, panel, controller, case, tmp_path):
    assert panel.label.masks_offer.isHidden()
    pictures_with_masks(tmp_path)
    shutil.rmtree(tmp_path / "masks")
    controller.cases.open_path(tmp_path / "images", background=False)
    qtbot.wait(300)
    assert panel.label.masks_offer.isHidden()


@pytest.mark.usefixtures("case")
def test_annotations_of_pictures_are_loaded_from_their_folder(qtbot, panel, controller, said, monkeypatch, tmp_path):
    pictures_with_masks(tmp_path)
    shutil.rmtree(tmp_path / "masks")
    images = [{"id": n, "file_name": f"IMD{n}.png", "height": 8, "width": 9} for n in range(4)]
    annotation = {"image_id": 2, "category_id": 1, "segmentation": [[1, 1, 5, 1, 5, 3, 1, 3]]}
    content = {"images": images, "categories": [{"id": 1, "name": "polyp"}], "annotations": [annotation]}
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "instances_default.json").write_text(json.dumps(content), encoding="utf-8")
    controller.cases.open_path(tmp_path / "images", background=False)
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_, **__: str(tmp_path / "annotations"))
    settle()
    panel.label.load_button.click()
    wait_idle(qtbot, controller)
    assert controller.session.labels.labelled == [2]
    assert np.count_nonzero(controller.session.labels.manual(2) == 1) == 8
    assert [entry.name for entry in controller.session.labels.classes] == ["polyp"]
    assert "3 pictures without any annotation: taken as not labelled" in said[-1]
