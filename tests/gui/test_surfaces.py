"""The case in three dimensions: surfaces instead of voxels, and slices as they were when one comes back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from napari.layers import Labels, Surface
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest

from napari_dinoaugseg.gui.display import camera_of
from tests.gui.conftest import LABELLED, paint, settle

pytestmark = pytest.mark.filterwarnings("ignore:System theme detection")


@pytest.fixture
def shown(panel, qtbot):
    """Press the button of the Review section, and wait until all surfaces are there."""

    def press() -> list[Surface]:
        panel.folds["Review"].set_open(True)
        settle()
        panel.scroll_area.ensureWidgetVisible(panel.review.surfaces)
        QTest.mouseClick(panel.review.surfaces.switch, Qt.MouseButton.LeftButton)
        return wait(qtbot, panel.controller)

    return press


def wait(qtbot, controller) -> list[Surface]:
    qtbot.waitUntil(lambda: not controller.surfaces.working, timeout=20_000)
    settle()
    return surfaces_in(controller)


def surfaces_in(controller) -> list[Surface]:
    return [layer for layer in controller.viewer.layers if isinstance(layer, Surface)]


def view_of(controller) -> tuple:
    viewer = controller.viewer
    camera = camera_of(viewer)
    return (
        viewer.dims.ndisplay,
        viewer.dims.order,
        viewer.dims.point,
        tuple(camera.center),
        camera.zoom,
        tuple(str(part) for part in camera.orientation),
        [(layer.name, layer.visible) for layer in viewer.layers],
        viewer.layers.selection.active,
    )


def spy_on_voxels(controller) -> list[str]:
    """A list of the label layers that napari draws in 3-D."""
    drawn: list[str] = []

    def look(_) -> None:
        if controller.viewer.dims.ndisplay == 3:
            drawn.extend(
                layer.name for layer in controller.viewer.layers if isinstance(layer, Labels) and layer.visible
            )

    controller.viewer.window._qt_viewer.canvas._scene_canvas.events.draw.connect(look, position="first")
    return drawn


@pytest.mark.parametrize("plane", ["axial", "sagittal", "coronal"])
def test_the_surfaces_lie_where_the_labels_are_and_the_slices_come_back(
    controller, blob_files, qtbot, shown, panel, plane
) -> None:
    from tests.blobs import truth_voxels

    controller.cases.open_path(blob_files[0], background=False, plane=plane)
    settle()
    case = controller.session.case
    truth = case.to_slices(truth_voxels())
    with_class = [int(index) for index in np.flatnonzero((truth == 1).any((1, 2)))]
    paint(controller, truth, with_class)
    controller.view.go_to(with_class[1])
    camera_of(controller.viewer).zoom *= 1.7
    settle()
    before, labels, drawn = view_of(controller), controller.layers.manual.data.copy(), spy_on_voxels(controller)

    layers = shown()

    names = [entry.name for entry in controller.session.labels.classes if (labels == entry.number).any()]
    assert [layer.name for layer in layers] == [f"{name} in 3-D" for name in names]
    assert controller.viewer.dims.ndisplay == 3
    assert not drawn, "napari draws voxels"
    manual = controller.layers.manual
    assert not manual.visible
    for surface, layer in zip(controller.surfaces.found, layers, strict=True):
        voxels = np.argwhere(labels == surface.entry.number)
        corners = np.array([manual.data_to_world(voxel) for voxel in (voxels.min(axis=0), voxels.max(axis=0))])
        vertices = np.array([layer.data_to_world(vertex) for vertex in layer.data[0]])
        step = np.abs(np.asarray(manual.scale))
        assert (np.abs(vertices.min(axis=0) - corners.min(axis=0)) <= 1.01 * step).all()
        assert (np.abs(vertices.max(axis=0) - corners.max(axis=0)) <= 1.01 * step).all()
        assert surface.voxels == len(voxels)
    assert "ml" in panel.review.surfaces.volumes.text()

    QTest.mouseClick(panel.review.surfaces.switch, Qt.MouseButton.LeftButton)
    assert not wait(qtbot, controller)
    assert view_of(controller) == before
    assert np.array_equal(controller.layers.manual.data, labels)
    controller.layers.undo()
    assert not np.array_equal(controller.layers.manual.data, labels)


def test_the_head_is_up_and_the_front_towards_the_person(labelled, qtbot, shown) -> None:
    shown()
    camera = camera_of(labelled.viewer)
    # The axes of the display are head, posterior and left.
    assert camera.view_direction == pytest.approx((0, 1, 0), abs=1e-6)
    assert camera.up_direction == pytest.approx((1, 0, 0), abs=1e-6)


def test_the_button_of_napari_shows_surfaces_too(labelled, qtbot) -> None:
    before = view_of(labelled)
    button = labelled.viewer.window._qt_viewer.viewerButtons.ndisplayButton
    QTest.mouseClick(button, Qt.MouseButton.LeftButton)
    assert len(wait(qtbot, labelled)) == 2
    assert not labelled.layers.manual.visible
    QTest.mouseClick(button, Qt.MouseButton.LeftButton)
    settle()
    assert view_of(labelled) == before


def test_an_update_shows_what_was_labelled_meanwhile(labelled, truth, qtbot, shown, panel) -> None:
    shown()
    before = [surface.voxels for surface in labelled.surfaces.found]
    labelled.session.labels.set_manual(5, truth[5])
    QTest.mouseClick(panel.review.surfaces.update_button, Qt.MouseButton.LeftButton)
    assert len(wait(qtbot, labelled)) == 2
    assert sum(surface.voxels for surface in labelled.surfaces.found) > sum(before)


def test_only_what_a_person_labelled_or_accepted_counts_without_predictions(
    labelled, truth, qtbot, shown, panel
) -> None:
    labelled.session.labels.set_prediction(5, truth[5], 0.9)
    shown()
    everything = sum(surface.voxels for surface in labelled.surfaces.found)
    QTest.mouseClick(panel.review.surfaces.predictions, Qt.MouseButton.LeftButton)
    wait(qtbot, labelled)
    assert sum(surface.voxels for surface in labelled.surfaces.found) == np.count_nonzero(truth[list(LABELLED)])
    assert everything == np.count_nonzero(truth[[*LABELLED, 5]])


def test_a_surface_that_the_person_removed_is_no_error(labelled, qtbot, shown) -> None:
    first, second = shown()
    labelled.viewer.layers.remove(first)
    labelled.surfaces.switch(False)
    settle()
    assert second not in labelled.viewer.layers
    assert labelled.layers.manual.visible


def test_another_case_is_shown_in_slices(labelled, blob_files, tmp_path, qtbot, shown, failed) -> None:
    import nibabel as nib

    shown()
    other = tmp_path / "other.nii.gz"
    image = nib.load(blob_files[0])
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj)[::-1].copy(), image.affine), other)
    drawn = spy_on_voxels(labelled)
    labelled.cases.open_path(other, background=False, plane="axial")
    settle()
    assert not surfaces_in(labelled)
    assert labelled.viewer.dims.ndisplay == 2
    assert not labelled.surfaces.is_on
    assert labelled.layers.manual.visible
    assert not drawn
    assert not failed


def test_closing_in_the_middle_of_the_work_leaves_nothing(labelled, qtbot, failed) -> None:
    labelled.surfaces.switch(True)
    labelled.cases.close()
    settle()
    assert not labelled.surfaces.working
    assert not labelled.viewer.layers
    assert not failed


@pytest.mark.parametrize("pieces", [1, 2])
def test_a_mind_changed_on_the_way_to_3d_and_back_leaves_nothing_half_done(labelled, qtbot, pieces) -> None:
    surfaces, before = labelled.surfaces, view_of(labelled)

    def begin(on: bool) -> None:
        surfaces.switch(on, in_turns=True)
        for _ in range(pieces - 1):
            surfaces._turns._step()

    begin(True)
    surfaces.switch(False, in_turns=True)
    assert not wait(qtbot, labelled)
    assert view_of(labelled) == before
    surfaces.switch(True)
    assert len(wait(qtbot, labelled)) == 2
    begin(False)
    surfaces.switch(True, in_turns=True)
    assert len(wait(qtbot, labelled)) == 2
    assert not labelled.layers.manual.visible
    begin(False)
    surfaces._turns._step()
    surfaces._turns._step()  # slices again, whose layers are still hidden
    labelled.viewer.dims.ndisplay = 3
    assert len(wait(qtbot, labelled)) == 2
    begin(False)
    labelled.cases.close()
    settle()
    assert labelled.viewer.dims.ndisplay == 2
    assert not labelled.viewer.layers
    assert not surfaces.working


def test_without_labels_a_sentence_says_so(controller, case, qtbot, shown, said) -> None:
    assert not shown()
    assert "There are no labels to show in 3-D yet." in said


def test_pictures_have_no_third_dimension(controller, tmp_path: Path, panel) -> None:
    from PIL import Image

    for number in range(3):
        Image.new("L", (40, 30), 10 * number).save(tmp_path / f"{number}.png")
    controller.cases.open_path(tmp_path, background=False)
    settle()
    box = panel.review.surfaces
    assert not box.switch.isEnabled()
    assert box.switch.toolTip() == "Pictures have no third dimension."
