"""Folders of pictures: every kind that can be read, links, and what is left out in words."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_dinoaugseg.case import find_masks_beside, open_case
from napari_dinoaugseg.case.files import PICTURE_SUFFIXES
from napari_dinoaugseg.errors import CaseError, LabelError
from tests.case.builders import COLOUR, GREY, numbers, pictures, save

MASK = (GREY % 3).astype(np.uint8)


# --- kinds ------------------------------------------------------------------------------------------------------------

LOSSY = {".jpg", ".jpeg", ".jpe", ".jfif", ".avif"}


@pytest.mark.parametrize("suffix", sorted(PICTURE_SUFFIXES - {".apng", ".pbm", ".pgm"}))
def test_every_kind_that_is_promised_is_read(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix.upper() if len(suffix) % 2 else suffix}"
    options: dict[str, Any] = {"lossless": True} if suffix == ".webp" else {}
    colours = COLOUR // 64 * 64 if suffix == ".gif" else COLOUR  # a palette has 256
    Image.fromarray(colours).save(path, **options)
    case = pictures(path)
    assert (case.slice(0).shape, case.is_colour, case.notices) == ((8, 10, 3), True, [])
    if suffix not in LOSSY:
        assert np.array_equal(case.slice(0), colours)
    assert pictures(tmp_path).n_slices == 1


@pytest.mark.parametrize("suffix", [".webp", ".gif", ".jp2"])
@pytest.mark.parametrize("share", [0.1, 0.6])
def test_a_picture_of_a_newer_kind_that_was_cut_off_is_named(share: float, suffix: str, tmp_path: Path) -> None:
    path = save(tmp_path / f"a{suffix}", np.random.default_rng(0).integers(0, 255, (60, 60, 3), np.uint8))
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(CaseError, match=rf"a\{suffix}"):
        open_case(tmp_path)


@pytest.mark.parametrize(("kind", "words"), [("WEBP", "a WebP picture"), ("JPEG2000", "a JPEG 2000 picture")])
def test_a_newer_kind_with_a_false_name_is_told(kind: str, words: str, tmp_path: Path) -> None:
    Image.fromarray(GREY).save(tmp_path / "a.png", format=kind)
    with pytest.raises(CaseError, match=rf"a\.png: this is {words}, not a PNG picture"):
        open_case(tmp_path)


def test_a_picture_of_a_kind_that_cannot_be_read_is_told_by_name(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    with pytest.raises(CaseError, match="this is a HEIC picture, not a PNG picture"):
        open_case(tmp_path)


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png", ".tif"])
def test_of_several_images_in_a_file_the_first_is_taken_and_said(suffix: str, tmp_path: Path) -> None:
    frames = [Image.fromarray(GREY), Image.fromarray(GREY[::-1].copy()), Image.fromarray(GREY // 2)]
    (tmp_path / "in").mkdir()
    options: dict[str, Any] = {"lossless": True} if suffix == ".webp" else {}
    frames[0].save(tmp_path / "in" / f"film{suffix}", save_all=True, append_images=frames[1:], **options)
    save(tmp_path / "in" / "one.png")
    case = pictures(tmp_path / "in")
    assert np.array_equal(case.slice(0) if case.slice(0).ndim == 2 else case.slice(0)[..., 0], GREY)
    assert len(case.notices) == 1
    assert "1 picture with several images (frames or pages), of which the first is taken: film" in case.notices[0]


def test_a_picture_in_the_opacity_is_shown_and_said(tmp_path: Path) -> None:
    save(tmp_path / "in" / "ink.png", np.dstack([np.zeros((8, 10, 3), np.uint8), GREY]))
    save(tmp_path / "in" / "photo.png", np.dstack([COLOUR, GREY]))
    save(tmp_path / "in" / "plain.png", np.dstack([COLOUR, np.full((8, 10), 255, np.uint8)]))
    case = pictures(tmp_path / "in")
    assert np.array_equal(case.slice(0), GREY)
    assert np.array_equal(case.slice(1), COLOUR)
    assert [notice.rpartition(": ")[2] for notice in case.notices] == ["ink.png", "photo.png"]


def test_no_line_of_a_library_reaches_the_person(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    save(tmp_path / "in" / "palette.png", MASK)
    palette = Image.fromarray(GREY).convert("P")
    palette.save(tmp_path / "in" / "clear.png", transparency=bytes(range(256)))
    broken = io.BytesIO()
    Image.fromarray(COLOUR).save(broken, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    (tmp_path / "in" / "exif.jpg").write_bytes(broken.getvalue())
    case = pictures(tmp_path / "in")
    assert [case.slice(i).shape[:2] for i in range(case.n_slices)] == [(8, 10)] * 3
    assert capfd.readouterr() == ("", "")


# --- what is left out -------------------------------------------------------------------------------------------------


def test_files_of_other_kinds_are_named_with_number_and_endings(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    for name in ("b.heic", "c.HEIC", "sizes.csv", "README", ".hidden.heic"):
        (tmp_path / name).write_bytes(b"x")
    (notice,) = pictures(tmp_path).notices
    assert notice == f"4 files of other kinds in {tmp_path.name} left out: 2 .heic, 1 .csv, 1 without an ending"


def test_masks_and_folders_that_are_not_taken_are_named(tmp_path: Path) -> None:
    for name in ("a", "a_mask", "masks/a", "old/b", "empty/deep/none"):
        save(tmp_path / "in" / f"{name}.png")
    (tmp_path / "in" / "empty" / "deep" / "none.png").unlink()
    assert pictures(tmp_path / "in").notices == [
        "1 file in in taken for a mask by its name (a picture needs another name): a_mask.png",
        "1 folder in in named as masks left out: masks",
        "1 folder in in left out, since pictures lie right in in: old",
    ]


def test_a_folder_without_a_readable_picture_tells_what_lies_there(tmp_path: Path) -> None:
    for n in range(3):
        (tmp_path / f"{n}.heic").write_bytes(b"x")
    with pytest.raises(CaseError, match=r"there is no image here \(3 \.heic lie here\)"):
        open_case(tmp_path)


def test_what_is_left_out_among_masks_is_named(tmp_path: Path) -> None:
    save(tmp_path / "in" / "a.png")
    save(tmp_path / "masks" / "a.png", MASK)
    (tmp_path / "masks" / "b.nii.gz").write_bytes(b"x")
    labels = pictures(tmp_path / "in").read_labels(tmp_path / "masks")
    assert labels.notices == ["1 file of other kinds in masks left out: 1 .nii.gz"]


# --- links ------------------------------------------------------------------------------------------------------------


def test_a_folder_is_walked_through_links_without_running_in_circles(tmp_path: Path) -> None:
    save(tmp_path / "store" / "x1.png")
    save(tmp_path / "store" / "x2.png", MASK)
    save(tmp_path / "far" / "c.png", GREY + 1)
    case, masks = tmp_path / "in" / "day", tmp_path / "masks"
    case.mkdir(parents=True)
    masks.mkdir()
    (case / "a.png").symlink_to(tmp_path / "store" / "x1.png")
    (case / "gone.png").symlink_to(tmp_path / "nothing.png")
    (tmp_path / "in" / "more").symlink_to(tmp_path / "far")
    (tmp_path / "in" / "again").symlink_to(tmp_path / "far")
    (tmp_path / "in" / "round").symlink_to(tmp_path / "in")
    (masks / "a.png").symlink_to(tmp_path / "store" / "x2.png")
    (masks / "round").symlink_to(masks)
    opened = pictures(tmp_path / "in")
    assert sorted(path.name for path in opened.pictures) == ["a.png", "c.png"]
    assert opened.notices == ["1 link in in that lead nowhere left out: gone.png"]
    assert np.array_equal(opened.read_labels(masks)[opened.pictures.index(case / "a.png")], MASK)


def test_a_mask_and_its_picture_may_be_links_to_one_file(tmp_path: Path) -> None:
    """As where a store keeps files of one content once."""
    save(tmp_path / "store" / "x.png", MASK)
    for folder in ("in", "masks"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.png").symlink_to(tmp_path / "store" / "x.png")
    assert np.array_equal(pictures(tmp_path / "in").read_labels(tmp_path / "masks")[0], MASK)


# --- masks beside pictures --------------------------------------------------------------------------------------------

BESIDE = {
    "a folder beside": (("images/a", "images/b"), ("masks/a",), "images", "masks"),
    "labels beside": (("images/a",), ("labels/a_label",), "images", "labels"),
    "inside, pictures in a folder": (("set/images/a",), ("set/masks/a",), "set", "set/masks"),
    "inside, pictures beside it": (("set/a",), ("set/gt/a",), "set", "set/gt"),
    "among the pictures": (("set/a", "set/b"), ("set/a_mask",), "set", "set"),
    "nnU-Net": (("imagesTr/p_0000",), ("labelsTr/p",), "imagesTr", "labelsTr"),
    "Pascal VOC": (
        ("JPEGImages/a",),
        ("SegmentationClass/a", "SegmentationObject/a"),
        "JPEGImages",
        "SegmentationClass",
    ),
    "Supervisely": (("ds/img/a",), ("ds/masks_machine/a.png", "ds/masks_human/a.png"), "ds", "ds/masks_machine"),
    "most of them": (("images/a", "images/b"), ("old_masks/a", "masks/a", "masks/b"), "images", "masks"),
}


@pytest.mark.parametrize("example", BESIDE)
def test_masks_beside_a_case_are_found_and_can_be_read(example: str, tmp_path: Path) -> None:
    images, masks, opened, place = BESIDE[example]
    for name in images:
        save(tmp_path / f"{name}.png")
    for name in masks:
        save(tmp_path / f"{name}.png", MASK)
    case = pictures(tmp_path / opened)
    assert case.n_slices == len(images)
    found = find_masks_beside(case)
    assert found == tmp_path / place
    assert np.array_equal(case.read_labels(found)[0], MASK)


def test_the_mask_beside_a_single_picture_is_found(tmp_path: Path) -> None:
    save(tmp_path / "a.png"), save(tmp_path / "ab_mask.png", MASK), save(tmp_path / "a_mask.png", MASK)
    case = pictures(tmp_path / "a.png")
    assert find_masks_beside(case) == tmp_path / "a_mask.png"
    assert np.array_equal(case.read_labels(tmp_path / "a_mask.png")[0], MASK)


def test_where_no_masks_lie_none_are_found(tmp_path: Path) -> None:
    save(tmp_path / "images" / "a.png"), save(tmp_path / "images" / "b.png"), save(tmp_path / "masks" / "c.png")
    assert find_masks_beside(pictures(tmp_path / "images")) is None
    assert find_masks_beside(pictures([tmp_path / "images" / "a.png"])) is None
    tifffile.imwrite(tmp_path / "stack.tif", numbers((3, 8, 10)), photometric="minisblack")
    assert find_masks_beside(open_case(tmp_path / "stack.tif")) is None


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".webp", ".gif", ".tif"])
def test_pictures_that_would_share_a_mask_are_refused_with_a_way_out(suffix: str, tmp_path: Path) -> None:
    save(tmp_path / "a.png"), save(tmp_path / f"a{suffix}")
    with pytest.raises(
        CaseError, match=r"has the same name, so their masks would collide\. Rename one of them; if one"
    ):
        open_case(tmp_path)


@pytest.mark.parametrize(("picture", "mask"), [("e\u0301tude", "\u00e9tude"), ("\u00c9TUDE", "e\u0301tude_mask")])
def test_accents_may_be_spelt_either_way(picture: str, mask: str, tmp_path: Path) -> None:
    save(tmp_path / "in" / f"{picture}.png"), save(tmp_path / "masks" / f"{mask}.png", MASK)
    assert list(pictures(tmp_path / "in").read_labels(tmp_path / "masks")) == [0]


def labels_of(root: Path, images: list[str], masks: dict[str, np.ndarray]) -> Any:
    for name in images:
        save(root / "in" / f"{name}.png")
    for name, mask in masks.items():
        save(root / "masks" / f"{name}.png", mask)
    return pictures(root / "in").read_labels(root / "masks")


@pytest.mark.parametrize(
    ("images", "mask", "way"),
    [
        (["pat_000_0000", "pat_001_0000"], "pat_001", "nnU-Net"),
        (["fr0", "fr1"], "fr1.png", "Supervisely"),
        (["fr0", "fr1"], "FR1.JPG", "Supervisely"),
        (["fr_0", "fr_1"], "fr_1_mask.webp", "Supervisely"),
    ],
)
def test_the_ways_in_which_tools_name_masks_are_matched_and_said(
    images: list[str], mask: str, way: str, tmp_path: Path
) -> None:
    labels = labels_of(tmp_path, images, {mask: MASK})
    assert list(labels) == [1]
    assert f"1 mask matched in the way of {way}" in labels.notices[0]


def test_a_plain_name_wins_over_the_way_of_a_tool(tmp_path: Path) -> None:
    labels = labels_of(tmp_path, ["a", "a_0001"], {"a": MASK, "a_0001": MASK})
    assert (list(labels), labels.notices) == ([0, 1], [])


def test_several_channels_of_a_case_are_refused(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match=r"p: this mask fits several pictures \(p_0000, p_0001\). Keep one channel"):
        labels_of(tmp_path, ["p_0000", "p_0001"], {"p": MASK})


def task(number: int, tag: str = "polyp", annotation: int = 1, part: int = 0) -> str:
    return f"task-{number}-annotation-{annotation}-by-1-tag-{tag}-{part}"


ONE, OTHER = np.zeros((8, 10), np.uint8), np.zeros((8, 10), np.uint8)
ONE[1:4, 1:4], OTHER[5:7, 5:9] = 255, 255


@pytest.mark.parametrize(("tasks", "found"), [((1, 3), [0, 2]), ((2,), [1]), ((41, 42, 43), [0, 1, 2])])
def test_tasks_of_label_studio_are_counted_off_and_said(
    tasks: tuple[int, ...], found: list[int], tmp_path: Path
) -> None:
    labels = labels_of(tmp_path, ["x1", "x2", "x10"], {task(number): ONE for number in tasks})
    assert list(labels) == found
    assert [segment.name for segment in labels.segments] == ["polyp"]
    assert f"task {tasks[-1]} to {['x1', 'x2', 'x10'][found[-1]]}" in labels.notices[0]


@pytest.mark.parametrize("tasks", [(41, 42), (41, 42, 44), (0, 1), (1, 2, 3, 4)])
def test_tasks_that_cannot_be_counted_off_are_refused(tasks: tuple[int, ...], tmp_path: Path) -> None:
    with pytest.raises(LabelError, match=r"hold only the number of the task, .*Rename each mask after its picture"):
        labels_of(tmp_path, ["x1", "x2", "x3"], {task(number): ONE for number in tasks})


def test_classes_of_label_studio_lie_in_files_of_their_own(tmp_path: Path) -> None:
    masks = {task(1, "polyp"): ONE, task(1, "polyp", part=1): OTHER, task(2, "needle"): OTHER, task(2, "polyp"): ONE}
    labels = labels_of(tmp_path, ["a", "b"], masks)
    assert np.array_equal(labels[0], 2 * ((ONE > 0) | (OTHER > 0)))
    assert np.array_equal(labels[1], 2 * (ONE > 0) + (OTHER > 0))
    assert [(segment.number, segment.name) for segment in labels.segments] == [(1, "needle"), (2, "polyp")]


@pytest.mark.parametrize(
    ("masks", "says"),
    [
        ({task(1, "polyp"): ONE, task(1, "needle"): ONE}, "it overlaps task-1-.*a pixel has one class only"),
        ({task(1, annotation=1): ONE, task(1, annotation=2): ONE}, "several annotations"),
    ],
)
def test_parts_of_label_studio_that_contradict_each_other_are_refused(
    masks: dict[str, np.ndarray], says: str, tmp_path: Path
) -> None:
    with pytest.raises(LabelError, match=says):
        labels_of(tmp_path, ["a"], masks)
