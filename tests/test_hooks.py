"""What napari is offered: files opened and saved in the viewer, the sample, the menus, the preferences."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import nibabel as nib
import nrrd
import numpy as np
import pytest
from npe2 import PluginManager, PluginManifest

from napari_dinoaugseg.case import open_case
from napari_dinoaugseg.errors import CaseError, LabelError, OutputError
from napari_dinoaugseg.gui.display import case_metadata, case_of, spacing_in
from napari_dinoaugseg.gui.setup import Preferences, apply_offline, preferences
from napari_dinoaugseg.hooks import get_dicom_reader, get_volume_reader, write_labels
from tests.case.builders import OBLIQUE, numbers, write_dicom, write_nifti

PLUGIN = "napari-dinoaugseg"
MANIFEST = Path(__file__).resolve().parent.parent / "src" / "napari_dinoaugseg" / "napari.yaml"


@pytest.fixture
def plugin():
    """Our plugin in npe2's own manager, whatever an earlier test left there."""
    manager = PluginManager.instance()
    if PLUGIN not in manager:
        manager.register(PluginManifest.from_file(MANIFEST))
    return manager


@pytest.fixture
def viewer(plugin, _live_is_off):
    """A viewer without a window: what is read and written does not ask for one."""
    from napari.components import ViewerModel

    return ViewerModel()


@pytest.fixture
def shown(plugin, make_napari_viewer):
    """The current viewer of napari, with a window."""
    return make_napari_viewer()


@pytest.fixture
def oblique(tmp_path) -> Path:
    """A sagittal, oblique int16 volume with a qform and an sform code, and voxels of three sizes."""
    affine = np.eye(4)
    affine[:3, :3] = OBLIQUE @ np.array([[0, 0, -3.0], [0.8, 0, 0], [0, 1.1, 0]])
    affine[:3, 3] = (-12, 30, 7)
    return write_nifti(tmp_path / "t2.nii.gz", numbers((6, 7, 5)), affine)


def assert_same_geometry(path: Path, like: Path) -> None:
    written, image = nib.load(path), nib.load(like)
    np.testing.assert_array_equal(written.affine, image.affine)
    np.testing.assert_array_equal(written.header.get_sform(), image.header.get_sform())
    np.testing.assert_array_equal(written.header.get_qform(), image.header.get_qform())
    for code in ("qform_code", "sform_code", "xyzt_units"):
        assert written.header[code] == image.header[code]
    assert written.shape == image.shape


# --- reading --------------------------------------------------------------------------------------------------------


def test_a_nifti_file_opens_in_millimetres(viewer, oblique):
    (layer,) = viewer.open(str(oblique), plugin=PLUGIN)
    case = open_case(oblique)
    assert layer.name == "t2"
    np.testing.assert_array_equal(layer.data, case.display)
    np.testing.assert_allclose(layer.scale, case.display_scale)
    assert [str(unit) for unit in layer.units] == ["millimeter"] * 3
    assert case_of(layer).fingerprint == case.fingerprint
    assert tuple(layer.contrast_limits) == pytest.approx(case.intensity_range())


def test_a_nrrd_file_opens(viewer, tmp_path):
    header = {
        "space": "left-posterior-superior",
        "space directions": np.diag([0.5, 0.6, 2.0]),
        "space origin": np.zeros(3),
    }
    nrrd.write(str(tmp_path / "ct.nrrd"), numbers((5, 6, 4)), header)
    (layer,) = viewer.open(str(tmp_path / "ct.nrrd"), plugin=PLUGIN)
    np.testing.assert_allclose(layer.scale, (2.0, 0.6, 0.5))
    assert layer.data.shape == (4, 6, 5)


def test_a_dicom_folder_opens(viewer, tmp_path):
    volume = numbers((4, 6, 5))
    write_dicom(tmp_path / "series", volume)
    (layer,) = viewer.open(str(tmp_path / "series"), plugin=PLUGIN)
    np.testing.assert_allclose(layer.scale, (3.0, 0.8, 0.5))
    assert layer.data.shape == (4, 6, 5)
    assert layer.data.min() == pytest.approx(volume.min() - 1024)


def test_dicom_files_open_as_one_stack(viewer, tmp_path):
    paths = write_dicom(tmp_path / "series", numbers((4, 6, 5)))
    (layer,) = viewer.open([str(path) for path in paths], plugin=PLUGIN, stack=True)
    assert layer.data.shape == (4, 6, 5)


