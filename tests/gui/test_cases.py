"""What can be annotated, and what is said where something lacks."""

import threading

import numpy as np
import pytest
from PIL import Image
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFileDialog, QInputDialog

from napari_dinoaugseg.case import Plane, open_case
from napari_dinoaugseg.errors import CaseError, SeveralSeriesError, SeveralVolumesError
from napari_dinoaugseg.gui.controller import Controller
from napari_dinoaugseg.gui.core import Change
from napari_dinoaugseg.gui.display import camera_of
from napari_dinoaugseg.gui.panel import advice
from napari_dinoaugseg.gui.saving import look_for_sessions
from napari_dinoaugseg.gui.train_section import Pace, duration_in_words, job
from napari_dinoaugseg.learning.events import Progress
from napari_dinoaugseg.learning.settings import Settings
from napari_dinoaugseg.session.labels import BACKGROUND
from tests.blobs import AFFINE, image_voxels
from tests.case.videos import write_video
from tests.gui.conftest import settle, train, wait_idle
from tests.gui.test_orientation import EXPECTED, letters

pytestmark = pytest.mark.shared_window


@pytest.fixture
def controller(windowless_or_not):
    """With a window where it is looked at."""
    return windowless_or_not


def test_opening_the_panel_loads_no_pytorch(blob_files):
    import subprocess
    import sys

    code = (
        "import sys, napari_dinoaugseg.gui.panel, napari_dinoaugseg.hooks, napari_dinoaugseg.gui.controller;"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.fixture
def held_back(monkeypatch):
    """An event that opening a file waits for."""
    read = threading.Event()

    def later(*arguments, **options):
        assert read.wait(120)
        return open_case(*arguments, **options)

    monkeypatch.setattr("napari_dinoaugseg.gui.cases.open_case", later)
    yield read
    read.set()


def test_the_first_case_shows_in_layers_that_were_made_while_it_was_read(
    controller, panel, blob_files, qtbot, held_back
):
    viewer = controller.viewer
    controller.cases.open_path(blob_files[0], plane="axial")
    assert controller.jobs.busy
    qtbot.waitUntil(lambda: len(viewer.layers) == 3, timeout=60_000)
    made = list(viewer.layers)
    settle()
    assert controller.cases.offer is None
    assert not panel.start.layer_button.isVisible()
    assert not panel.head.name.text()  # "No case is open" would be untrue once its first slice is in view
    held_back.set()
    wait_idle(qtbot, controller)
    layers = controller.layers
    assert list(viewer.layers) == made
    assert [layer.name for layer in made] == ["image0", "prediction", "manual"]
    assert all(np.allclose(layer.scale, (4, 1.1, 1.2)) for layer in made)
    assert all(str(unit) == "millimeter" for unit in layers.manual.units)
    assert np.shares_memory(layers.image.data, controller.session.case.display)
    assert viewer.layers.selection.active is layers.manual
    assert not layers.prediction.editable
    layers.manual.paint((8, 13, 15), 1)
    assert (controller.session.labels.manual(8) == 1).any()


def test_a_file_that_cannot_be_read_leaves_no_sliders(controller, panel, blob_files, qtbot, monkeypatch, failed):
    viewer, waited = controller.viewer, threading.Event()

    def refuse(*_, **__):
        assert waited.wait(120)
        msg = "It is damaged."
        raise CaseError(msg)

    monkeypatch.setattr("napari_dinoaugseg.gui.cases.open_case", refuse)
    viewer.dims.events.ndim.connect(waited.set)  # as soon as the sliders are there
    controller.cases.open_path(blob_files[0], plane="axial")
    wait_idle(qtbot, controller)
    assert waited.is_set()
    qtbot.waitUntil(lambda: viewer.dims.ndim == 2, timeout=60_000)
    assert not viewer.layers
    assert len(failed) == 1


def test_a_slice_is_in_view_while_saved_sessions_are_looked_for_and_stays(
    controller, panel, blob_files, qtbot, monkeypatch
):
    viewer, looked = controller.viewer, threading.Event()

    def later(case):
        assert looked.wait(120)
        return look_for_sessions(case)

    monkeypatch.setattr("napari_dinoaugseg.gui.cases.look_for_sessions", later)
    controller.cases.open_path(blob_files[0], plane="axial")
    qtbot.waitUntil(lambda: len(viewer.layers) == 3 and viewer.layers[0].data.shape[0] == 16, timeout=60_000)
    image = viewer.layers[0]
    assert controller.session is None
    assert (viewer.dims.point[0], viewer.dims.current_step[0]) == (8 * 4, 8)  # mm and number of the middle one
    qtbot.waitUntil(lambda: letters(viewer) == EXPECTED["axial"], timeout=60_000)
    camera = camera_of(viewer).model_dump(exclude={"mouse_pan"})
    shown = np.array(image._slice.image.raw)
    viewer.dims.set_point(0, 5 * 4)  # the person goes on at once
    looked.set()
    wait_idle(qtbot, controller)
    assert controller.layers.image is image
    assert controller.current_slice == 5
    controller.view.go_to(8)
    assert camera_of(viewer).model_dump(exclude={"mouse_pan"}) == camera, (
        "neither turned nor zoomed when the case takes over"
    )
    assert np.array_equal(np.asarray(image._slice.image.raw), shown)


def test_pictures_show_in_layers_of_their_own(controller, tmp_path, qtbot, held_back):
    pixels = np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8)
    for number in range(2):
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    controller.cases.open_path(tmp_path)
    qtbot.waitUntil(lambda: len(controller.viewer.layers) == 3, timeout=60_000)
    held_back.set()
    wait_idle(qtbot, controller)
    assert [layer.name for layer in controller.viewer.layers] == [controller.session.case.name, "prediction", "manual"]
    assert controller.layers.image.rgb
    assert controller.layers.manual.data.shape == (2, 20, 30)


