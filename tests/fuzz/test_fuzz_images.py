"""Damaged images and labels of every format: a case is opened the whole way, from file to a mask that reads back."""

from __future__ import annotations

import gzip
import io
import json
import sys
import tempfile
import warnings
import zlib
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import nibabel as nib
import nrrd
import numpy as np
import pydicom
import pytest
import tifffile
from PIL import Image
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.uid import JPEG2000Lossless

from napari_dinoaugseg.case import Case, PictureCase, choose_window, open_case, read_mask_volume, to_unit_rgb
from napari_dinoaugseg.case.case import Segment
from napari_dinoaugseg.errors import SeveralVolumesError
from tests.case.builders import OBLIQUE, listing, numbers, write_dicom, write_enhanced
from tests.fuzz.harness import Files, Target, fuzz
from tests.fuzz.mutators import INTEGERS, damaged, pick, write_number

AFFINE = nib.affines.from_matvec(OBLIQUE @ np.diag([0.8, 1.0, 3.0]), [-10, 5, 30])
GREY, COLOUR = numbers((9, 13), np.uint8), numbers((9, 13, 3), np.uint8)
SLICES = numbers((4, 9, 11), np.uint16)
STRANGER = "stranger"  # lies beside an image, and must not be read whatever the image says


# --- opening --------------------------------------------------------------------------------------------------------


def open_fully(path: Path, folder: Path, suffix: str = ".nii") -> None:
    """Open a case, look at its first and last slice as the engine does, and write a mask that reads back."""
    try:
        case = open_case(path)
    except SeveralVolumesError as error:
        case = open_case(path, component=error.count - 1)
    for i in {0, case.n_slices - 1}:
        pixels = case.slice(i)
        assert pixels.shape[:2] == case.slice_shape(i)
        assert np.isfinite(pixels).all()
        assert case.slice_fingerprint(i)
    assert case.fingerprint
    assert np.isfinite(case.intensity_range()).all()
    unit = to_unit_rgb(case.slice(0), choose_window(case))
    assert 0 <= unit.min() <= unit.max() <= 1
    output = folder / ("masks" if isinstance(case, PictureCase) else f"mask{suffix}")
    case.check_output(output)
    case.write_mask(output, lambda i: np.zeros(case.slice_shape(i), np.uint8))
    if not isinstance(case, PictureCase):
        assert not case.read_labels(output, [0])[0].any()


def check_image(folder: Path) -> None:
    """Open the only image, and no other file that it may name."""
    (path,) = folder.iterdir()
    (folder / STRANGER).write_bytes(bytes(range(240)))
    opened = _watched()
    opened.clear()
    open_fully(path, folder, {".nrrd": ".nrrd", ".tif": ".tif"}.get(path.suffix, ".nii"))
    others = [name for name in opened if STRANGER in name or "passwd" in name]
    assert not others, others


@cache
def _watched() -> list[str]:
    """The names of all files that this process opens from the first call on."""
    opened: list[str] = []
    sys.addaudithook(lambda event, arguments: opened.append(str(arguments[0])) if event == "open" else None)
    return opened


def read(case: Case, path: Path) -> None:
    """Read what is labelled, then a slice by its number."""
    labels = case.read_labels(path)
    assert labels
    for i, found in {**labels, **case.read_labels(path, list(labels)[:1])}.items():
        assert found.shape == case.slice_shape(i)
        assert found.dtype == np.uint16


# --- damage that a format needs: without it nearly every file ends at the same checksum or the same first line --------


def damage_gzip(data: bytes, rng: np.random.Generator) -> bytes:
    """Damage what is packed, and now and then let 64 MiB of zeros follow it."""
    data = gzip.compress(damaged(gzip.decompress(data), rng, (write_number,)), 1, mtime=0)
    return data + gzip.compress(bytes(2**26), 9, mtime=0) if rng.random() < 0.02 else data


def damage_png(data: bytes, rng: np.random.Generator) -> bytes:
    """Damage the chunks and give them right checksums again."""
    data = damaged(data, rng, (write_number,), share=0.3)
    sealed, place = data[:8], 8
    while place + 12 <= len(data):
        end = place + 8 + int.from_bytes(data[place : place + 4], "big")
        chunk = data[place:end]
        sealed, place = sealed + chunk + zlib.crc32(chunk[4:]).to_bytes(4, "big"), end + 4
    return sealed + data[place:]


