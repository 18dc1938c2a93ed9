"""A dataset for nnU-Net: accepted by its own check, on the grid of each image, and without a name."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import nrrd
import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from napari_dinoaugseg.case import Case, VolumeCase, case_from_array, open_case
from napari_dinoaugseg.errors import LabelError, OutputError
from napari_dinoaugseg.session.labels import UNKNOWN, LabelBook, new_class
from napari_dinoaugseg.session.nnunet import (
    NnunetCase,
    NnunetDataset,
    _label_names,
    export_nnunet,
    is_nnunet_export,
)
from tests.case.builders import COLOUR, GREY, OBLIQUE, listing, numbers, pictures, save, write_dicom, write_nifti

SHAPE = (7, 6, 5)
TURNED = nib.affines.from_matvec(OBLIQUE @ np.diag([0.8, -0.7, 2.5]), [3.0, -4.0, 5.0])
LIVER, TUMOUR = new_class(1, "liver"), new_class(3, "tumour")


@pytest.fixture(autouse=True)
def _silent_itk() -> None:
    sitk.ProcessObject.SetGlobalWarningDisplay(False)


def volume(path: Path, **options: Any) -> VolumeCase:
    case = open_case(path, **options)
    assert isinstance(case, VolumeCase)
    return case


def labelled(case: Case, slices: Mapping[int, NDArray[Any]] | None = None, identifier: str | None = None) -> NnunetCase:
    """Label slices of a case, or all of it with stripes of liver and tumour."""
    book = LabelBook(case.slice_shape, case.n_slices)
    book.label(slices if slices is not None else {i: stripes(case, i) for i in range(case.n_slices)}, classes=CLASSES)
    return NnunetCase(case, book, identifier)


CLASSES = (LIVER, TUMOUR)


def stripes(case: Case, i: int) -> NDArray[np.uint16]:
    rows, columns = np.indices(case.slice_shape(i))
    return np.array([0, 1, 3, 0], np.uint16)[(rows + 2 * columns + i) % 4]


def described(folder: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((folder / "dataset.json").read_text(encoding="ascii"))
    return loaded


def seen(folder: Path, name: str = "case_001") -> tuple[sitk.Image, sitk.Image]:
    """Read image and labels as nnU-Net does."""
    image, labels = folder / "imagesTr" / f"{name}_0000.nii.gz", folder / "labelsTr" / f"{name}.nii.gz"
    return sitk.ReadImage(str(image)), sitk.ReadImage(str(labels))


def require_one_place(one: sitk.Image, other: sitk.Image, **tolerance: float) -> None:
    assert one.GetSize() == other.GetSize()
    for get in (sitk.Image.GetSpacing, sitk.Image.GetOrigin, sitk.Image.GetDirection):
        np.testing.assert_allclose(get(one), get(other), **{"rtol": 1e-5, "atol": 1e-4, **tolerance})


def array(image: sitk.Image) -> NDArray[Any]:
    """Return the voxels in stored order (i, j, k)."""
    return sitk.GetArrayFromImage(image).transpose()


def of_nifti(folder: Path) -> tuple[VolumeCase, sitk.Image]:
    path = write_nifti(folder / "image.nii.gz", numbers(SHAPE), TURNED)
    return volume(path), sitk.ReadImage(str(path))


def of_big_nifti_2(folder: Path) -> tuple[VolumeCase, sitk.Image]:
    image = nib.Nifti2Image(numbers(SHAPE, ">f4"), TURNED, nib.Nifti2Header(endianness=">"))
    nib.save(image, folder / "image.nii")
    # ITK reads NIfTI-1 only.
    older = write_nifti(folder / "older.nii", np.asarray(image.dataobj, dtype=np.float32), TURNED)
    return volume(folder / "image.nii"), sitk.ReadImage(str(older))


def of_component(folder: Path) -> tuple[VolumeCase, sitk.Image]:
    path = write_nifti(folder / "image.nii", numbers((*SHAPE, 3), np.float32), TURNED)
    return volume(path, component=1), sitk.ReadImage(str(path))[..., 1]


def of_scaled_nifti(folder: Path) -> tuple[VolumeCase, sitk.Image]:
    image = nib.Nifti1Image(numbers(SHAPE), TURNED)
    image.header.set_slope_inter(0.25, -3.5)
    nib.save(image, folder / "image.nii")
    return volume(folder / "image.nii"), sitk.ReadImage(str(folder / "image.nii"))


def of_nrrd(folder: Path) -> tuple[VolumeCase, sitk.Image]:
    directions = (OBLIQUE @ np.diag([0.8, 0.7, 2.5])).T
    fields = {"space": "right-anterior-superior", "space directions": directions, "space origin": [1.0, 2.0, 3.0]}
    nrrd.write(str(folder / "image.nrrd"), numbers(SHAPE, np.uint16), fields)
    return volume(folder / "image.nrrd"), sitk.ReadImage(str(folder / "image.nrrd"))


def of_dicom(folder: Path) -> tuple[VolumeCase, sitk.Image]:
    write_dicom(folder / "ct", numbers((5, 6, 7), np.uint16), directions=OBLIQUE[:, :2])
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder / "ct")))
    return volume(folder / "ct"), reader.Execute()


def of_tiff(folder: Path) -> tuple[VolumeCase, sitk.Image]:
    tifffile.imwrite(folder / "stack.tif", numbers((5, 6, 7), np.uint8))
    return volume(folder / "stack.tif"), sitk.ReadImage(str(folder / "stack.tif"))


@pytest.mark.parametrize("make", [of_nifti, of_big_nifti_2, of_component, of_scaled_nifti, of_nrrd, of_dicom, of_tiff])
def test_image_and_labels_lie_on_the_grid_of_the_source_and_hold_its_values(
    make: Callable[[Path], tuple[VolumeCase, sitk.Image]], tmp_path: Path, nnunet_check: Callable[[Path], None]
) -> None:
    case, source = make(tmp_path)
    export_nnunet([labelled(case)], CLASSES, tmp_path / "out")
    image, labels = seen(tmp_path / "out")
    require_one_place(image, source)
    require_one_place(labels, source)
    np.testing.assert_array_equal(array(image), array(source))
    shown = np.array([np.array([0, 1, 9, 2])[stripes(case, i)] for i in range(case.n_slices)])
    np.testing.assert_array_equal(array(labels), case.restore(shown))
    nnunet_check(tmp_path / "out")


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    forms=st.tuples(*[st.sampled_from([TURNED, np.diag([-0.8, 0.7, 2.5, 1.0]), np.diag([0.8, 0.7, 2.5, 1.0])])] * 2),
    codes=st.tuples(*[st.sampled_from([0, 1, 2])] * 2),
    unit=st.sampled_from(["mm", "micron", "meter", None]),
    sizes=st.sampled_from([(0.8, 0.7, 2.5), (0.8, 0.7, 9.0)]),
)
def test_any_nifti_header_keeps_its_place(
    forms: tuple[NDArray[Any], NDArray[Any]],
    codes: tuple[int, int],
    unit: str | None,
    sizes: tuple[float, ...],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("header")
    image = nib.Nifti1Image(numbers(SHAPE), None)
    if unit is not None:
        image.header.set_xyzt_units(unit)
    image.set_qform(forms[0], codes[0])
    image.set_sform(forms[1], codes[1])
    image.header["pixdim"][1:4] = sizes
    nib.save(image, folder / "image.nii")
    export_nnunet([labelled(volume(folder / "image.nii"))], CLASSES, folder / "out")
    source = sitk.ReadImage(str(folder / "image.nii"))
    for made in seen(folder / "out"):
        require_one_place(made, source, rtol=0, atol=0)


def test_a_ct_is_exported_in_hu(tmp_path: Path) -> None:
    case, _ = of_dicom(tmp_path)
    export_nnunet([labelled(case)], CLASSES, tmp_path / "out")
    image, labels = seen(tmp_path / "out")
    assert (image.GetPixelID(), labels.GetPixelID()) == (sitk.sitkInt16, sitk.sitkUInt8)
    assert array(image).min() == -1024
    assert described(tmp_path / "out")["channel_names"] == {"0": "CT"}


def test_the_check_of_nnunet_sees_labels_elsewhere(tmp_path: Path, nnunet_check: Callable[[Path], None]) -> None:
    case, _ = of_nifti(tmp_path)
    export_nnunet([labelled(case)], CLASSES, tmp_path / "out")
    labels = nib.load(tmp_path / "out" / "labelsTr" / "case_001.nii.gz")
    moved = nib.Nifti1Image(np.asarray(labels.dataobj), nib.affines.from_matvec(np.eye(3), [0, 0, 9]) @ labels.affine)
    nib.save(moved, tmp_path / "out" / "labelsTr" / "case_001.nii.gz")
    with pytest.raises(AssertionError, match="Origin mismatch"):
        nnunet_check(tmp_path / "out")


def sparse(case: Case) -> NnunetCase:
    """Slice 0 painted, 1 scribbled, 2 accepted, 3 predicted, 4 empty."""
    given = labelled(case, {0: stripes(case, 0), 1: np.full(case.slice_shape(1), UNKNOWN, np.uint16)})
    scribbled = np.full(case.slice_shape(1), UNKNOWN, np.uint16)
    scribbled[0], scribbled[1] = 3, 0
    given.labels.set_manual(1, scribbled)
    for i in (1, 2, 3):
        given.labels.set_prediction(i, np.ones(case.slice_shape(i), np.uint16), 0.9)
    given.labels.accept(2)
    given.labels.see(2)
    return given


def test_whatever_nobody_painted_or_accepted_is_ignored(tmp_path: Path, nnunet_check: Callable[[Path], None]) -> None:
    case = volume(write_nifti(tmp_path / "image.nii", numbers((6, 7, 5)), np.diag([-1.0, -1.0, 2.0, 1.0])))
    made = export_nnunet([sparse(case)], CLASSES, tmp_path / "out")
    labels = case.to_slices(array(seen(tmp_path / "out")[1]))
    ignore = 3
    np.testing.assert_array_equal(labels[0], np.array([0, 1, 9, 2])[stripes(case, 0)])
    assert (labels[1][0] == 2).all()
    assert (labels[1][1] == 0).all()
    assert (labels[1][2:] == ignore).all()
    assert (labels[2] == 1).all()
    assert (labels[3:] == ignore).all()
    assert described(tmp_path / "out")["labels"] == {"background": 0, "liver": 1, "tumour (class 3)": 2, "ignore": 3}
    assert made.labels["ignore"] == ignore
    assert any(
        notice.startswith("1 of 1 case has pixels without a painted or accepted label") for notice in made.notices
    )
    nnunet_check(tmp_path / "out")


def test_a_dataset_without_open_pixels_has_no_ignore_label(tmp_path: Path) -> None:
    case, _ = of_nifti(tmp_path)
    made = export_nnunet([labelled(case)], CLASSES, tmp_path / "out")
    assert described(tmp_path / "out")["labels"] == {"background": 0, "liver": 1, "tumour (class 3)": 2} == made.labels
    assert made.label_of == {1: 1, 3: 2}
    assert "nnU-Net needs labels without gaps: class 3 is label 2." in made.notices
    assert not any("ignore" in notice for notice in made.notices)


def test_labels_that_nobody_has_looked_at_are_named(tmp_path: Path) -> None:
    case, _ = of_nifti(tmp_path)
    given = labelled(case, {0: stripes(case, 0)})
    given.labels.set_prediction(1, stripes(case, 1), 0.99)
    given.labels.accept(1)
    made = export_nnunet([given], CLASSES, tmp_path / "out")
    assert "1 case has labels that nobody has looked at: case_001." in made.notices


def test_more_classes_than_a_byte_holds(tmp_path: Path, nnunet_check: Callable[[Path], None]) -> None:
    case, _ = of_nifti(tmp_path)
    classes = [new_class(number) for number in range(1, 301)]
    book = LabelBook(case.slice_shape, case.n_slices)
    book.label({0: np.full(case.slice_shape(0), 300, np.uint16)}, classes=classes)
    export_nnunet([NnunetCase(case, book)], classes, tmp_path / "out")
    assert set(np.unique(array(seen(tmp_path / "out")[1]))) == {300, 301}
    nnunet_check(tmp_path / "out")


def test_a_label_of_no_class_is_refused(tmp_path: Path) -> None:
    case, _ = of_nifti(tmp_path)
    with pytest.raises(LabelError, match=r"image, slice 0: its labels hold the value 3, which is not a class"):
        export_nnunet([labelled(case)], [LIVER], tmp_path / "out")
    assert not (tmp_path / "out").exists()


NAMES = st.sampled_from(
    ["liver", "Liver", "ignore", "background", "Ignore ", "", "a (class 2)", "a", "ignore (class 1)"]
)


@settings(deadline=None, derandomize=True)
@given(named=st.dictionaries(st.integers(1, 9), NAMES, min_size=1))
def test_label_names_are_unique_and_consecutive(named: dict[int, str]) -> None:
    classes = [new_class(number) for number in sorted(named)]
    classes = [type(entry)(entry.number, named[entry.number], entry.colour) for entry in classes]
    names = _label_names(classes)
    assert list(names.values()) == list(range(len(classes) + 1))
    assert next(iter(names)) == "background"
    folded = [name.strip().casefold() for name in names]
    assert len(set(folded)) == len(folded)
    assert "ignore" not in folded
    for entry, name in zip(classes, list(names)[1:], strict=True):
        assert name.startswith(" ".join(entry.name.split()))
        assert name == entry.name or f"(class {entry.number})" in name


def test_a_renamed_class_is_named(tmp_path: Path) -> None:
    case, _ = of_nifti(tmp_path)
    classes = [new_class(1, "ignore"), new_class(2, "vein"), new_class(3, "vein")]
    made = export_nnunet([labelled(case)], classes, tmp_path / "out")
    assert list(made.labels) == ["background", "ignore (class 1)", "vein (class 2)", "vein (class 3)"]
    assert sum("its name is empty, used twice or reserved" in notice for notice in made.notices) == 3


def content(folder: Path) -> bytes:
    """Every name and byte of a folder, unpacked."""
    files = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    read = [gzip.decompress(data) if path.suffix == ".gz" else data for path, data in files.items()]
    return b"\n".join([*(str(path.relative_to(folder)).encode() for path in files), *read]).lower()


def test_no_name_enters_the_dataset(tmp_path: Path) -> None:
    image = nib.Nifti1Image(numbers(SHAPE), TURNED)
    for text in ("descrip", "aux_file", "db_name", "intent_name"):
        image.header[text] = b"Meyer"
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"Meyer^Anna"))
    nib.save(image, tmp_path / "Meyer_Anna_1960.nii.gz")
    fields = {"space": "LPS", "space directions": np.eye(3), "space origin": [0, 0, 0], "PatientName": "Meyer"}
    nrrd.write(str(tmp_path / "Meyer.nrrd"), numbers(SHAPE), fields)
    write_dicom(
        tmp_path / "Meyer",
        numbers((5, 6, 7), np.uint16),
        description="Meyer",
        change=lambda _, dataset: setattr(dataset, "PatientName", "Meyer^Anna"),
    )
    cases = [volume(tmp_path / name) for name in ("Meyer_Anna_1960.nii.gz", "Meyer.nrrd", "Meyer")]
    made = export_nnunet([labelled(case) for case in cases], CLASSES, tmp_path / "out")
    written = content(tmp_path / "out")
    assert b"meyer" not in written
    assert str(tmp_path).lower().encode() not in written
    assert [entry.name for entry in made.entries] == ["case_001", "case_002", "case_003"]
    assert [entry.case for entry in made.entries] == [0, 1, 2]
    assert [entry.fingerprint for entry in made.entries] == [case.fingerprint for case in cases]
    assert "meyer" not in " ".join(made.notices).lower()
    for path in (tmp_path / "out").rglob("*.nii.gz"):
        header = nib.load(path).header
        assert not header.extensions
        assert not any(header[text].item() for text in ("descrip", "aux_file", "db_name", "intent_name"))


def test_pictures_become_cases_with_upright_labels(tmp_path: Path, nnunet_check: Callable[[Path], None]) -> None:
    exif = Image.Exif()
    exif[274] = 6
    save(tmp_path / "in" / "Anna.png", COLOUR)
    save(tmp_path / "in" / "turned.jpg", COLOUR, exif=exif, quality=95)
    save(tmp_path / "in" / "unlabelled.png", COLOUR)
    case = pictures(tmp_path / "in")
    scribbled = stripes(case, 1)
    scribbled[0] = UNKNOWN
    made = export_nnunet([labelled(case, {0: stripes(case, 0), 1: scribbled})], CLASSES, tmp_path / "out")
    assert sorted(listing(tmp_path / "out")) == [
        *("dataset.json", "imagesTr/case_001_0000.png", "imagesTr/case_002_0000.png"),
        *("labelsTr/case_001.png", "labelsTr/case_002.png"),
    ]
    for i, name in enumerate(("case_001", "case_002")):
        image = np.asarray(Image.open(tmp_path / "out" / "imagesTr" / f"{name}_0000.png"))
        labels = Image.open(tmp_path / "out" / "labelsTr" / f"{name}.png")
        np.testing.assert_array_equal(image, case.slice(i))
        assert labels.mode == "L"
        expected = np.array([0, 1, 9, 2])[stripes(case, i)]
        expected[0] = 3 if i else expected[0]
        np.testing.assert_array_equal(np.asarray(labels), expected)
    facts = described(tmp_path / "out")
    assert facts["channel_names"] == {"0": "R", "1": "G", "2": "B"}
    assert (facts["file_ending"], facts["numTraining"]) == (".png", 2)
    assert [(entry.case, entry.picture) for entry in made.entries] == [(0, 0), (0, 1)]
    assert made.entries[1].fingerprint == case.slice_fingerprint(1)
    assert "1 case with no label left out: case_003." in made.notices
    nnunet_check(tmp_path / "out")


def test_grey_pictures_keep_their_values(tmp_path: Path, nnunet_check: Callable[[Path], None]) -> None:
    save(tmp_path / "in" / "a.png", GREY)
    save(tmp_path / "in" / "b.png", numbers((6, 7), np.uint16) + np.uint16(40000))
    case = pictures(tmp_path / "in")
    export_nnunet([labelled(case)], CLASSES, tmp_path / "out")
    for i, name in enumerate(("case_001", "case_002")):
        image = Image.open(tmp_path / "out" / "imagesTr" / f"{name}_0000.png")
        assert image.mode == ("L", "I;16")[i]
        np.testing.assert_array_equal(np.asarray(image), case.slice(i))
    nnunet_check(tmp_path / "out")


def test_pictures_with_fractions_make_the_dataset_tiff(tmp_path: Path, nnunet_check: Callable[[Path], None]) -> None:
    save(tmp_path / "in" / "a.png", GREY)
    save(tmp_path / "in" / "b.tif", GREY.astype(np.float32) - 0.5)
    save(tmp_path / "in" / "c.png", GREY)
    case = pictures(tmp_path / "in")
    made = export_nnunet([labelled(case)], CLASSES, tmp_path / "out")
    assert described(tmp_path / "out")["file_ending"] == ".tif"
    assert "Some pictures hold values that PNG cannot: all are written as TIFF." in made.notices
    for i in range(3):
        np.testing.assert_array_equal(
            tifffile.imread(tmp_path / "out" / "imagesTr" / f"case_{i + 1:03d}_0000.tif"), case.slice(i)
        )
        assert tifffile.imread(tmp_path / "out" / "labelsTr" / f"case_{i + 1:03d}.tif").dtype == np.uint8
    nnunet_check(tmp_path / "out")


def test_a_volume_in_colour_has_a_file_for_each_channel(tmp_path: Path, nnunet_check: Callable[[Path], None]) -> None:
    colours = numbers((*SHAPE, 3), np.uint8)
    voxels = colours.view(np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))[..., 0]
    nib.save(nib.Nifti1Image(voxels, TURNED), tmp_path / "image.nii.gz")
    export_nnunet([labelled(volume(tmp_path / "image.nii.gz"))], CLASSES, tmp_path / "out")
    for channel in range(3):
        path = tmp_path / "out" / "imagesTr" / f"case_001_{channel:04d}.nii.gz"
        np.testing.assert_array_equal(array(sitk.ReadImage(str(path))), colours[..., channel])
    nnunet_check(tmp_path / "out")


def test_each_sequence_of_a_case_is_a_channel(tmp_path: Path, nnunet_check: Callable[[Path], None]) -> None:
    paths = [
        write_nifti(tmp_path / f"anna_{name}.nii.gz", numbers(SHAPE, seed=n), TURNED) for n, name in enumerate("abc")
    ]
    case = open_case(paths)
    made = export_nnunet([labelled(case)], CLASSES, tmp_path / "out")
    for channel, path in enumerate(paths):
        written = sitk.ReadImage(str(tmp_path / "out" / "imagesTr" / f"case_001_{channel:04d}.nii.gz"))
        np.testing.assert_array_equal(array(written), np.asarray(nib.load(path).dataobj))
        require_one_place(written, sitk.ReadImage(str(path)))
    assert described(tmp_path / "out")["channel_names"] == {"0": "image", "1": "image", "2": "image"}
    assert sum("channel 2 is called 'image'" in notice for notice in made.notices) == 1
    nnunet_check(tmp_path / "out")
    assert is_nnunet_export(tmp_path / "out")
    with pytest.raises(OutputError, match="grey volumes with a, b and c and grey volumes cannot share a dataset"):
        export_nnunet([labelled(case), labelled(volume(paths[0]))], CLASSES, tmp_path / "other")


def test_an_image_with_two_axes_stays_flat(tmp_path: Path, nnunet_check: Callable[[Path], None]) -> None:
    path = write_nifti(tmp_path / "image.nii", numbers((6, 7)), np.diag([-0.5, -0.7, 1.0, 1.0]))
    export_nnunet([labelled(volume(path))], CLASSES, tmp_path / "out")
    source = sitk.ReadImage(str(path))
    for made in seen(tmp_path / "out"):
        require_one_place(made, source)
    nnunet_check(tmp_path / "out")


def test_frames_in_time_become_slices(tmp_path: Path, nnunet_check: Callable[[Path], None]) -> None:
    path = write_nifti(tmp_path / "loop.nii", numbers((6, 7, 1, 4)))
    case = volume(path)
    made = export_nnunet([labelled(case)], CLASSES, tmp_path / "out")
    image, _ = seen(tmp_path / "out")
    np.testing.assert_array_equal(array(image), np.asarray(nib.load(path).dataobj)[:, :, 0])
    assert any("frames in time" in notice for notice in made.notices)
    nnunet_check(tmp_path / "out")


def test_a_volume_that_itk_refuses_is_read_with_nibabel(tmp_path: Path, nnunet_check: Callable[[Path], None]) -> None:
    skewed = np.diag([1.0, 1.0, 2.0, 1.0])
    skewed[0, 2] = 0.5
    image = nib.Nifti1Image(numbers(SHAPE), None)
    image.set_sform(skewed, 1)
    image.set_qform(None, 0)
    nib.save(image, tmp_path / "image.nii")
    made = export_nnunet([labelled(volume(tmp_path / "image.nii"))], CLASSES, tmp_path / "out")
    for path in (tmp_path / "out").rglob("*.nii.gz"):
        np.testing.assert_array_equal(nib.load(path).affine, skewed)
    assert any("not at right angles" in notice for notice in made.notices)
    nnunet_check(tmp_path / "out")


def test_a_volume_with_uneven_slices_is_left_out(tmp_path: Path) -> None:
    positions = [0.0, 3.0, 6.0, 11.0, 14.0]

    def move(k: int, dataset: Any) -> None:
        dataset.ImagePositionPatient = [0.0, 0.0, positions[k]]

    write_dicom(tmp_path / "ct", numbers((5, 6, 7), np.uint16), change=move)
    uneven, (even, _) = volume(tmp_path / "ct"), of_nifti(tmp_path)
    assert uneven.grid.is_uneven
    made = export_nnunet([labelled(uneven), labelled(even)], CLASSES, tmp_path / "out")
    assert [(entry.name, entry.case) for entry in made.entries] == [("case_002", 1)]
    assert "1 case with slices at uneven distances left out: case_001." in made.notices
    with pytest.raises(OutputError, match=r"uneven distances left out: case_001\). Choose other cases"):
        export_nnunet([labelled(uneven)], CLASSES, tmp_path / "other")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("modalities", "channel", "says"),
    [
        (["CT", "CT"], "CT", None),
        (["MR"], "MRI", None),
        (["CT", "MR"], "image", "several modalities (CT, MRI)"),
        (["CT", None], "image", "several modalities (CT, unknown)"),
        ([None], "image", "For CT, change this name to 'CT' in dataset.json"),
        (["MEYER^ANNA"], "image", None),
    ],
)
def test_the_channel_is_called_by_the_modality_that_all_cases_share(
    modalities: Sequence[str | None], channel: str, says: str | None, tmp_path: Path
) -> None:
    cases = []
    for modality in modalities:
        case = case_from_array(numbers((3, 4, 5)), spacing=(1, 1, 1))
        case.modality = modality
        cases.append(labelled(case))
    made = export_nnunet(cases, CLASSES, tmp_path / "out")
    assert described(tmp_path / "out")["channel_names"] == {"0": channel}
    assert [notice for notice in made.notices if "z-score" in notice] == [
        notice for notice in made.notices if says is not None and says in notice
    ]
    assert says is None or any(says in notice for notice in made.notices)
    export_nnunet(cases, CLASSES, tmp_path / "named", channel="T2")
    assert described(tmp_path / "named")["channel_names"] == {"0": "T2"}


def test_identifiers_of_the_caller_are_the_names(tmp_path: Path, nnunet_check: Callable[[Path], None]) -> None:
    case, _ = of_nifti(tmp_path)
    made = export_nnunet([labelled(case, identifier="case_007")], CLASSES, tmp_path / "out")
    assert [entry.name for entry in made.entries] == ["case_007"]
    save(tmp_path / "in" / "a.png", GREY)
    made = export_nnunet([labelled(pictures(tmp_path / "in"), identifier="p_2")], CLASSES, tmp_path / "pictures")
    assert [entry.name for entry in made.entries] == ["p_2-001"]
    nnunet_check(tmp_path / "pictures")


@pytest.mark.parametrize("identifiers", [("a", "a"), ("Meyer^Anna",), ("../out",), ("",)])
def test_an_identifier_that_is_no_name_of_its_own_is_refused(identifiers: Sequence[str], tmp_path: Path) -> None:
    case, _ = of_nifti(tmp_path)
    before = listing(tmp_path)
    with pytest.raises(OutputError, match="the identifier"):
        export_nnunet([labelled(case, identifier=name) for name in identifiers], CLASSES, tmp_path / "out")
    assert listing(tmp_path) == before


@pytest.mark.parametrize("mixed", ["volumes and pictures", "grey and colour", "in one case"])
@pytest.mark.parametrize("one_by_one", [False, True])
def test_a_mix_is_refused_and_nothing_is_written(mixed: str, one_by_one: bool, tmp_path: Path) -> None:
    save(tmp_path / "grey" / "a.png", GREY)
    save(tmp_path / "colour" / "a.png", COLOUR)
    save(tmp_path / "both" / "a.png", GREY)
    save(tmp_path / "both" / "b.png", COLOUR)
    grey, colour = pictures(tmp_path / "grey"), pictures(tmp_path / "colour")
    cases = {
        "volumes and pictures": [of_nifti(tmp_path)[0], grey],
        "grey and colour": [grey, colour],
        "in one case": [pictures(tmp_path / "both")],
    }[mixed]
    before = listing(tmp_path)
    written: list[int] = []
    given = [labelled(case) for case in cases]
    with pytest.raises(OutputError, match=r"cannot share a dataset of nnU-Net.*Export them separately"):
        export_nnunet(
            (case for case in given) if one_by_one else given, CLASSES, tmp_path / "out", progress=written.append
        )
    assert listing(tmp_path) == before
    assert one_by_one or not written


def test_without_a_class_or_a_label_there_is_no_dataset(tmp_path: Path) -> None:
    case, _ = of_nifti(tmp_path)
    with pytest.raises(OutputError, match="no class to export"):
        export_nnunet([labelled(case)], [], tmp_path / "out")
    with pytest.raises(OutputError, match=r"no case can be exported .1 case with no label left out: case_001"):
        export_nnunet([labelled(case, {})], CLASSES, tmp_path / "out")
    with pytest.raises(OutputError, match=r"no case can be exported\. Paint or accept labels first"):
        export_nnunet([], CLASSES, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_with_something_else_is_refused(tmp_path: Path) -> None:
    case, _ = of_nifti(tmp_path)
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "thesis.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(OutputError, match="holds something else"):
        export_nnunet([labelled(case)], CLASSES, folder, replace=True)
    assert listing(folder) == {"thesis.txt": b"mine"}
    with pytest.raises(OutputError, match="this is a file"):
        export_nnunet([labelled(case)], CLASSES, folder / "thesis.txt")
    with pytest.raises(OutputError, match="does not exist"):
        export_nnunet([labelled(case)], CLASSES, tmp_path / "nowhere" / "out")
    (folder / "thesis.txt").unlink()
    export_nnunet([labelled(case)], CLASSES, folder)  # an empty folder is as good as none
    assert is_nnunet_export(folder)


def exported(tmp_path: Path, count: int = 1) -> tuple[list[NnunetCase], NnunetDataset]:
    cases = [labelled(case_from_array(numbers((3, 4, 5), seed=n), spacing=(1, 1, 1))) for n in range(count)]
    return cases, export_nnunet(cases, CLASSES, tmp_path / "Dataset001_Liver")


def test_an_earlier_dataset_is_replaced_only_on_request_and_as_a_whole(tmp_path: Path) -> None:
    cases, made = exported(tmp_path, 2)
    before = listing(made.folder)
    with pytest.raises(OutputError, match="already holds an exported dataset"):
        export_nnunet(cases[:1], CLASSES, made.folder)
    assert listing(made.folder) == before
    export_nnunet(cases[:1], CLASSES, made.folder, replace=True)
    assert sorted(listing(tmp_path)) == [
        f"Dataset001_Liver/{name}"
        for name in ("dataset.json", "imagesTr/case_001_0000.nii.gz", "labelsTr/case_001.nii.gz")
    ]


@pytest.mark.parametrize("foreign", ["imagesTr/mine_0000.nii.gz", "labelsTr/notes.txt", "imagesTs/a.nii.gz"])
def test_a_dataset_to_which_something_was_added_is_not_replaced(foreign: str, tmp_path: Path) -> None:
    cases, made = exported(tmp_path)
    added = made.folder / foreign
    added.parent.mkdir(exist_ok=True)
    added.write_bytes(b"mine")
    with pytest.raises(OutputError, match="holds something else"):
        export_nnunet(cases, CLASSES, made.folder, replace=True)
    assert added.read_bytes() == b"mine"


def test_a_case_is_not_replaced_by_its_own_export(tmp_path: Path) -> None:
    _, made = exported(tmp_path)
    before = listing(tmp_path)
    own = labelled(volume(made.folder / "imagesTr" / "case_001_0000.nii.gz"))
    with pytest.raises(OutputError, match="lies in this folder"):
        export_nnunet([own], CLASSES, made.folder, replace=True)
    assert listing(tmp_path) == before


@pytest.mark.parametrize("replace", [False, True])
def test_an_interrupted_export_leaves_everything_as_it_was(replace: bool, tmp_path: Path) -> None:
    if replace:
        exported(tmp_path)
    cases = [labelled(case_from_array(numbers((3, 4, 5), seed=n), spacing=(1, 1, 1))) for n in range(3)]
    before = listing(tmp_path)

    def interrupt(done: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_nnunet(cases, CLASSES, tmp_path / "Dataset001_Liver", replace=replace, progress=interrupt)
    assert listing(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == (["Dataset001_Liver"] if replace else [])


def test_a_disk_that_refuses_leaves_the_earlier_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cases, made = exported(tmp_path)
    before = listing(tmp_path)
    rename, renamed = Path.rename, []

    def refuse_the_second(path: Path, target: Path) -> Path:
        renamed.append(path)
        if len(renamed) == 2:  # the earlier dataset is out of the way, and the new one does not get its place
            raise OSError(28, "No space left on device")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refuse_the_second)
    with pytest.raises(OutputError, match="No space left on device"):
        export_nnunet(cases, CLASSES, made.folder, replace=True)
    assert len(renamed) == 3
    assert listing(tmp_path) == before


def test_what_nnunet_needs_besides_is_a_notice(tmp_path: Path) -> None:
    _, few = exported(tmp_path, 4)
    assert "nnU-Net trains 5 folds by default and needs at least 5 cases; here are 4 cases." in few.notices
    cases = [labelled(case_from_array(numbers((3, 4, 5)))) for _ in range(5)]
    made = export_nnunet(cases, CLASSES, tmp_path / "liver")
    assert not any("folds" in notice for notice in made.notices)
    assert any("call the folder DatasetNNN_Name" in notice for notice in made.notices)
    assert any(notice.startswith("5 cases have no voxel size: 1 mm is written") for notice in made.notices)
    assert not any("DatasetNNN" in notice for notice in few.notices)