def test_no_image_and_a_layer_that_is_no_image_are_said(controller, said, panel):
    panel.case.layer_button.click()
    assert any("The viewer has no image yet" in text for text in said)
    controller.cases.use_layer(controller.viewer.add_points([[1, 2]], name="marks"))
    assert any("'marks' is not an image" in text for text in said)


@pytest.mark.parametrize(
    ("data", "options", "sentence"),
    [
        (np.zeros((2, 3, 20, 20)), {}, "has 4 axes"),
        ([np.zeros((40, 40)), np.zeros((20, 20))], {"multiscale": True}, "several resolutions"),
    ],
)
def test_layers_that_lack_something_say_what(controller, said, data, options, sentence):
    controller.cases.use_layer(controller.viewer.add_image(data, name="other", **options))
    assert controller.session is None
    assert any(text.startswith("other: ") and sentence in text for text in said)


def test_a_plain_array_works_with_its_scale(controller, panel, qtbot):
    image = controller.viewer.add_image(np.moveaxis(image_voxels(), 2, 0), scale=(4, 1.2, 1.1), translate=(8, 0, 0))
    panel.case.layer_button.click()
    layer = controller.layers.manual
    assert np.allclose(layer.scale, image.scale)
    assert np.allclose(layer.translate, image.translate)
    assert controller.session.case.slice_distance == 4
    controller.view.go_to(8)
    assert controller.current_slice == 8
    layer.paint((8, 13, 15), 1)
    controller.setup.change(steps=5)
    train(qtbot, controller)
    assert len(controller.session.labels.confidence) == 15


@pytest.mark.usefixtures("case")
@pytest.mark.parametrize("rgb", [False, True])
def test_a_two_dimensional_image(controller, qtbot, rgb):
    random = np.random.default_rng(0)
    data = random.integers(0, 255, (40, 50, 3) if rgb else (40, 50)).astype(np.uint8)
    controller.cases.use_layer(controller.viewer.add_image(data, rgb=rgb))
    assert controller.session.case.n_slices == 1
    controller.layers.manual.paint((0, 10, 10), 1)
    controller.setup.change(steps=5)
    train(qtbot, controller)
    assert controller.session.labels.labelled == [0]
    assert (controller.session.labels.manual(0)[10, 10]) == 1
    assert "Export" in advice(controller)


@pytest.mark.usefixtures("case")
def test_a_volume_of_one_slice(controller, tmp_path, qtbot):
    import nibabel as nib

    nib.save(nib.Nifti1Image(image_voxels()[:, :, 8:9], AFFINE), tmp_path / "one.nii.gz")
    controller.cases.open_path(tmp_path / "one.nii.gz", background=False)
    controller.view.next_suggested()
    controller.labels.set_scribbles(True)
    controller.layers.manual.paint((0, 5, 5), 1)
    controller.layers.manual.paint((0, 20, 20), BACKGROUND)
    controller.setup.change(steps=5)
    train(qtbot, controller)
    assert 0 in controller.session.labels.confidence
    assert controller.layers.prediction.data.any() or controller.session.labels.predicted(0) is not None


