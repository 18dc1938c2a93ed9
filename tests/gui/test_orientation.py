"""Head up, the letters at the edges, and strokes that land where the cursor is, whatever the stored order."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import nibabel as nib
import nrrd
import numpy as np
import pytest
import tifffile
from napari.components import Camera, Dims, LayerList
from napari.layers import Image
from PIL import Image as Picture
from qtpy.QtCore import QPoint, Qt

from napari_dinoaugseg.case import open_case
from napari_dinoaugseg.gui.controller import Controller
from napari_dinoaugseg.gui.display import AXIS, Orientation, camera_orientation, directions_of, edge_letters

pytestmark = pytest.mark.filterwarnings("ignore:System theme detection")

SHAPE = (6, 7, 8)  # x to the right, y to the front, z to the head: RAS
MARK = (4, 5, 5)  # one voxel: to the right, to the front, to the head
ORDERS = list(itertools.permutations(range(3)))
ORIENTATIONS = [(axes, flips) for axes in ORDERS for flips in itertools.product((1, -1), repeat=3)]
EXPECTED = {
    "axial": {"left": "R", "right": "L", "top": "A", "bottom": "P"},
    "coronal": {"left": "R", "right": "L", "top": "H", "bottom": "F"},
    "sagittal": {"left": "A", "right": "P", "top": "H", "bottom": "F"},
}


def write_volume(path, axes=(0, 1, 2), flips=(1, 1, 1), affine=None):
    """One bright voxel in the dark, stored in one of 48 orders; returns its stored index."""
    voxels = np.zeros(SHAPE, np.uint8)
    voxels[MARK] = 200
    image = nib.Nifti1Image(voxels, np.diag([1.0, 1.1, 1.3, 1]) if affine is None else affine)
    stored = image.as_reoriented(np.array(list(zip(axes, flips, strict=True)), float))
    nib.save(stored, path)
    return tuple(int(n) for n in np.argwhere(np.asarray(stored.dataobj) == 200)[0])


def write_pictures(folder):
    """A folder of two pictures."""
    made = folder / "pictures"
    made.mkdir()
    for name in ("a.png", "b.png"):
        Picture.fromarray(np.zeros((20, 30), np.uint8)).save(made / name)
    return made


@pytest.fixture
def window(make_napari_viewer, qtbot):
    """The controller of a viewer on the screen, without a panel."""
    controller = Controller.of(make_napari_viewer())
    shown = controller.viewer.window._qt_window
    shown.resize(700, 500)
    shown.show()
    qtbot.waitExposed(shown)
    yield controller
    controller.dispose()


@pytest.fixture
def hidden(request):
    """The controller of a viewer that needs no window, or of the one in it."""
    return request.getfixturevalue("window" if "window" in request.fixturenames else "windowless")


@pytest.fixture
def opened(hidden, tmp_path):
    """Opens the marked volume in a plane."""

    def open_it(plane="coronal", **stored):
        write_volume(tmp_path / "marked.nii", **stored)
        hidden.cases.open_path(tmp_path / "marked.nii", background=False, plane=plane)
        return hidden

    return open_it


def letters(viewer) -> dict[str, str]:
    """Those that are to be seen on the canvas."""
    overlays = viewer.canvas.overlays
    seen = {edge: overlays.get(f"dinoaugseg_{edge}") for edge in ("left", "right", "top", "bottom")}
    return {edge: overlay.text for edge, overlay in seen.items() if overlay is not None and overlay.visible}


def seen_mark(viewer) -> tuple[int, int]:
    """Where the bright voxel is seen on the canvas: x and y from its middle, in pixels."""
    canvas = viewer.screenshot(canvas_only=True, flash=False)
    red = (canvas[..., 0] > 150) & (canvas[..., 1] < 90) & (canvas[..., 2] < 90)
    rows, columns = np.nonzero(red)
    assert len(rows) > 50
    return round(columns.mean() - canvas.shape[1] / 2), round(rows.mean() - canvas.shape[0] / 2)


def click(qtbot, viewer, x: int, y: int) -> None:
    """With the left button, so far from the middle of the canvas."""
    native = viewer.window._qt_viewer.canvas.native
    where = QPoint(native.width() // 2 + x, native.height() // 2 + y)
    qtbot.mouseMove(native, where)
    qtbot.mousePress(native, Qt.MouseButton.LeftButton, pos=where)
    qtbot.mouseRelease(native, Qt.MouseButton.LeftButton, pos=where)


@pytest.mark.slow
@pytest.mark.parametrize("plane", list(EXPECTED))
def test_strokes_land_where_the_cursor_is_and_the_head_is_up(window, tmp_path, qtbot, plane):
    viewer, path = window.viewer, tmp_path / "marked.nii"
    for axes, flips in ORIENTATIONS[5 * list(EXPECTED).index(plane) :: 17]:
        mark = write_volume(path, axes, flips)
        window.cases.open_path(path, background=False, plane=plane)
        case, layers = window.session.case, window.layers
        layers.image.colormap, layers.image.interpolation2d = "red", "nearest"
        layers.manual.brush_size = 1
        window.view.go_to(int(np.argwhere([case.slice(i).any() for i in range(case.n_slices)])[0][0]))
        x, y = seen_mark(viewer)
        assert x < -20, "the mark lies on the patient's right and in front, so on the left of the screen"
        assert y < -20, "the mark lies towards the head and in front, so on top"
        assert letters(viewer) == EXPECTED[plane]
        click(qtbot, viewer, x, y)
        window.flush()
        assert window.session.labels.labelled == [window.current_slice]
        labels = np.stack([window.session.labels.result(i) for i in range(case.n_slices)])
        assert np.argwhere(case.restore(labels)).tolist() == [list(mark)]


@pytest.mark.parametrize("plane", list(EXPECTED))
def test_all_48_stored_orders_are_displayed_alike_and_a_stroke_finds_its_way_back(tmp_path, plane):
    for axes, flips in ORIENTATIONS:
        mark = write_volume(tmp_path / "marked.nii", axes, flips)
        case = open_case(tmp_path / "marked.nii", plane=plane)
        assert np.argwhere(case.display).tolist() == [[MARK[2], SHAPE[1] - 1 - MARK[1], SHAPE[0] - 1 - MARK[0]]]
        assert directions_of(case) == ("H", "P", "L")
        stroke = np.moveaxis(np.asarray(case.display), AXIS[case.plane], 0) > 0
        assert np.argwhere(case.restore(stroke)).tolist() == [list(mark)]


@pytest.mark.slow
@pytest.mark.parametrize("plane", ["coronal", "native"])
def test_letters_and_strokes_follow_rolled_and_transposed_axes(window, opened, qtbot, plane):
    controller = opened(plane, axes=(2, 0, 1), flips=(1, -1, 1))
    viewer, layers = controller.viewer, controller.layers
    layers.image.colormap, layers.image.interpolation2d = "red", "nearest"
    layers.manual.brush_size = 1
    buttons = viewer.window._qt_viewer.viewerButtons
    mark = np.argwhere(np.asarray(layers.image.data) > 0)[0]
    orders = set()
    for button in [buttons.transposeDimsButton, buttons.rollDimsButton, buttons.rollDimsButton] * 2:
        button.click()
        orders.add(viewer.dims.order)
        for axis in range(3):
            viewer.dims.set_point(axis, mark[axis] * layers.image.scale[axis])
        x, y = seen_mark(viewer)
        seen = letters(viewer)
        assert (x < 0) == (seen["left"] in "RAH")  # where the mark lies in the patient
        assert (y < 0) == (seen["top"] in "RAH")
        assert {seen["left"] + seen["right"], seen["top"] + seen["bottom"]} < {"RL", "LR", "AP", "PA", "HF", "FH"}
        click(qtbot, viewer, x, y)
        assert np.argwhere(layers.manual.data).tolist() == [mark.tolist()]
        layers.undo()
    assert len(orders) == 6


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("as_stored", [False, True])
def test_a_volume_in_depth_is_no_mirror_image(tmp_path, order, as_stored):
    """Left, back and head make a right hand, in the patient and on the screen."""
    write_volume(tmp_path / "marked.nii", *ORIENTATIONS[17])
    case = open_case(tmp_path / "marked.nii", plane="native" if as_stored else "axial")
    directions = directions_of(case)
    depth, vertical, horizontal = camera_orientation(directions, order, as_stored=as_stored)
    screen = {"right": (1, 0, 0), "left": (-1, 0, 0), "up": (0, 1, 0), "down": (0, -1, 0)}
    screen |= {"towards": (0, 0, 1), "away": (0, 0, -1)}
    shown = dict(zip((directions[n] for n in order), (depth, vertical, horizontal), strict=True))
    opposite = {"R": "L", "A": "P", "F": "H"}
    turned = {
        opposite.get(to, to): np.array(screen[where]) * (-1 if to in opposite else 1) for to, where in shown.items()
    }
    assert np.linalg.det([turned["L"], turned["P"], turned["H"]]) == pytest.approx(1)


@pytest.mark.parametrize(("axes", "flips"), ORIENTATIONS)
def test_letters_of_the_stored_order_say_where_it_runs_to(tmp_path, axes, flips):
    write_volume(tmp_path / "marked.nii", axes, flips)
    case = open_case(tmp_path / "marked.nii", plane="native")
    orientation = camera_orientation(directions_of(case), (0, 1, 2), as_stored=True)
    assert orientation[1:] == ("down", "right")  # as stored
    found = edge_letters(directions_of(case), (0, 1, 2), orientation)
    codes = nib.aff2axcodes(case.grid.affine)
    assert (found["right"], found["bottom"]) == tuple({"S": "H", "I": "F"}.get(code, code) for code in codes[:2])


def test_an_oblique_volume_has_the_letters_of_the_closest_directions(opened):
    angle = np.radians(30)
    affine = np.eye(4)
    affine[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    assert letters(opened("coronal", affine=affine).viewer) == EXPECTED["coronal"]


def test_no_letters_in_3d_and_back_in_2d_they_are_there_again(opened):
    viewer = opened().viewer
    viewer.dims.ndisplay = 3
    assert letters(viewer) == {}
    viewer.dims.ndisplay = 2
    assert letters(viewer) == EXPECTED["coronal"]


def test_no_letters_while_another_image_covers_the_case(opened):
    controller = opened()
    other = controller.viewer.add_image(np.ones((4, 4, 4)))
    assert letters(controller.viewer) == {}
    other.visible = False
    assert letters(controller.viewer) == EXPECTED["coronal"]
    controller.layers.show_confidence(True)  # is the case's own
    assert letters(controller.viewer) == EXPECTED["coronal"]
    controller.layers.image.visible = False
    assert letters(controller.viewer) == {}


def test_no_letters_on_a_layer_that_somebody_mirrored(opened):
    controller = opened("axial")
    image = controller.layers.image
    image.scale = image.scale * [1, 1, -1]
    assert letters(controller.viewer) == {}


def test_axes_of_other_layers_do_not_mislead_the_letters(opened):
    controller = opened()
    controller.viewer.add_points(np.zeros((1, 4)))  # a fourth axis, in front of ours
    assert letters(controller.viewer) == EXPECTED["coronal"]
    controller.viewer.dims.order = (1, 3, 0, 2)
    assert letters(controller.viewer) == {}


@pytest.mark.parametrize("kind", ["pictures", "array", "stack"])
def test_what_has_no_geometry_is_shown_as_napari_does_without_letters(hidden, tmp_path, kind):
    viewer = hidden.viewer
    before = viewer.scene.camera.orientation
    if kind == "pictures":
        hidden.cases.open_path(write_pictures(tmp_path), background=False)
    elif kind == "array":
        hidden.cases.use_layer(viewer.add_image(np.zeros((4, 5, 6)), scale=(2, 1, 1)))
    else:
        tifffile.imwrite(tmp_path / "stack.tif", np.zeros((4, 20, 30), np.uint8), photometric="minisblack")
        hidden.cases.open_path(tmp_path / "stack.tif", background=False)
    assert hidden.session is not None
    assert letters(viewer) == {}
    assert viewer.scene.camera.orientation == before


def test_a_file_that_does_not_name_its_directions_gets_no_letters(hidden, tmp_path):
    nrrd.write(str(tmp_path / "sizes_only.nrrd"), np.zeros(SHAPE, np.uint8), {"spacings": [1.0, 1.0, 2.0]})
    image = nib.Nifti1Image(np.zeros(SHAPE, np.uint8), None)
    image.set_sform(None, code=0)
    image.set_qform(None, code=0)
    nib.save(image, tmp_path / "silent.nii")
    for name in ("silent", "sizes_only"):
        hidden.cases.open_path(next(tmp_path.glob(f"{name}.*")), background=False, plane="coronal")
        assert hidden.session.case.name == name
        assert letters(hidden.viewer) == {}


def test_the_frames_of_a_loop_have_letters_and_time_has_none(hidden, tmp_path):
    frames = np.random.default_rng(0).integers(0, 200, (20, 24, 1, 8)).astype(np.uint8)
    affine = np.array([[1.0, 0, 0, 0], [0, 0, 3, 0], [0, 1, 0, 0], [0, 0, 0, 1]])  # coronal
    nib.save(nib.Nifti1Image(frames, affine), tmp_path / "loop.nii")
    hidden.cases.open_path(tmp_path / "loop.nii", background=False)
    assert hidden.session.case.n_slices == 8
    assert letters(hidden.viewer) == EXPECTED["coronal"]
    hidden.viewer.dims.roll()
    assert letters(hidden.viewer) == {}


def test_the_camera_stands_as_before_when_the_case_has_left(opened, tmp_path):
    controller = opened("coronal")
    viewer, camera = controller.viewer, controller.viewer.scene.camera
    assert [str(one) for one in camera.orientation] == ["away", "up", "right"]
    controller.cases.open_path(write_pictures(tmp_path), background=False)
    assert [str(one) for one in camera.orientation] == ["towards", "down", "right"]
    assert not [name for name in viewer.canvas.overlays if name.startswith("dinoaugseg")]
    opened("sagittal")
    controller.cases.close()
    assert [str(one) for one in camera.orientation] == ["towards", "down", "right"]
    assert not [name for name in viewer.canvas.overlays if name.startswith("dinoaugseg")]


def test_a_camera_that_the_person_turns_keeps_the_letters_true_and_stays_theirs(opened):
    controller = opened("coronal")
    camera = controller.viewer.scene.camera
    camera.orientation = ("towards", "down", "left")
    assert letters(controller.viewer) == {"left": "L", "right": "R", "top": "F", "bottom": "H"}
    controller.layers.image.visible = False
    controller.layers.image.visible = True
    assert [str(one) for one in camera.orientation] == ["towards", "down", "left"]
    controller.cases.close()
    assert [str(one) for one in camera.orientation] == ["towards", "down", "left"]


def test_the_head_is_up_in_a_napari_without_a_place_for_letters(tmp_path):
    """Before 0.9: the camera belongs to the viewer, which has no canvas."""
    write_volume(tmp_path / "marked.nii")
    case = open_case(tmp_path / "marked.nii", plane="coronal")
    image = Image(case.display, scale=case.display_scale)
    viewer = SimpleNamespace(dims=Dims(ndim=3, order=(1, 0, 2)), camera=Camera(), layers=LayerList([image]))
    orientation = Orientation(SimpleNamespace(viewer=viewer, case=case, image=image, own=[image]))
    orientation.begin()
    assert str(viewer.camera.orientation[1]) == "up"
    viewer.dims.order = (0, 1, 2)
    assert str(viewer.camera.orientation[1]) == "down"
    orientation.end()
    assert [str(one) for one in viewer.camera.orientation] == ["towards", "down", "right"]