def test_a_colour_volume_opens_as_rgb(viewer, tmp_path):
    rgb = np.zeros((4, 5, 3), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    rgb["R"] = 200
    nib.save(nib.Nifti1Image(rgb, np.eye(4)), tmp_path / "colour.nii")
    (layer,) = viewer.open(str(tmp_path / "colour.nii"), plugin=PLUGIN)
    assert layer.rgb
    assert layer.data.shape == (3, 5, 4, 3)


def test_other_folders_and_several_volumes_are_left_to_others(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing")
    assert get_dicom_reader(str(tmp_path)) is None
    assert get_volume_reader(["a.nii", "b.nii"]) is None


def test_a_file_that_needs_a_choice_says_where_to_make_it(tmp_path):
    path = str(write_nifti(tmp_path / "cine.nii.gz", numbers((4, 5, 3, 6))))
    reader = get_volume_reader(path)
    assert reader is not None
    with pytest.raises(CaseError, match="Case section") as caught:
        reader(path)
    assert "--component" not in str(caught.value)


# --- saving ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal", "native"])
def test_labels_keep_the_geometry_of_their_case(tmp_path, oblique, plane):
    case = open_case(oblique, plane=plane)
    labels = numbers(case.display.shape, np.uint8) % 4
    out = tmp_path / "mask.nii.gz"
    assert write_labels(str(out), labels, {"name": "manual", "metadata": case_metadata(case)}) == [str(out)]
    assert_same_geometry(out, oblique)
    np.testing.assert_array_equal(open_case(out, plane=plane).display, labels)


def test_labels_drawn_on_our_image_in_the_viewer_have_its_affine(shown, oblique, tmp_path):
    (image,) = shown.open(str(oblique), plugin=PLUGIN)
    labels = shown.add_labels(np.zeros(image.data.shape, np.uint16), scale=image.scale, units=image.units)
    labels.data[2, 3, 1] = 7
    out = tmp_path / "drawn.nii.gz"
    assert labels.save(str(out), plugin=PLUGIN) == [str(out)]
    assert_same_geometry(out, oblique)
    assert open_case(out).display[2, 3, 1] == 7


def test_other_labels_get_a_diagonal_affine_of_their_scale(viewer, tmp_path):
    labels = viewer.add_labels(np.zeros((3, 4, 5), np.int32), scale=(2000, 500, 250), units=("um",) * 3)
    labels.data[1, 2, 4] = 300
    labels.save(str(tmp_path / "plain.nii.gz"), plugin=PLUGIN)
    image = nib.load(tmp_path / "plain.nii.gz")
    np.testing.assert_allclose(np.abs(np.diag(image.affine)), (0.25, 0.5, 2.0, 1.0))
    assert np.asarray(image.dataobj)[4, 2, 1] == 300
    assert image.get_data_dtype() == np.uint16


def test_the_save_dialog_offers_our_writer_for_labels_only(plugin):
    writer, path = plugin.get_writer("mask.nii.gz", ["labels"])
    assert writer is not None
    assert writer.plugin_name == PLUGIN
    assert path == "mask.nii.gz"
    assert plugin.get_writer("picture.nii.gz", ["image"], PLUGIN)[0] is None


def test_a_picture_mask_is_two_dimensional(tmp_path):
    write_labels(str(tmp_path / "skin.nii"), np.eye(4, 6, dtype=np.uint8), {"name": "skin"})
    assert nib.load(tmp_path / "skin.nii").shape == (6, 4)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (np.zeros((2, 3, 4, 5), np.uint8), "4 axes"),
        (np.full((3, 4), 70000, np.int32), "70000"),
        (np.full((3, 4), -1, np.int32), "from 0 to 65535"),
        ([np.zeros((4, 4), np.uint8), np.zeros((2, 2), np.uint8)], "multiscale"),
    ],
)
def test_what_is_no_mask_is_refused(tmp_path, data, said):
    with pytest.raises(LabelError, match=said):
        write_labels(str(tmp_path / "mask.nii.gz"), data, {"name": "labels"})
    assert not any(tmp_path.iterdir())


def test_the_image_is_never_overwritten(oblique):
    case = open_case(oblique)
    with pytest.raises(OutputError, match="overwrite an input"):
        write_labels(str(oblique), np.zeros(case.display.shape, np.uint8), {"metadata": case_metadata(case)})


# --- the rest of the manifest ---------------------------------------------------------------------------------------


def test_the_sample_opens(viewer):
    (layer,) = viewer.open_sample(PLUGIN, "brain")
    assert layer.data.shape == (140, 196, 160)
    np.testing.assert_allclose(layer.scale, (1, 1, 1))
    assert str(layer.units[0]) == "millimeter"
    case = case_of(layer)
    assert (case.n_slices, case.modality, case.name) == (140, "MR", "brain template")