@pytest.mark.usefixtures("case")
def test_pictures_of_several_sizes_are_padded_and_cut_back(controller, tmp_path, qtbot):
    random = np.random.default_rng(0)
    for number, shape in enumerate([(40, 60, 3), (50, 30, 3), (40, 60, 3)]):
        Image.fromarray(random.integers(0, 255, shape).astype(np.uint8)).save(tmp_path / f"p{number}.png")
    controller.cases.open_path(tmp_path, background=False)
    layer = controller.layers.manual
    assert layer.data.shape == (3, 50, 60)
    layer.data[1] = 1  # beyond the picture as well
    layer.refresh()
    controller.flush()
    manual = controller.session.labels.manual(1)
    assert manual.shape == (50, 30)
    assert (manual == 1).all()
    controller.setup.change(steps=5)
    train(qtbot, controller)
    assert controller.session.labels.predicted(0).shape == (40, 60)


def test_a_damaged_file_is_said(controller, tmp_path, qtbot, said, panel, held_back):
    bad = tmp_path / "bad.nii.gz"
    bad.write_bytes(b"no image")
    controller.cases.open_path(bad)
    qtbot.waitUntil(lambda: len(controller.viewer.layers) == 3, timeout=60_000)
    held_back.set()
    wait_idle(qtbot, controller)
    qtbot.waitUntil(lambda: not controller.viewer.layers, timeout=60_000)
    assert any("bad.nii.gz" in text for text in said)
    assert panel.case.file_button.isEnabled()


def test_several_series_are_a_list_to_choose_from(controller, panel, tmp_path, qtbot, monkeypatch):
    from tests.case.builders import numbers, write_dicom

    for number, (name, count) in enumerate([("scout", 3), ("T1 axial", 5)]):
        volume = numbers((count, 8, 9), np.int16)
        write_dicom(tmp_path / str(number), volume, series_uid=f"1.2.3.{number}", description=name)
    asked = []

    def choose(_parent, series):
        asked.append([(entry.description, entry.slices) for entry in series])
        return next(entry.uid for entry in series if entry.description == "T1 axial")

    monkeypatch.setattr("napari_dinoaugseg.gui.case_section.ask_for_series", choose)
    controller.cases.open_path(tmp_path)
    qtbot.waitUntil(lambda: controller.session is not None, timeout=10_000)
    assert sorted(asked[0]) == [("T1 axial", 5), ("scout", 3)]
    assert controller.session.case.n_slices == 5


def test_several_volumes_ask_for_one(controller, panel, tmp_path, qtbot, monkeypatch):
    import nibabel as nib

    voxels = np.stack([image_voxels(), image_voxels(1)], axis=3)
    nib.save(nib.Nifti1Image(voxels, AFFINE), tmp_path / "two.nii.gz")
    errors = []
    controller.cases.choice_needed.connect(lambda _, error: errors.append(error))
    monkeypatch.setattr("napari_dinoaugseg.gui.case_section.ask_for_volume", lambda *_: 1)
    controller.cases.open_path(tmp_path / "two.nii.gz")
    qtbot.waitUntil(lambda: controller.session is not None, timeout=10_000)
    assert isinstance(errors[0], SeveralVolumesError)
    assert not isinstance(errors[0], SeveralSeriesError)


def test_a_long_video_asks_for_frames_and_its_labels_come_back(controller, panel, tmp_path, qtbot, monkeypatch):
    pytest.importorskip("av", reason="PyAV is not installed: pip install av")
    path = write_video(tmp_path / "colon.mp4", 30)
    monkeypatch.setattr("napari_dinoaugseg.case.video.MANY_FRAMES", 20)
    asked = []
    monkeypatch.setattr(QInputDialog, "getInt", lambda *args: asked.append(args[2]) or (10, True))
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_, **__: (str(path), ""))
    qtbot.mouseClick(panel.case.file_button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: controller.session is not None, timeout=20_000)
    wait_idle(qtbot, controller)
    assert "This video has 30 frames." in asked[0]
    case = controller.session.case
    assert [case.slice_name(i) for i in range(case.n_slices)] == ["frame_000000", "frame_000010", "frame_000020"]
    assert np.array_equal(np.asarray(controller.layers.image.data[2]), case.slice(2))
    controller.session.paint(1, np.ones(case.slice_shape(1), np.uint16))
    controller.touch(Change.LABELS)
    controller.cases.close()
    qtbot.mouseClick(panel.case.file_button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: controller.session is not None, timeout=20_000)
    wait_idle(qtbot, controller)
    assert [saved.n_manual for saved in controller.sessions.offers] == [1]


