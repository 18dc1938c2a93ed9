"""Image layers that are not ours: they are annotated with their scale, or it is said what they lack."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from napari_dinoaugseg.case import ArrayCase, open_case
from napari_dinoaugseg.gui.display import case_of

pytestmark = [pytest.mark.shared_window, pytest.mark.filterwarnings("ignore:System theme detection")]


@pytest.fixture
def controller(windowless_or_not):
    """With a window where it is looked at."""
    return windowless_or_not


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 200, shape).astype(np.uint8)


@pytest.mark.usefixtures("case")
def test_a_plain_array_keeps_its_scale(controller, failed, tmp_path, export):
    layer = controller.viewer.add_image(noise(5, 12, 14), scale=(3, 0.5, 0.6), name="somebody's scan")
    controller.cases.use_layer(layer)
    assert failed == []
    case = controller.session.case
    assert isinstance(case, ArrayCase)
    assert (case.name, case.n_slices) == ("somebody's scan", 5)
    assert case.display_scale == pytest.approx((3, 0.5, 0.6))
    np.testing.assert_allclose(controller.layers.manual.scale, (3, 0.5, 0.6))
    controller.layers.manual.data_setitem((np.array([2]), np.array([7]), np.array([9])), 1)
    controller.flush()
    export(tmp_path / "mask.nii.gz")
    image = nib.load(tmp_path / "mask.nii.gz")
    assert np.asarray(image.dataobj)[9, 7, 2] == 1
    np.testing.assert_allclose(image.header.get_zooms(), (0.6, 0.5, 3), rtol=1e-6)


@pytest.mark.usefixtures("case")
def test_a_colour_picture(controller, failed, tmp_path, export):
    controller.cases.use_layer(controller.viewer.add_image(noise(12, 14, 3), rgb=True, name="skin"))
    assert failed == []
    case = controller.session.case
    assert case.is_colour
    assert case.n_slices == 1
    assert controller.layers.manual.data.shape == (1, 12, 14)
    controller.layers.manual.data_setitem((np.array([0]), np.array([7]), np.array([9])), 1)
    controller.flush()
    export(tmp_path / "mask.png")
    assert case.read_labels(tmp_path / "mask.png")[0][7, 9] == 1


@pytest.mark.usefixtures("case")
def test_a_volume_of_one_slice(controller, failed):
    controller.cases.use_layer(controller.viewer.add_image(noise(1, 12, 14)))
    assert failed == []
    assert controller.session.case.n_slices == 1


def test_a_layer_that_our_reader_made_brings_its_case(controller, failed, blob_files):
    (layer,) = controller.viewer.open(str(blob_files[0]), plugin="napari-dinoaugseg")
    controller.cases.use_layer(layer)
    assert failed == []
    assert controller.session.case is case_of(layer)


def test_label_numbers_above_255(controller, case, failed, tmp_path, export):
    controller.layers.manual.data_setitem((np.array([3]), np.array([7]), np.array([9])), 300)
    controller.flush()
    assert 300 in [entry.number for entry in controller.session.labels.classes]
    export(tmp_path / "mask.nii.gz")
    assert failed == []
    image = nib.load(tmp_path / "mask.nii.gz")
    assert image.get_data_dtype() == np.uint16
    assert open_case(tmp_path / "mask.nii.gz", plane="axial").slice(3)[7, 9] == 300


def test_saving_the_manual_layer_with_napari_keeps_the_geometry(controller, case, blob_files, tmp_path):
    manual = controller.layers.manual
    controller.labels.mark_empty(5)
    manual.data_setitem((np.array([3]), np.array([7]), np.array([9])), 1)
    manual.save(str(tmp_path / "manual.nii.gz"), plugin="napari-dinoaugseg")
    written, image = nib.load(tmp_path / "manual.nii.gz"), nib.load(blob_files[0])
    np.testing.assert_array_equal(written.affine, image.affine)
    values = np.asarray(written.dataobj)
    assert set(np.unique(values)) == {0, 1}  # explicit background is background
    assert open_case(tmp_path / "manual.nii.gz", plane="axial").slice(3)[7, 9] == 1