def damage_nrrd(data: bytes, rng: np.random.Generator) -> bytes:
    """Put an awkward word into the header, or a line that names another file."""
    if rng.random() < 0.3:
        return damaged(data, rng)
    head, _, body = data.partition(b"\n\n")
    lines = head.split(b"\n")
    place = int(rng.integers(1, len(lines)))
    name, _, value = lines[place].partition(b": ")
    choice = rng.random()
    if choice < 0.2:
        line = pick(rng, (f"data file: {STRANGER}", f"datafile:= ./{STRANGER}", "Data File: /etc/passwd"))
        lines.insert(place, line.encode())
        body = body if rng.random() < 0.5 else b""
    elif choice < 0.3:
        del lines[place]
    else:
        words = value.split(b" ")
        odd = (str(pick(rng, INTEGERS)), "nan", "1e400", "none", "gzip", "(1,0)", "(nan,0,0)", "\x1b[31m", "double", "")
        words[int(rng.integers(len(words)))] = pick(rng, odd).encode()
        lines[place] = name + b": " + b" ".join(words)
    return b"\n".join(lines) + b"\n\n" + body


def damage_dicom(data: bytes, rng: np.random.Generator) -> bytes:
    """Change or leave out one element at any depth; a file that no longer parses is damaged as bytes."""
    if rng.random() < 0.3:
        return damaged(data, rng)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            dataset = pydicom.dcmread(io.BytesIO(data))
            item = pick(rng, list(_items(dataset)))
            tag = pick(rng, list(item.keys()))
            if rng.random() < 0.25:
                del item[tag]
            else:
                odd = (
                    b"",
                    b"0",
                    b"-1",
                    b"nan",
                    b"1e400",
                    b"1\\2",
                    b"1\\0\\0\\0\\1\\0",
                    b"0\\0\\0",
                    b"RGB",
                    b"\x1b[31m",
                )
                value = pick(rng, (*odd, str(pick(rng, INTEGERS)).encode(), rng.bytes(4), b"\xff\xff", b"9" * 20))
                item._dict[tag] = RawDataElement(tag, item[tag].VR, len(value), value, 0, False, True)
            return _saved(dataset)
        except Exception:  # pydicom refuses damage in many ways
            return damaged(data, rng)


def _items(dataset: Dataset) -> Iterable[Dataset]:
    yield dataset
    for element in dataset:
        for item in element.value if element.VR == "SQ" else ():
            yield from _items(item)


def _saved(dataset: Dataset) -> bytes:
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


_DAMAGE = {".gz": damage_gzip, ".png": damage_png, ".nrrd": damage_nrrd, ".dcm": damage_dicom}


def damage(files: Files, rng: np.random.Generator) -> Files:
    """Damage one file of a case; of one with masks, a mask. A series may lose a file."""
    name = pick(rng, [name for name in files if name.startswith("masks")] or sorted(files))
    if len(files) > 3 and rng.random() < 0.05:
        return {other: data for other, data in files.items() if other != name}
    change = _DAMAGE.get(name[name.rindex(".") :]) or (lambda data, rng: damaged(data, rng, (write_number,)))
    return {**files, name: change(files[name], rng)}


# --- sound files ----------------------------------------------------------------------------------------------------


def _nifti(array: np.ndarray, kind: Any = nib.Nifti1Image, **header: Any) -> bytes:
    image = kind(array, AFFINE, **header)
    image.set_sform(AFFINE, code=2)
    image.set_qform(AFFINE, code=1)
    return bytes(image.to_bytes())


def _nrrd(array: np.ndarray, **fields: Any) -> bytes:
    lps = np.diag([-1.0, -1, 1, 1]) @ AFFINE
    place = {"space": "left-posterior-superior", "space directions": lps[:3, :3].T, "space origin": lps[:3, 3]}
    stream = io.BytesIO()
    nrrd.write(stream, array, {**place, **fields})
    return stream.getvalue()


def _tiff(array: np.ndarray, **options: Any) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, array, **options)
    return stream.getvalue()


def _picture(image: Image.Image, kind: str, turned: int = 1, **options: Any) -> bytes:
    exif = Image.Exif()
    exif[274] = turned
    stream = io.BytesIO()
    image.save(stream, kind, **({"exif": exif} if turned != 1 else {}), **options)
    return stream.getvalue()