def test_the_mask_of_the_sample_lies_on_the_template(shown, tmp_path):
    from napari_dinoaugseg.case.array import brain_sample

    (image,) = shown.open_sample(PLUGIN, "brain")
    sample = brain_sample()
    nib.save(sample.tissue, tmp_path / "truth.nii.gz")
    nib.save(sample.image, tmp_path / "t1.nii.gz")
    tissue = open_case(tmp_path / "truth.nii.gz").display
    shown.add_labels(tissue, scale=image.scale, units=image.units).save(str(tmp_path / "mask.nii.gz"), plugin=PLUGIN)
    assert_same_geometry(tmp_path / "mask.nii.gz", tmp_path / "t1.nii.gz")
    np.testing.assert_array_equal(nib.load(tmp_path / "mask.nii.gz").dataobj, sample.tissue.dataobj)


def test_preferences_come_from_the_manifest(viewer, plugin):
    chosen = preferences()
    assert chosen == Preferences(device="auto", encoder="auto", offline=False, live=False)  # off in tests
    assert plugin.get_manifest(PLUGIN).contributions.configurations["computing"].properties["live"].default is True


def test_a_new_panel_begins_with_what_is_preferred(shown):
    from napari.settings import get_plugin_settings

    page = get_plugin_settings(PLUGIN).computing
    page.device, page.encoder = "cpu", "efficientnet-lite0"
    try:
        _, panel = shown.window.add_plugin_dock_widget(PLUGIN)
        assert (panel.controller.setup.device, panel.controller.setup.settings.encoder) == ("cpu", "efficientnet-lite0")
    finally:
        page.device, page.encoder = "auto", "auto"


def test_every_encoder_can_be_preferred(plugin):
    from napari_dinoaugseg.model.specs import ENCODERS

    offered = plugin.get_manifest(PLUGIN).contributions.configurations["computing"].properties["encoder"].enum
    assert offered == ["auto", *ENCODERS]


def test_working_offline_reaches_the_engine(monkeypatch):
    monkeypatch.delenv("DINOAUGSEG_OFFLINE", raising=False)
    apply_offline(Preferences(offline=False))
    import os

    assert "DINOAUGSEG_OFFLINE" not in os.environ
    apply_offline(Preferences(offline=True))
    assert os.environ["DINOAUGSEG_OFFLINE"] == "1"
    monkeypatch.delenv("DINOAUGSEG_OFFLINE")


@pytest.mark.parametrize(
    ("scale", "units", "expected"),
    [
        ((1, 1, 1), None, None),
        ((1, 1), ("pixel", "pixel"), None),
        ((2, 0.5, 0.5), ("pixel",) * 3, (2, 0.5, 0.5)),
        ((2000, 500, 500), ("um",) * 3, (2, 0.5, 0.5)),
        ((1, 1, 1), ("mm",) * 3, (1, 1, 1)),
        ((1, 1, 1), ("cm",) * 3, (10, 10, 10)),
    ],
)
def test_scale_and_units_become_millimetres(scale, units, expected):
    assert spacing_in(scale, units) == (None if expected is None else pytest.approx(expected))


def test_discovery_and_the_hooks_load_nothing_heavy():
    code = (
        "import sys\nfrom npe2 import PluginManager\nPluginManager.instance().discover()\n"
        "import napari_dinoaugseg.hooks\n"
        "print(*sorted({'torch', 'timm', 'nibabel', 'nrrd', 'pydicom', 'qtpy', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


def test_the_panel_opens_from_the_plugin_menu(shown):
    _, panel = shown.window.add_plugin_dock_widget(PLUGIN)
    assert type(panel).__name__ == "Panel"
    assert panel.controller.viewer is not None


def test_menus_offer_the_panel_and_the_sample_and_open_the_panel(shown):
    from napari._app_model import get_app_model

    app, panel = get_app_model(), f"{PLUGIN}.panel"
    menus = dict.fromkeys(["napari/layers/segment", "napari/layers/annotate", "napari/plugins"], panel)
    for menu, command in {**menus, "napari/file/samples": f"{PLUGIN}.brain"}.items():
        assert command in [item.command.id for item in app.menus.get_menu(menu) if hasattr(item, "command")], menu
    app.commands.execute_command(panel).result()
    assert any("Few-shot annotation" in name for name in shown.window.dock_widgets)


def test_several_volumes_at_once_are_a_layer_each(tmp_path):
    """As sequences of one case they lie on the grid of the first; none is left out."""
    from napari_dinoaugseg.hooks import _read
    from tests.sequences import write_sequences

    layers = _read([str(path) for path in write_sequences(tmp_path)])
    assert [options["name"] for _, options, _ in layers] == ["anna_t1", "anna_t2"]
    assert layers[0][0].shape == layers[1][0].shape