def test_a_series_that_was_chosen_stays_chosen_when_it_holds_several_phases(
    controller, panel, tmp_path, qtbot, monkeypatch
):
    from tests.case.builders import numbers, write_dicom
    from tests.case.test_dicom_phases import PHASES, write_phases

    write_phases(tmp_path / "cine", lambda phase, k: {"TemporalPositionIdentifier": phase + 1})
    write_dicom(tmp_path / "scout", numbers((3, 8, 9), np.int16), series_uid="1.2.3.4", description="scout")
    asked = []

    def choose_series(_parent, series):
        asked.append("series")
        return max(series, key=lambda entry: entry.slices).uid

    def choose_volume(_parent, count):
        asked.append(count)
        return 2

    monkeypatch.setattr("napari_dinoaugseg.gui.case_section.ask_for_series", choose_series)
    monkeypatch.setattr("napari_dinoaugseg.gui.case_section.ask_for_volume", choose_volume)
    controller.cases.open_path(tmp_path)
    qtbot.waitUntil(lambda: controller.session is not None or len(asked) > 2, timeout=10_000)
    assert asked == ["series", len(PHASES)]
    assert controller.session.case.n_slices == len(PHASES[2])


def test_the_plane_changes_until_something_is_labelled(controller, case, said):
    controller.cases.change_plane(Plane.CORONAL)
    assert controller.session.case.plane is Plane.CORONAL
    assert controller.layers.axis == 1
    assert tuple(controller.viewer.dims.order) == (1, 0, 2)
    controller.labels.mark_empty(3)
    controller.cases.change_plane(Plane.AXIAL)
    assert controller.session.case.plane is Plane.CORONAL
    assert any("plane cannot change" in text for text in said)


def test_two_panels_of_a_viewer_are_one_and_closing_one_leaves_the_other(panel, controller, case, qtbot):
    from napari_dinoaugseg.gui.panel import Panel

    second = Panel(controller.viewer)
    dock = controller.viewer.window.add_dock_widget(second, name="again")
    assert second.controller is controller
    controller.viewer.window.remove_dock_widget(dock)
    second.deleteLater()
    qtbot.wait(100)
    assert not controller.closed
    controller.labels.mark_empty(3)
    qtbot.wait(200)
    assert panel.advice.text().startswith("Only background")


def test_a_case_of_one_picture_is_not_said_to_have_others(panel, controller, case, tmp_path):
    Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)).save(tmp_path / "one.png")
    controller.cases.open_path(tmp_path / "one.png", background=False)
    settle()
    assert panel.advice.text() == "2. Paint 'class 1' with the brush: this case has only one picture."
    controller.layers.manual.paint((0, 8, 8), 1)
    controller.flush()
    settle()
    assert "That is the whole case" in panel.advice.text()


@pytest.mark.shared_window(False)
def test_a_closed_panel_loses_nothing(panel, controller, case, qtbot):
    from napari_dinoaugseg.gui.panel import Panel

    controller.layers.manual.paint((8, 10, 10), 1)
    viewer = controller.viewer
    viewer.window.remove_dock_widget(panel)
    panel.deleteLater()
    qtbot.wait(100)
    assert controller.users == 0
    assert not controller.closed
    again = Panel(viewer)
    viewer.window.add_dock_widget(again, name="again")
    assert again.controller is controller
    again.controller.flush()
    assert again.controller.session.labels.labelled == [8]
    qtbot.wait(100)
    assert "1 slice labelled" in again.advice.text()


def test_two_viewers_have_a_case_each(controller, case, make_napari_viewer, blob_files):
    other = Controller.of(make_napari_viewer())
    assert other is not controller
    other.cases.open_path(blob_files[0], background=False, plane="coronal")
    other.labels.mark_empty(3)
    assert controller.session.labels.labelled == []
    assert other.session.labels.labelled == [3]
    other.dispose()


def test_the_window_is_shown_and_a_bad_one_is_refused(controller, case, said):
    controller.setup.change(window="-10,500")
    assert controller.layers.image.contrast_limits == [-10, 500]
    controller.setup.change(input_size=65)
    assert any("multiple of 32" in text for text in said)
    assert controller.setup.settings.input_size == 64