def niftis() -> list[Files]:
    colours = np.ascontiguousarray(numbers((4, 3, 2, 3), np.uint8)).view([("R", "u1"), ("G", "u1"), ("B", "u1")])
    big = nib.Nifti1Header(endianness=">")
    plain = [_nifti(numbers((4, 5, 6))), _nifti(numbers((3, 4, 2, 3), np.float32)), _nifti(colours[..., 0])]
    plain += [_nifti(numbers((7, 5), np.float64), nib.Nifti2Image), _nifti(numbers((4, 5, 3)), header=big)]
    return [{"image.nii": data} for data in plain] + [{"image.nii.gz": gzip.compress(data)} for data in plain[:2]]


def nrrds() -> list[Files]:
    made = [_nrrd(numbers((4, 5, 6)), encoding=encoding) for encoding in ("raw", "gzip", "bzip2", "ascii")]
    return [{"image.nrrd": data} for data in made]


def pictures() -> list[Files]:
    grey, colour, stack = Image.fromarray(GREY), Image.fromarray(COLOUR), numbers((3, 9, 13), np.uint16)
    made = [{"image.png": _picture(image, "PNG")} for image in (grey, colour, grey.convert("LA"), colour.quantize(5))]
    made += [{"image.jpg": _picture(grey, "JPEG")}, {"image.jpg": _picture(colour, "JPEG", 5)}]
    made += [{"image.bmp": _picture(image, "BMP")} for image in (colour, grey.convert("1"))]
    tiffs = [_tiff(GREY), _tiff(stack[0], byteorder=">"), _tiff(GREY, bigtiff=True), _tiff(stack, imagej=True)]
    tiffs += [_tiff(COLOUR, photometric="rgb", compression=name) for name in ("zlib", "lzw", "jpeg")]
    tiffs += [_tiff(stack, photometric="minisblack"), _tiff(numbers((40, 40), np.float32), tile=(16, 16))]
    return made + [{"image.tif": data} for data in tiffs]


def _built(write: Callable[[Path], object]) -> Files:
    with tempfile.TemporaryDirectory() as name:
        write(Path(name))
        return {path if path.endswith(".dcm") else f"{path}.dcm": data for path, data in listing(Path(name)).items()}


def _compressed(folder: Path) -> None:
    for path in write_dicom(folder / "case", numbers((2, 32, 32), np.uint16)):
        dataset = pydicom.dcmread(path)
        dataset.compress(JPEG2000Lossless)
        dataset.save_as(path)


def series() -> list[Files]:
    return [
        _built(lambda folder: write_dicom(folder / "case", SLICES, directions=OBLIQUE[:, :2])),
        _built(lambda folder: write_enhanced(folder / "case" / "frames.dcm", SLICES, order=[2, 0, 3, 1])),
        _built(_compressed),
    ]


def segmentations() -> list[Files]:
    def binary(folder: Path) -> None:
        masks = np.random.default_rng(0).choice([0, 2, 5], size=SLICES.shape)
        _case().write_mask(folder / "mask.dcm", masks.__getitem__, [Segment(2, "two"), Segment(5, "five")])

    def fractional(folder: Path) -> None:
        _case().write_confidence(folder / "mask.dcm", lambda i: np.full(SLICES.shape[1:], i % 2, np.float32))

    return [_built(binary), _built(fractional)]


@cache
def _case() -> Any:
    folder = Path(tempfile.mkdtemp())
    write_dicom(folder, SLICES)
    return open_case(folder)


def check_segmentation(folder: Path) -> None:
    """Read a segmentation on its own grid, then onto its series."""
    mask, grid = read_mask_volume(folder / "mask.dcm")
    assert mask.shape == grid.shape
    read(_case(), folder / "mask.dcm")


