"""Masks of pictures: whose they are, and what their pixels mean."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from napari_dinoaugseg.case import PictureCase, match_masks, open_case, read_mask_folder
from napari_dinoaugseg.case.matching import base_stems, is_mask_folder
from napari_dinoaugseg.errors import LabelError
from tests.case.builders import listing, numbers, pictures, save

SHAPE = (12, 14)
DISC = np.zeros(SHAPE, np.uint8)
DISC[3:9, 4:11] = 255
CLASSES = (numbers(SHAPE) % 4).astype(np.uint8)
SHADES = np.add.outer(np.linspace(0, 120, 60), np.linspace(0, 135, 70)).astype(np.uint8)


@pytest.fixture
def case(tmp_path: Path) -> PictureCase:
    for name in ("IMD1", "IMD2", "IMD10"):
        save(tmp_path / "images" / f"{name}.png", numbers((*SHAPE, 3), np.uint8))
    return pictures(tmp_path / "images")


@pytest.mark.parametrize(
    "name",
    [
        "IMD2",
        "imd2",
        "IMD2_lesion",
        "IMD2_Annotation",
        "IMD2-mask",
        "IMD2 mask",
        "IMD2.label",
        "IMD2_GT",
        "IMD2_seg",
        "IMD2_segmentation",
        "IMD2_groundtruth",
        "IMD2_ground_truth",
        "IMD2_lesion_mask",
        "IMD2_mask_1",
        "IMD2_seg-manual",
    ],
)
def test_a_mask_is_known_by_its_name(name: str, case: PictureCase, tmp_path: Path) -> None:
    save(tmp_path / "masks" / f"{name}.png", CLASSES)
    labels = case.read_labels(tmp_path / "masks")
    assert list(labels) == [1]  # in natural order IMD1, IMD2, IMD10
    assert labels[1].dtype == np.uint16
    assert np.array_equal(labels[1], CLASSES)


@pytest.mark.parametrize("name", ["IMD3", "IMD2mask", "XIMD2", "IMD2_left", "IMD2_maskot", "mask"])
def test_a_mask_without_a_picture_is_named(name: str, case: PictureCase, tmp_path: Path) -> None:
    save(tmp_path / "masks" / "IMD1.png", CLASSES)
    save(tmp_path / "masks" / f"{name}.png", CLASSES)
    before = listing(tmp_path)
    with pytest.raises(LabelError, match=rf"masks: {name}\.png matches no picture of images"):
        case.read_labels(tmp_path / "masks")
    assert listing(tmp_path) == before


def test_only_the_first_stray_masks_are_listed(case: PictureCase, tmp_path: Path) -> None:
    for n in range(20):
        save(tmp_path / "masks" / f"other{n}.png", CLASSES)
    with pytest.raises(LabelError, match=r"other0\.png, other1\.png, other2\.png and 17 more match no picture"):
        case.read_labels(tmp_path / "masks")


def test_several_masks_for_one_picture_are_refused(case: PictureCase, tmp_path: Path) -> None:
    save(tmp_path / "masks" / "IMD1_mask.png", CLASSES)
    save(tmp_path / "masks" / "IMD1_mask_1.png", CLASSES)
    with pytest.raises(LabelError, match="IMD1: it has several masks"):
        case.read_labels(tmp_path / "masks")


def test_the_longest_picture_name_wins(tmp_path: Path) -> None:
    for name in ("scan", "scan_gt"):
        save(tmp_path / "images" / f"x{name}.png", CLASSES)
    pairs = match_masks(["a_scan_gt", "a_scan"], ["a_scan_gt_mask", "a_scan_mask"])
    assert pairs == {"a_scan": "a_scan_mask", "a_scan_gt": "a_scan_gt_mask"}
    assert base_stems("scan_gt_mask") == ["scan_gt", "scan"]


def test_folders_pair_whichever_side_has_the_mask_words() -> None:
    assert match_masks(["IMD1", "IMD2"], ["IMD2_lesion", "IMD1_lesion"]) == {
        "IMD1": "IMD1_lesion",
        "IMD2": "IMD2_lesion",
    }
    assert match_masks(["IMD1_mask"], ["IMD1", "IMD2"]) == {"IMD1_mask": "IMD1"}
    assert match_masks(["x/a", "y/a"], ["y/a_mask", "x/a_mask"]) == {"x/a": "x/a_mask", "y/a": "y/a_mask"}
    assert match_masks(["a"], ["images/a"]) == {"a": "images/a"}
    with pytest.raises(LabelError, match="No mask matches by name"):
        match_masks(["a"], ["b"])
    with pytest.raises(LabelError, match="several pictures"):
        match_masks(["x/a", "y/a"], ["a"])


def test_names_of_mask_folders() -> None:
    for name in ("mask", "Masks", "2d_masks", "labels", "annotations", "seg", "segmentations", "groundtruth", "GT"):
        assert is_mask_folder(name), name
    for name in ("images", "train", "masked", "maskoid", "labelled", "unlabeled_images"):
        assert not is_mask_folder(name), name


def test_a_folder_that_mixes_pictures_and_masks_gives_its_masks_only(tmp_path: Path) -> None:
    for n in range(3):
        save(tmp_path / "mix" / f"case ({n}).png", numbers(SHAPE, np.uint8))
    save(tmp_path / "mix" / "case (1)_mask.png", DISC)
    case = open_case(tmp_path / "mix")
    assert case.n_slices == 3
    assert list(case.read_labels(tmp_path / "mix")) == [1]
    assert list(read_mask_folder(tmp_path / "mix")) == ["case (1)_mask"]


def test_pictures_without_any_mask_are_no_labels(case: PictureCase, tmp_path: Path) -> None:
    with pytest.raises(LabelError, match="this folder holds only pictures"):
        case.read_labels(tmp_path / "images")


def test_masks_are_found_below_the_folder_of_the_case(case: PictureCase, tmp_path: Path) -> None:
    save(tmp_path / "masks" / "IMD10.png", DISC)
    assert list(case.read_labels(tmp_path)) == [2]


def test_a_list_or_a_single_mask_is_taken(case: PictureCase, tmp_path: Path) -> None:
    one, two = save(tmp_path / "m" / "IMD1.png", DISC), save(tmp_path / "n" / "IMD2.png", DISC)
    assert list(case.read_labels([two, one])) == [0, 1]
    assert list(case.read_labels(two)) == [1]
    with pytest.raises(LabelError, match=r"labels\.nii"):
        case.read_labels(tmp_path / "labels.nii")
    (tmp_path / "labels.nii").write_bytes(b"x")
    with pytest.raises(LabelError, match="not a file of this kind"):
        case.read_labels(tmp_path / "labels.nii")


def test_stray_values_between_0_and_255_are_cut(case: PictureCase, tmp_path: Path) -> None:
    noisy = DISC.copy()
    noisy[3, 4:11] = (250, 251, 130, 127, 40, 252, 5)
    noisy[0, :3] = (1, 2, 3)
    save(tmp_path / "masks" / "IMD1.png", noisy)
    save(tmp_path / "masks" / "IMD2.png", np.zeros(SHAPE, np.uint8))
    labels = case.read_labels(tmp_path / "masks")
    assert np.array_equal(labels[0], np.where(noisy >= 128, 255, 0))
    assert set(np.unique(labels[0])) == {0, 255}
    assert not labels[1].any()  # an empty mask beside others is a labelled picture


def test_jpeg_masks_are_binary(case: PictureCase, tmp_path: Path) -> None:
    (tmp_path / "masks").mkdir()
    Image.fromarray(DISC).save(tmp_path / "masks" / "IMD1.jpg", quality=40)
    Image.fromarray(np.dstack([DISC] * 3)).save(tmp_path / "masks" / "IMD2.jpg", quality=40)
    labels = case.read_labels(tmp_path / "masks")
    for i in (0, 1):
        assert set(np.unique(labels[i])) == {0, 255}
        assert (labels[i] != DISC).mean() < 0.05


def test_equal_channels_one_bit_and_palettes_are_labels(case: PictureCase, tmp_path: Path) -> None:
    save(tmp_path / "a" / "IMD1.png", np.dstack([DISC] * 3))
    save(tmp_path / "a" / "IMD2.png", DISC > 0)
    save(tmp_path / "a" / "IMD10.png", np.dstack([DISC, DISC, DISC, np.full(SHAPE, 9, np.uint8)]))
    labels = case.read_labels(tmp_path / "a")
    assert all(np.array_equal(labels[i], DISC) for i in range(3))
    palette = Image.new("P", SHAPE[::-1])
    palette.putpalette([9, 9, 9, 200, 0, 0, 0, 200, 0, 0, 0, 200])
    palette.putdata(CLASSES.reshape(-1).tolist())
    (tmp_path / "b").mkdir()
    palette.save(tmp_path / "b" / "IMD1.png")
    assert np.array_equal(case.read_labels(tmp_path / "b")[0], CLASSES)


def test_label_numbers_are_kept(case: PictureCase, tmp_path: Path) -> None:
    many = numbers(SHAPE, np.uint16) * 7
    save(tmp_path / "masks" / "IMD1.png", many)
    assert np.array_equal(case.read_labels(tmp_path / "masks")[0], many)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.dstack([DISC, DISC, CLASSES]), r"IMD1\.png: this mask is coded in colours"),
        (SHADES, r"masks hold \d+ grey values that lie neither along edges nor in areas of one value"),
        (DISC[:-1], r"IMD1\.png: the mask is 14 x 11 pixels, but IMD1\.png is 14 x 12"),
        (np.zeros(SHAPE, np.uint8), "every mask is all background"),
    ],
)
def test_masks_that_are_no_labels_are_refused(
    mask: np.ndarray, message: str, case: PictureCase, tmp_path: Path
) -> None:
    save(tmp_path / "masks" / "IMD1.png", mask)
    with pytest.raises(LabelError, match=message):
        case.read_labels(tmp_path / "masks")


@pytest.mark.parametrize("value", [-1.0, 0.5, np.nan, 70000.0])
def test_float_masks_hold_whole_numbers_only(value: float, case: PictureCase, tmp_path: Path) -> None:
    mask = CLASSES.astype(np.float32)
    save(tmp_path / "masks" / "IMD1.tif", mask)
    assert np.array_equal(case.read_labels(tmp_path / "masks")[0], CLASSES)
    mask[0, 0] = value
    save(tmp_path / "masks" / "IMD1.tif", mask)
    with pytest.raises(LabelError, match=r"IMD1\.tif: it holds negative, fractional or too large values"):
        case.read_labels(tmp_path / "masks")


def test_255_beside_other_labels_reads_back_and_is_not_taken_for_white(case: PictureCase, tmp_path: Path) -> None:
    """Few voxels of class 1 in one picture, class 255 in another: cut at 128, class 1 would be lost without a word."""
    painted = {i: np.zeros(SHAPE, np.uint16) for i in range(3)}
    painted[0][0, 0], painted[1][:], painted[2][2:4] = 1, 255, 200
    for last in (200, 300):
        painted[2][2:4] = last
        case.write_mask(tmp_path / "out", painted.__getitem__)
        labels = case.read_labels(tmp_path / "out")
        assert all(np.array_equal(labels[i], painted[i]) for i in range(3))


def test_masks_are_8_bit_where_that_is_unambiguous(case: PictureCase, tmp_path: Path) -> None:
    for labels, dtype in (((0, 1, 254), np.uint8), ((0, 255, 255), np.uint8), ((0, 1, 255), np.uint16)):
        case.write_mask(tmp_path / "out", lambda i, labels=labels: np.full(SHAPE, labels[i]))
        for name in ("IMD1", "IMD2", "IMD10"):
            with Image.open(tmp_path / "out" / f"{name}.png") as mask:
                assert np.asarray(mask).dtype == dtype


def test_chosen_pictures_are_given_exactly(case: PictureCase, tmp_path: Path) -> None:
    save(tmp_path / "masks" / "IMD1.png", np.zeros(SHAPE, np.uint8))
    save(tmp_path / "masks" / "IMD2.png", DISC)
    assert list(case.read_labels(tmp_path / "masks", [1])) == [1]
    assert not case.read_labels(tmp_path / "masks", [0])[0].any()
    with pytest.raises(LabelError, match=r"picture 2 \(IMD10\.png\) has no mask"):
        case.read_labels(tmp_path / "masks", [0, 2])
    for wrong in (3, -1):
        with pytest.raises(LabelError, match=rf"picture {wrong} does not exist; they are numbered from 0 to 2"):
            case.read_labels(tmp_path / "masks", [wrong])
    with pytest.raises(LabelError, match="no slice is named"):
        case.read_labels(tmp_path / "masks", [])


def test_a_missing_or_empty_folder_of_masks_is_named(case: PictureCase, tmp_path: Path) -> None:
    with pytest.raises(LabelError, match="nowhere: there is no such file or folder"):
        case.read_labels(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(LabelError, match="empty: there is no mask here"):
        case.read_labels(tmp_path / "empty")


def test_a_mask_that_was_cut_off_is_named(case: PictureCase, tmp_path: Path) -> None:
    path = save(tmp_path / "masks" / "IMD1.png", DISC)
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(LabelError, match=r"IMD1\.png"):
        case.read_labels(tmp_path / "masks")
    with pytest.raises(LabelError, match=r"IMD1\.png"):
        read_mask_folder(tmp_path / "masks")


def test_what_was_written_reads_back_as_it_was_painted(case: PictureCase, tmp_path: Path) -> None:
    painted = {0: DISC, 1: np.zeros(SHAPE, np.uint8), 2: DISC[::-1]}
    case.write_mask(tmp_path / "out", painted.__getitem__)
    labels = case.read_labels(tmp_path / "out")
    assert all(np.array_equal(labels[i], painted[i]) for i in range(3))
    folder = read_mask_folder(tmp_path / "out")
    assert sorted(folder) == ["IMD1", "IMD10", "IMD2"]
    assert np.array_equal(folder["IMD1"], DISC)
