"""Several sequences as one case: names, one grid, masks in the geometry of the first, and what is refused."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st

from napari_dinoaugseg.case import choose_window, open_case
from napari_dinoaugseg.case.geometry import Grid, Plane
from napari_dinoaugseg.case.intensity import choose_scales
from napari_dinoaugseg.case.joint import JointSlices
from napari_dinoaugseg.case.recorded import CaseRecord, RecordedCase
from napari_dinoaugseg.case.sequences import in_words, mismatch, sequence_names
from napari_dinoaugseg.errors import CaseError, OutputError
from tests.blobs import AFFINE, SHAPE
from tests.case.builders import write_dicom
from tests.sequences import sequence_voxels, write_sequences, write_truth, write_volume


def slices_of(case):
    return np.stack([case.slice(i) for i in range(case.n_slices)])


# --- names ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "names"),
    [
        (("anna_t1.nii.gz", "anna_t2.nii.gz", "anna_flair.nii.gz"), ("t1", "t2", "flair")),
        (("t1.nii", "t2.nii"), ("t1", "t2")),
        (("BraTS_001_0000.nii.gz", "BraTS_001_0001.nii.gz"), ("0000", "0001")),
        (("Anna-T1-axial.nrrd", "Anna-T2-axial.nrrd"), ("T1", "T2")),
        (("scan.nii.gz", "scan_adc.nii.gz"), ("scan", "adc")),
        (("t1/anna.nii.gz", "t2/anna.nii.gz"), ("t1", "t2")),
        (("a/x.nii.gz", "a/x.nii"), ("sequence 1", "sequence 2")),
        (("müller pet.nii", "müller ct.nii"), ("pet", "ct")),
    ],
)
def test_a_sequence_is_called_by_what_differs_in_the_names_of_the_files(files, names):
    assert sequence_names([Path(file) for file in files]) == names


@given(st.lists(st.text("ab1_- ", min_size=1, max_size=8), min_size=2, max_size=4))
def test_names_are_never_empty_and_never_the_same(stems):
    found = sequence_names([Path(f"{stem}.nii.gz") for stem in stems])
    assert len({name.casefold() for name in found}) == len(stems)
    assert all(found)


def test_a_difference_is_put_into_words():
    assert in_words(("t1", "t2", "flair")) == "t1, t2 and flair"
    assert in_words(("",)) == "one sequence"
    assert mismatch(("t1", "t2"), ("",), "anna_t1") == "anna_t1 has t1: t2 is missing"
    assert mismatch(("t1", "t2"), ("",), "anna") == "anna has one sequence"
    assert mismatch(("t1", "t2", "flair"), ("t1", "adc"), "anna") == "anna has t1 and adc: t2 and flair are missing"
    assert mismatch(("t1", "t2"), ("t2", "t1"), "anna") == "anna has t2 and t1, in another order"
    assert mismatch(("",), ("t1", "t2"), "anna") == "anna has t1 and t2"


# --- one case -------------------------------------------------------------------------------------------------------


def test_files_of_one_patient_are_one_case_with_the_slices_of_the_first(tmp_path):
    files = write_sequences(tmp_path)
    case = open_case(files, plane="axial")
    first, second = (open_case(file, plane="axial") for file in files)
    assert (case.name, case.path, tuple(case.sequences), case.notices) == ("anna", files[0], ("t1", "t2"), [])
    assert np.array_equal(slices_of(case), slices_of(first))
    for found, alone in zip(case.sequences.values(), (first, second), strict=True):
        assert np.array_equal(slices_of(found), slices_of(alone))
        assert [found.slice_fingerprint(i) for i in range(16)] == [alone.slice_fingerprint(i) for i in range(16)]
        assert (found.fingerprint, found.intensity_range()) == (alone.fingerprint, alone.intensity_range())
        assert tuple(found.sequences) == ("",)


def test_it_is_another_case_than_its_first_sequence_and_than_another_order(tmp_path):
    files = write_sequences(tmp_path)
    found = [open_case(paths, plane="axial") for paths in (files, files[0], files[1], files[::-1])]
    assert len({case.fingerprint for case in found}) == 4
    assert len({case.slice_fingerprint(3) for case in found}) == 4
    assert found[0].fingerprint == open_case(files, plane="coronal").fingerprint


def test_names_can_be_given(tmp_path):
    case = open_case(write_sequences(tmp_path), sequences=("T1w", "T2w"))
    assert (tuple(case.sequences), case.name) == (("T1w", "T2w"), "anna_t1")
    with pytest.raises(CaseError, match="different names, not t1 and T1"):
        open_case(write_sequences(tmp_path), sequences=("t1", "T1"))
    with pytest.raises(CaseError, match="2 sequences have 3 names"):
        open_case(write_sequences(tmp_path), sequences=("t1", "t2", "t3"))


@pytest.mark.parametrize("plane", ["coronal", "sagittal", "native"])
def test_another_plane_cuts_every_sequence(tmp_path, plane):
    files = write_sequences(tmp_path)
    cut = open_case(files, plane="axial").in_plane(Plane(plane))
    for found, file in zip(cut.sequences.values(), files, strict=True):
        assert np.array_equal(slices_of(found), slices_of(open_case(file, plane=plane)))
    assert cut.name == "anna"


def test_voxels_in_another_order_are_reordered_and_nothing_is_said(tmp_path):
    files = write_sequences(tmp_path)
    turned = nib.as_closest_canonical(nib.load(files[1]))
    assert turned.shape != SHAPE
    nib.save(turned, files[1])
    case = open_case(files, plane="axial")
    assert case.notices == []
    native = open_case(files[0]).sequences[""].restore(slices_of(case.sequences["t2"]))
    assert np.array_equal(native, sequence_voxels("t2"))


def test_a_mask_leaves_with_the_geometry_of_the_first_sequence(tmp_path):
    first, second = write_sequences(tmp_path)
    write_volume(second, sequence_voxels("t2")[::2, ::2], AFFINE @ np.diag([2, 2, 1, 1]))
    case = open_case([first, second], plane="axial")
    truth = open_case(first, plane="axial").read_labels(write_truth(tmp_path / "truth.nii.gz"), range(16))
    case.write_mask(tmp_path / "mask.nii.gz", lambda i: truth[i])
    mask, image, expected = (
        sitk.ReadImage(str(path)) for path in (tmp_path / "mask.nii.gz", first, tmp_path / "truth.nii.gz")
    )
    for name in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
        assert getattr(mask, name)() == getattr(image, name)()
    assert np.array_equal(sitk.GetArrayFromImage(mask), sitk.GetArrayFromImage(expected))
    with pytest.raises(OutputError, match="input"):
        case.check_output(second)


# --- another grid ---------------------------------------------------------------------------------------------------


def smooth_voxels(shape):
    i, j, k = np.indices(shape)
    return (100 * np.sin(i / 5) + 80 * np.cos(j / 6) + 10 * k).astype(np.float32)


@pytest.mark.parametrize("turn", [0.0, 0.2])
def test_another_grid_is_resampled_as_by_itk(tmp_path, turn):
    """An independent reader and interpolator agrees, also for an oblique grid and beyond the ends."""
    first = write_volume(tmp_path / "t1.nii.gz", sequence_voxels("t1"))
    rotation = np.eye(4)
    rotation[:2, :2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    other = rotation @ AFFINE @ np.diag([1.3, 1.2, 1.5, 1])  # coarser, so that nothing is smoothed
    second = write_volume(tmp_path / "t2.nii.gz", smooth_voxels((28, 40, 11)), other)
    case = open_case([first, second], plane="native")
    reference, moving = sitk.ReadImage(str(first)), sitk.ReadImage(str(second))
    lowest = float(sitk.GetArrayFromImage(moving).min())
    expected = sitk.GetArrayFromImage(sitk.Resample(moving, reference, sitk.Transform(), sitk.sitkLinear, lowest))
    found = slices_of(case.sequences["t2"])
    assert found.dtype == np.float32
    differ = np.abs(found - expected) > 0.05
    assert differ.mean() < (0.002 if turn else 1e-6)  # rounding decides on voxels that lie on the very border
    assert "differs from that of t1: t2 was resampled" in case.notices[0]
    assert "is covered by t2" in case.notices[1]


def test_a_finer_grid_is_smoothed_before_it_is_sampled(tmp_path):
    coarse = write_volume(tmp_path / "pet.nii.gz", np.zeros((10, 10, 4), np.float32), np.diag([4, 4, 4, 1.0]))
    stripes = np.zeros((40, 40, 4), np.float32)
    stripes[::2] = 100
    fine = write_volume(tmp_path / "ct.nii.gz", stripes, np.diag([1, 1, 4, 1.0]))
    found = slices_of(open_case([coarse, fine]).sequences["ct"])
    assert found.min() > 40
    assert found[:, 1:-1, 1:-1].max() < 60


def test_a_resampled_sequence_is_known_again_and_not_mixed_up_with_another_place(tmp_path):
    first, second = write_sequences(tmp_path)
    prints = set()
    for shift in (0.0, 3.0, 3.0):
        affine = AFFINE @ np.diag([1, 1, 1.25, 1])
        affine[0, 3] += shift
        write_volume(second, sequence_voxels("t2"), affine)
        prints.add(open_case([first, second]).fingerprint)
    assert len(prints) == 2


def test_a_partial_overlap_is_said_and_none_is_refused(tmp_path):
    first, second = write_sequences(tmp_path)
    affine = AFFINE.copy()
    affine[2, 3] += 8 * 4.0 + 1.0
    write_volume(second, sequence_voxels("t2"), affine)
    assert any("only 50% of t1 is covered by t2" in notice for notice in open_case([first, second]).notices)
    affine[2, 3] += 500
    write_volume(second, sequence_voxels("t2"), affine)
    with pytest.raises(CaseError, match=r"anna_t2.*no part of t2 lies on t1.*one examination"):
        open_case([first, second])


# --- refused --------------------------------------------------------------------------------------------------------


def refusal(*files, **options):
    with pytest.raises(CaseError) as caught:
        open_case(list(files), **options)
    return str(caught.value)


def test_what_cannot_be_a_sequence_is_refused_by_its_reason(tmp_path):
    from PIL import Image

    first, second = write_sequences(tmp_path)
    moving = write_volume(tmp_path / "anna_dyn.nii.gz", np.zeros((*SHAPE, 3), np.int16))
    assert "anna_dyn holds 3 volumes, and a further sequence is one" in refusal(first, moving)
    colours = np.zeros(SHAPE, [(name, "u1") for name in "RGB"])
    colour = tmp_path / "anna_rgb.nii.gz"
    nib.save(nib.Nifti1Image(colours, AFFINE), colour)
    assert "rgb is in colour" in refusal(first, colour)
    assert "t1 is in colour" in refusal(colour, first, sequences=("t1", "x"))
    picture = tmp_path / "anna_photo.png"
    Image.fromarray(np.zeros((5, 5), np.uint8)).save(picture)
    assert "anna_photo consists of pictures" in refusal(first, picture)
    assert "there is no such file" in refusal(first, tmp_path / "anna_flair.nii.gz")
    assert open_case([moving, second], component=1).n_slices == SHAPE[2]  # of the first one it can be chosen


def test_volumes_without_a_place_need_the_same_size(tmp_path):
    import tifffile

    for name, shape in (("a", (4, 20, 20)), ("b", (4, 20, 20)), ("c", (4, 20, 30))):
        tifffile.imwrite(tmp_path / f"{name}.tif", np.zeros(shape, np.uint16) + 7, imagej=True)
    alike = open_case([tmp_path / "a.tif", tmp_path / "b.tif"], sequences=("a", "b"))
    assert (alike.n_slices, len(alike.sequences)) == (4, 2)
    assert "different sizes" in refusal(tmp_path / "a.tif", tmp_path / "c.tif", sequences=("a", "c"))


# --- without the file, and joined -----------------------------------------------------------------------------------


def test_a_record_of_several_sequences_goes_through_json_and_remembers_each(tmp_path):
    import json

    case = open_case(write_sequences(tmp_path), plane="axial")
    record = CaseRecord.of(case)
    again = CaseRecord.from_plain(json.loads(json.dumps(record.to_plain())))
    assert again == record
    recorded = RecordedCase(again, "anna", tmp_path, lambda: case)
    assert tuple(recorded.sequences) == ("t1", "t2")
    for found, own in zip(recorded.sequences.values(), case.sequences.values(), strict=True):
        assert found.slice_fingerprint(2) == own.slice_fingerprint(2)
        assert found.intensity_range() == own.intensity_range()
    recorded.opened = None  # neither is asked again
    assert [each.slice_fingerprint(2) for each in recorded.sequences.values()]


def test_the_record_of_one_sequence_is_as_before(tmp_path):
    assert "sequences" not in CaseRecord.of(open_case(write_sequences(tmp_path)[0])).to_plain()


def test_joined_cases_have_the_same_sequences(tmp_path):
    cases = [open_case(write_sequences(tmp_path / name, name), plane="axial") for name in ("anna", "bert")]
    joint = JointSlices(cases)
    assert tuple(joint.sequences) == ("t1", "t2")
    second = joint.sequences["t2"]
    assert np.array_equal(second.slice(20), cases[1].sequences["t2"].slice(4))
    with pytest.raises(CaseError, match="A case of one sequence cannot be learned together with one of t1 and t2"):
        JointSlices([cases[0], cases[1].sequences["t1"]])


def test_each_sequence_has_a_window_of_its_own(tmp_path):
    ct = write_volume(tmp_path / "x_ct.nii.gz", np.linspace(-1000, 900, 1000).reshape(10, 10, 10).astype(np.int16))
    pet = write_volume(tmp_path / "x_pet.nii.gz", np.linspace(0, 12, 1000).reshape(10, 10, 10).astype(np.float32))
    for files, window, wanted in (
        ([ct, pet], "auto", ("auto", "auto")),
        ([ct, pet], "liver", ("liver", "auto")),
        ([pet, ct], "percentiles", ("percentiles", "percentiles")),
        ([ct, pet], "0,100", ("0,100", "auto")),
        ([ct, ct], "liver", ("liver", "liver")),
    ):
        case = open_case(files, plane="native", sequences=("a", "b"))
        expected = [choose_window(each, name) for each, name in zip(case.sequences.values(), wanted, strict=True)]
        assert choose_scales(case, window, "window") == expected


def test_grids_apart_by_rounding_are_one_grid(tmp_path):
    first, second = write_sequences(tmp_path)
    affine = AFFINE.copy()
    affine[:3, 3] += 1e-4
    write_volume(second, sequence_voxels("t2"), affine)
    case = open_case([first, second])
    assert case.notices == []
    assert case.sequences["t2"].grid is case.grid
    assert isinstance(case.grid, Grid)


# --- DICOM ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def examination(tmp_path):
    """A folder with two series of one examination, the second one on a coarser grid of another frame of reference."""

    def framed(number):
        def change(_, dataset):
            dataset.FrameOfReferenceUID = f"1.2.3.{number}"

        return change

    random = np.random.default_rng(0)
    fine, coarse = random.integers(0, 900, (6, 20, 24), np.int16), random.integers(0, 900, (5, 9, 8), np.int16)
    write_dicom(tmp_path / "study", fine, series_uid="1.2.9.1", description="T1", change=framed(1))
    write_dicom(
        *(tmp_path / "study", coarse),
        **{"series_uid": "1.2.9.2", "description": "PET WB", "spacing": (1.6, 1.5), "change": framed(2)},
        names=lambda k: f"B{k}.dcm",
    )
    return tmp_path / "study"


def test_series_of_one_folder_are_sequences_called_by_their_descriptions(examination, tmp_path):
    case = open_case(examination, series=["T1", "PET"])
    assert tuple(case.sequences) == ("T1", "PET")
    assert case.slice_shape(0) == case.sequences["PET"].slice_shape(0) == (20, 24)
    assert any("different frames of reference" in notice for notice in case.notices)
    by_uid = open_case([examination, examination], series=["1.2.9.1", "1.2.9.2"])
    assert tuple(by_uid.sequences) == ("T1", "PET WB")
    assert by_uid.fingerprint == case.fingerprint
    case.write_mask(tmp_path / "mask.dcm", lambda i: np.ones((20, 24), np.uint8))  # refers to the first series
    assert open_case(examination, series="T1").read_labels(tmp_path / "mask.dcm")[0].all()
    assert "cannot be taken from" in refusal(examination, examination, series=["T1"])
