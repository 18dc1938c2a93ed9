"""Annotations of pictures in JSON: COCO and LabelMe give the labels that their own tools give."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import binary_dilation, binary_erosion

from napari_dinoaugseg.case import PictureCase
from napari_dinoaugseg.case.annotations import read_annotations
from napari_dinoaugseg.case.case import UNKNOWN
from napari_dinoaugseg.case.contours import outlines
from napari_dinoaugseg.errors import LabelError
from tests.case.builders import COLOUR, pictures, save
from tests.case.test_contours import ring

SHAPE = (40, 50)


@pytest.fixture
def case(tmp_path: Path) -> PictureCase:
    for name in ("a.png", "b.jpg", "c.png"):
        save(tmp_path / "images" / name, np.resize(COLOUR, (*SHAPE, 3)).astype(np.uint8))
    return pictures(tmp_path / "images")


def classes() -> NDArray[np.uint8]:
    mask = np.where(ring(), 1, 0).astype(np.uint8)
    mask[20:30, 33:44] = 3
    return mask


def image(name: str, number: int, shape: tuple[int, int] = SHAPE) -> dict[str, Any]:
    return {"id": number, "file_name": name, "height": shape[0], "width": shape[1]}


def polygons(mask: NDArray[np.bool_]) -> list[list[float]]:
    """Return outlines as COCO wants them: x, y, …, the first pixel centred at (0.5, 0.5)."""
    return [(points[:, ::-1] + 0.5).ravel().tolist() for points in outlines(mask)]


def runs(mask: NDArray[np.bool_]) -> list[int]:
    """Return the lengths of runs in columns, outside first."""
    flat = np.concatenate([[False], mask.ravel(order="F")])
    changes = np.flatnonzero(np.diff(flat.astype(int)))
    return np.diff([0, *changes, mask.size]).tolist()


def packed(mask: NDArray[np.bool_]) -> str:
    """Pack runs into text as pycocotools does."""
    coco = pytest.importorskip("pycocotools.mask")
    return str(coco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode())


def write_coco(path: Path, annotations: Any, **change: Any) -> Path:
    content = {
        "images": [image("a.png", 11), image("folder/b.jpg", 12), image("c.png", 13)],
        "categories": [{"id": 1, "name": "polyp", "color": "#E69F00"}, {"id": 3, "name": "tool"}],
        "annotations": annotations,
    }
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({**content, **change}), encoding="utf-8")
    return path


def drawn_as(kind: str, mask: NDArray[np.bool_]) -> Any:
    if kind == "polygons":
        return polygons(mask)
    counts = runs(mask) if kind == "runs" else packed(mask)
    return {"size": list(mask.shape), "counts": counts}


@pytest.mark.parametrize("kind", ["polygons", "runs", "packed"])
def test_coco_gives_back_the_masks_that_it_was_made_of(kind: str, case: PictureCase, tmp_path: Path) -> None:
    mask = classes()
    entries = [
        {"image_id": number, "category_id": value, "segmentation": drawn_as(kind, (mask == value) & part)}
        for number, part in ((11, np.ones(SHAPE, bool)), (12, np.arange(SHAPE[1]) > 20))
        for value in (1, 3)
    ]
    path = write_coco(tmp_path / "labels" / "instances.json", entries)
    for place in (path, path.parent):
        labels = case.read_labels(place)
        assert sorted(labels) == [0, 1]
        assert np.array_equal(labels[0], mask)
        assert np.array_equal(labels[1], np.where(np.arange(SHAPE[1]) > 20, mask, 0))
    found = [(entry.number, entry.name, entry.colour) for entry in labels.segments]
    assert found == [(1, "polyp", "#e69f00"), (3, "tool", None)]
    assert labels.notices == ["1 picture without any annotation: taken as not labelled"]
    assert not case.read_labels(path, [0, 2])[2].any()


@settings(max_examples=60, deadline=None)
@given(arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=12)))
def test_packed_runs_of_pycocotools_are_read(tmp_path_factory: pytest.TempPathFactory, mask: NDArray[np.bool_]) -> None:
    from napari_dinoaugseg.case.annotations import drawn

    path = write_coco(
        tmp_path_factory.getbasetemp() / "packed" / "one.json",
        [{"image_id": 1, "category_id": 1, "segmentation": {"size": list(mask.shape), "counts": packed(mask)}}],
        images=[image("a.png", 1, mask.shape)],
    )
    found = read_annotations([path])
    assert found is not None
    assert np.array_equal(drawn(found.pictures[0], mask.shape)[0], mask)


def test_polygons_cover_what_pycocotools_covers(case: PictureCase, tmp_path: Path) -> None:
    coco = pytest.importorskip("pycocotools.mask")
    angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    points = np.column_stack([25 + 15.3 * np.cos(angles), 20 + 12.7 * np.sin(angles)]).ravel().tolist()
    path = write_coco(
        tmp_path / "one.json", [{"image_id": 11, "category_id": 1, "segmentation": [points]}], categories=[{"id": 1}]
    )
    theirs = coco.decode(coco.merge(coco.frPyObjects([points], *SHAPE)))
    ours = case.read_labels(path)[0]
    assert 550 < ours.sum() < 650
    # Their outlines take part of the border pixels, too.
    assert not (binary_erosion(theirs) & (ours == 0)).any()
    assert not (ours.astype(bool) & ~binary_dilation(theirs)).any()


def test_where_annotations_of_several_classes_overlap_the_smaller_keeps_the_pixels(
    case: PictureCase, tmp_path: Path
) -> None:
    large, small = [[0, 0, 20, 0, 20, 20, 0, 20]], [[5, 5, 9, 5, 9, 9, 5, 9]]
    path = write_coco(
        tmp_path / "one.json",
        [
            {"image_id": 11, "category_id": 3, "segmentation": small},
            {"image_id": 11, "category_id": 1, "segmentation": large},
            {"image_id": 12, "category_id": 1, "bbox": [0, 0, 3, 3]},
        ],
    )
    labels = case.read_labels(path)
    assert [(labels[0] == value).sum() for value in (1, 3)] == [400 - 16, 16]
    assert labels.notices == [
        "annotations without an outline (boxes or key points) are left out (1)",
        "2 pictures without any annotation: taken as not labelled",
        "annotations of several classes share 16 pixels: a pixel has one class here",
    ]


def _label(kind: str | None, points: list[list[float]], label: str = "polyp", **more: Any) -> dict[str, Any]:
    return {"label": label, "points": points, "shape_type": kind, **more}


def write_labelme(path: Path, shapes: list[dict[str, Any]], size: tuple[int, int] = SHAPE) -> Path:
    content = {
        "version": "5.4.1",
        "shapes": shapes,
        "imagePath": path.stem,
        "imageHeight": size[0],
        "imageWidth": size[1],
    }
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_labelme_beside_the_pictures_gives_their_labels(case: PictureCase) -> None:
    picture = io.BytesIO()
    Image.fromarray(np.eye(4, dtype=np.uint8) * 255).save(picture, "PNG")
    encoded = base64.b64encode(picture.getvalue()).decode()
    shapes = [
        _label("polygon", [[0, 0], [10, 0], [10, 10], [0, 10]], "tool"),
        _label(None, [[2, 2], [4, 2], [4, 4], [2, 4]]),
        _label("rectangle", [[30, 20], [40, 25]]),
        _label("rectangle", [[0, 38], [3, 40]], "__ignore__"),
        _label("circle", [[20, 30], [20, 34]], "tool"),
        _label("mask", [[44, 1], [47, 4]], mask=encoded),
        _label("point", [[1, 1]]),
        _label("linestrip", [[1, 1], [2, 2], [3, 3]]),
    ]
    write_labelme(case.path / "a.json", shapes)
    labels = case.read_labels(case.path)
    assert sorted(labels) == [0]
    assert [(entry.number, entry.name) for entry in labels.segments] == [(1, "polyp"), (2, "tool")]
    mask = labels[0]
    assert (mask[:10, :10] == 2).sum() == 100 - 4
    assert (mask[2:4, 2:4] == 1).all()
    assert (mask[20:25, 30:40] == 1).sum() == 50
    assert (mask[38:, :3] == UNKNOWN).sum() == 6
    assert (mask[25:36, 15:26] == 2).sum() == pytest.approx(np.pi * 16, abs=4)
    assert np.array_equal(mask[1:5, 44:48], np.eye(4))
    assert labels.notices == [
        "annotations of the type point, which encloses no area are left out (1)",
        "annotations of the type linestrip, which encloses no area are left out (1)",
        "annotations of several classes share 4 pixels: a pixel has one class here",
    ]


def test_annotations_of_stored_pixels_are_turned_with_the_picture(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    save(tmp_path / "images" / "a.jpg", np.zeros((20, 30, 3), np.uint8), exif=exif)
    case = pictures(tmp_path / "images")
    shape = [_label("rectangle", [[2, 3], [7, 5]])]
    for size in ((20, 30), (30, 20)):
        write_labelme(case.path / "a.json", shape, size)
        mask = case.read_labels(case.path)[0]
        assert mask.shape == (30, 20)
        expected = np.zeros(size)
        expected[3:5, 2:7] = 1
        assert np.array_equal(mask, np.rot90(expected, -1) if size == (20, 30) else expected)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"images": [{"id": 1}]}, "image 1: it has no file_name"),
        ({"images": [image("x.png", 11)]}, r"its pictures \(x\) are none of images"),
        ({"images": [image("a.png", 11), image("a.png", 12)]}, "it names the picture a twice"),
        ({"images": [image("a.png", 11, (7, 9))]}, r"are for 9 x 7 pixels, but it has 50 x 40"),
        ({"categories": [{"id": 1}, {"id": 1}]}, "two have the same id"),
        ({"categories": [{"id": "1"}]}, "'1' is not a whole number"),
        ({"annotations": [{"image_id": 5, "category_id": 1}]}, "nothing describes its image"),
        ({"annotations": 4}, "annotations: it is not a list"),
        ({"annotations": []}, "no picture of images has an annotated region"),
    ],
)
def test_coco_that_cannot_be_right_is_refused(
    change: dict[str, Any], reason: str, case: PictureCase, tmp_path: Path
) -> None:
    entry = {"image_id": 11, "category_id": 1, "segmentation": [[0, 0, 5, 0, 5, 5]]}
    path = write_coco(tmp_path / "one.json", **{"annotations": [entry], **change})
    with pytest.raises(LabelError, match=rf"one\.json: .*{reason}"):
        case.read_labels(path)


@pytest.mark.parametrize(
    ("segmentation", "reason"),
    [
        ([[1, 2, 3]], "its points are not pairs of numbers"),
        ([["a", "b"]], "its points are not pairs of numbers"),
        ([[float("nan"), 1, 2, 3, 4, 5]], "its points lie nowhere near a picture"),
        ([[1e300, 1, 2, 3, 4, 5]], "its points lie nowhere near a picture"),
        ({"size": [40, 50], "counts": [5, 5]}, "its runs do not fill 50 x 40 pixels"),
        ({"size": [40, 50], "counts": [-5, 2005]}, "its runs do not fill"),
        ({"size": [10**9, 10**9], "counts": [10**18]}, "runs are for 1000000000 x 1000000000 pixels"),
        ({"size": [40, 50], "counts": "\u00ff"}, "its packed runs are damaged"),
        ({"size": [40, 50], "counts": "o"}, "its packed runs are cut off"),
        ({"size": [40, 50]}, "its runs have no counts"),
        ({"counts": [1]}, "its runs have no size"),
        (4, "it is not an object"),
    ],
)
def test_a_damaged_outline_is_refused_with_its_number(
    segmentation: Any, reason: str, case: PictureCase, tmp_path: Path
) -> None:
    path = write_coco(tmp_path / "one.json", [{"image_id": 11, "category_id": 1, "segmentation": segmentation}])
    with pytest.raises(LabelError, match=rf"one\.json: .*{reason}"):
        case.read_labels(path)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"images": [], "annotations": []'])
def test_damaged_json_is_refused(content: bytes, case: PictureCase, tmp_path: Path) -> None:
    (tmp_path / "one.json").write_bytes(content)
    with pytest.raises(LabelError, match=r"one\.json: .*annotations in COCO or LabelMe format"):
        case.read_labels(tmp_path / "one.json")


def test_masks_in_a_folder_come_before_annotations(case: PictureCase, tmp_path: Path) -> None:
    path = write_coco(tmp_path / "labels" / "one.json", [])
    save(path.parent / "a.png", classes())
    labels = case.read_labels(path.parent)
    assert np.array_equal(labels[0], classes())
    assert any("1 file of other kinds in labels left out: 1 .json" in notice for notice in labels.notices)


def test_masks_of_cvat_are_read_with_the_names_of_its_table(case: PictureCase, tmp_path: Path) -> None:
    """As CVAT exports them (Segmentation mask 1.1): coloured masks of classes, and of objects beside."""
    colours = {1: (230, 159, 0), 2: (0, 114, 178)}
    mask = np.where(classes() == 3, 2, classes())
    coloured = np.zeros((*SHAPE, 3), np.uint8)
    for number, colour in colours.items():
        coloured[mask == number] = colour
    table = "# label:color_rgb:parts:actions\nbackground:0,0,0::\npolyp:230,159,0::\ntool:0,114,178::\n"
    save(tmp_path / "export" / "SegmentationClass" / "a.png", coloured)
    save(tmp_path / "export" / "SegmentationObject" / "a.png", coloured[::-1].copy())
    (tmp_path / "export" / "labelmap.txt").write_text(table)
    labels = case.read_labels(tmp_path / "export")
    assert np.array_equal(labels[0], mask)
    assert [(entry.number, entry.name) for entry in labels.segments] == [(1, "polyp"), (2, "tool")]