def test_the_list_of_encoders_is_the_engines():
    from napari_dinoaugseg.gui.case_section import NAMES
    from napari_dinoaugseg.model.encoder import ENCODERS

    assert set(NAMES) == {"auto", *ENCODERS}


def test_the_state_of_the_weights_is_shown(controller, panel, case, qtbot):
    qtbot.waitUntil(lambda: "on this machine" in panel.case.encoder.state.text(), timeout=20_000)
    controller.setup.change(encoder="dinov3-convnext-large")
    settle()
    assert "downloads are switched off" in panel.case.encoder.state.text()
    assert "785 MB" in panel.case.encoder.state.text()


def test_the_estimate_follows_what_was_measured():
    settings = Settings(steps=100, views=3, class_steps=0.1, warm_steps=0.5)
    pace = Pace({"encode": 0.1, "train": 0.2, "predict": 0.05})
    once = job(settings, None, 5, 40, kind="pictures", classes=1, warm=False)
    assert pace.seconds(once) == pytest.approx(2 + 20 + 2)
    warm = job(settings, None, 0, 40, kind="pictures", classes=2, warm=True)
    assert pace.seconds(warm) == pytest.approx(11 + 2)
    assert [duration_in_words(seconds) for seconds in (3, 42, 200, 9000)] == [
        "a few seconds",
        "about 40 seconds",
        "about 3 minutes",
        "about 2.5 hours",
    ]


@pytest.mark.parametrize(("losses", "shown"), [((0.9, 0.4), "0.5"), ((0.07, 0.03), "0.04"), ((3.1,), "2")])
def test_the_axis_of_the_loss_names_a_value_that_can_be_read(panel, losses, shown):
    curve = panel.train.curve
    curve.start(10)
    for step, loss in enumerate(losses, 1):
        curve.add(step, loss)
    curve._draw()
    ticks = {text: place for place, text in curve.getAxis("left")._tickLevels[0]}
    assert ticks[shown] == float(shown)


def test_steps_in_which_the_encoder_learns_count_for_more():
    work = job(Settings.of_preset("adapt"), None, 5, 140, kind="volume", classes=1, warm=False)
    assert (work.units["train"], work.units["adapt"], work.units["encode"]) == (100, 200, 80)
    pace = Pace({"encode": 0.1, "train": 3 * work.seconds["train"]})
    left = pace.left(work, Progress("train", 100, 100, 20.0))
    assert left == pytest.approx(3 * (200 * work.seconds["adapt"] + 140 * work.seconds["predict"]))
    frozen = job(Settings(), None, 5, 140, kind="volume", classes=1, warm=False)
    assert (frozen.units["train"], frozen.units["adapt"]) == (300, 0)
    assert work.seconds["adapt"] > 2 * work.seconds["train"]


def test_the_first_steps_on_a_slow_machine_correct_the_time_of_all_that_follows():
    slow = 7.3  # times the table
    work = job(Settings(), None, 5, 140, kind="volume", classes=1, warm=False)
    pace, each = Pace(), work.seconds["train"] * slow
    for done in (1, 10):
        event = Progress("train", done, int(work.units["train"]), 3.0 + done * each)  # the first one takes long
        pace.note(event)
    left = (work.units["train"] - 10) * each + work.units["predict"] * work.seconds["predict"] * slow
    assert pace.left(work, event) == pytest.approx(left, rel=0.01)


def test_encoding_promises_nothing_about_training():
    work, pace = job(Settings(), None, 5, 140, kind="volume", classes=1, warm=False), Pace()
    for done in (1, 60):
        event = Progress("encode", done, 80, done * 0.2)
        pace.note(event)
    assert pace.left(work, event) is None
    pace.measured["train"] = 0.1  # in the training before
    assert pace.left(work, event) is not None


def test_nothing_is_promised_before_anything_was_measured():
    work = job(Settings(), None, 5, 140, kind="volume", classes=1, warm=False)
    assert Pace().left(work, Progress("encode", 1, 80, 0.05)) is None


def test_before_anything_is_measured_pictures_from_several_sides_take_longer():
    def seconds(kind: str, **changes: bool) -> float:
        settings = Settings(steps=1, views=0, **changes)
        return Pace().seconds(job(settings, None, 0, 100, kind=kind, classes=1, warm=False))

    assert seconds("pictures") > 2 * seconds("volume")
    assert seconds("pictures", mirrors=False) == seconds("volume")