def structures() -> list[Files]:
    """A structure set as we write it, with a hole, and one with what others write: nested and open contours, points."""

    def ours(folder: Path) -> None:
        masks = np.random.default_rng(0).choice([0, 2, 5], size=SLICES.shape)
        masks[:, 2:7, 2:7], masks[:, 4, 4] = 2, 0
        _case().write_mask(folder / "mask.rtstruct.dcm", masks.__getitem__, [Segment(2, "two"), Segment(5, "five")])

    def theirs(folder: Path) -> None:
        ours(folder)
        dataset = pydicom.dcmread(folder / "mask.rtstruct.dcm")
        first, second, third, *_ = dataset.ROIContourSequence[0].ContourSequence
        second.ContourData, second.NumberOfContourPoints = first.ContourData, first.NumberOfContourPoints
        third.ContourGeometricType, first.ContourGeometricType = "POINT", "CLOSEDPLANAR_XOR"
        dataset.ROIContourSequence[1].ROIDisplayColor = [1, 2, 3]
        dataset.save_as(folder / "mask.rtstruct.dcm")

    return [_built(ours), _built(theirs)]


def check_structures(folder: Path) -> None:
    """Read a structure set onto its series."""
    read(_case(), folder / "mask.rtstruct.dcm")


def labels() -> list[Files]:
    """Label volumes for a NIfTI image, and masks for pictures, one of which is turned."""
    image, classes = _nifti(numbers((4, 5, 6))), (numbers((4, 5, 6)) % 3).astype(np.uint8)
    volumes = {
        "masks.nii": _nifti(classes),
        "masks.nii.gz": gzip.compress(_nifti(classes)),
        "masks.nrrd": _nrrd(classes),
    }
    made: list[Files] = [{"image.nii": image, name: data} for name, data in volumes.items()]
    case = {
        "images/a.png": _picture(Image.fromarray(GREY), "PNG"),
        "images/b.jpg": _picture(Image.fromarray(COLOUR), "JPEG", 5),
    }
    binary = Image.fromarray(np.where(GREY > 60, 255, 0).astype(np.uint8))
    made += [{**case, "masks/a.png": _picture(binary, "PNG")}, {**case, "masks/b.png": _picture(binary, "PNG", 5)}]
    made += [{**case, name: data} for name, data in _annotations()]
    made += [{**case, "masks/a.tif": _tiff(GREY % 3)}, {**case, "masks/a_mask.bmp": _picture(binary, "BMP")}]
    return made


def _annotations() -> list[tuple[str, bytes]]:
    """Annotations of a picture in COCO format, with polygons, runs and packed runs, and in that of LabelMe."""
    rows, columns = GREY.shape
    size = {"size": [rows, columns], "counts": [20, 9, rows * columns - 29]}
    outlines = ([[1, 1, 8, 1, 8, 6]], size, {**size, "counts": "d09h2"})
    entries = [{"image_id": 1, "category_id": 2, "segmentation": outline} for outline in outlines]
    image = {"id": 1, "file_name": "a.png", "height": rows, "width": columns}
    coco = {"images": [image], "categories": [{"id": 2, "name": "two"}], "annotations": entries[:2]}
    shapes = [{"label": "x", "points": [[1, 1], [8, 6]], "shape_type": kind} for kind in ("rectangle", "circle")]
    labelme = {"shapes": shapes, "imageHeight": rows, "imageWidth": columns}
    packed = {**coco, "annotations": entries[2:]}
    named = (("masks.json", coco), ("masks.json", packed), ("masks/a.json", labelme))
    return [(name, json.dumps(content).encode()) for name, content in named]


def check_labels(folder: Path) -> None:
    (masks,) = folder.glob("masks*")
    (image,) = (path for path in folder.iterdir() if path != masks)
    read(open_case(image), masks)


NIFTI = Target("nifti", niftis, damage, check_image, own=True)
NRRD = Target("nrrd", nrrds, damage, check_image, own=True)
PICTURES = Target("pictures", pictures, damage, check_image, own=True)
SERIES = Target("DICOM series", series, damage, lambda folder: open_fully(folder / "case", folder), cases=75, own=True)
SEGMENTATIONS = Target("DICOM segmentations", segmentations, damage, check_segmentation, cases=75, own=True)
STRUCTURES = Target("DICOM structure sets", structures, damage, check_structures, cases=50, own=True)
LABELS = Target("labels", labels, damage, check_labels, own=True)


@pytest.mark.parametrize("kind", ["NIFTI", "NRRD", "PICTURES", "SERIES", "SEGMENTATIONS", "STRUCTURES", "LABELS"])
def test_damaged_images_and_labels_are_read_or_refused(kind: str, record_property: Callable[[str, object], None]):
    fuzz(f"{__name__}:{kind}", record_property)
