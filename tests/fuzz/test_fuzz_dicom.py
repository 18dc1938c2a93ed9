"""Damaged DICOM files: series, multi-frame files, segmentations."""

from __future__ import annotations

import io
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.uid import JPEG2000Lossless, RLELossless

from napari_dinoaugseg.case import VolumeCase, open_case, read_mask_volume
from napari_dinoaugseg.case.case import Segment
from tests.case.builders import OBLIQUE, listing, numbers, write_dicom, write_enhanced
from tests.fuzz.harness import Files, Target, fuzz
from tests.fuzz.mutators import INTEGERS, damaged, pick
from tests.fuzz.opening import open_fully

VOLUME = numbers((4, 9, 11), np.uint16)
_SEG = "mask.dcm"

_VALUES: tuple[bytes, ...] = (
    *(
        b"",
        b" ",
        b"0",
        b"-1",
        b"1",
        b"nan",
        b"inf",
        b"1e400",
        b"-0",
        b"1\\0\\0\\0\\1\\0",
        b"0\\0\\0",
        b"1\\2",
        b"0.5\\0.5",
    ),
    *(
        b"1\\0\\0\\1\\0\\0",
        b"1e30\\1e30\\1e30",
        b"9" * 20,
        b"abc",
        b"\xff\xfe\x00",
        b"MONOCHROME1",
        b"RGB",
        b"PALETTE COLOR",
    ),
    *(
        b"YBR_FULL",
        b"CT",
        b"SEG",
        b"BINARY",
        b"FRACTIONAL",
        b"LABELMAP",
        b"\x1b[31m",
        b"\\",
        b"1.2.3",
        b"X" * 70,
        b"\x00\x00",
    ),
    *(b"\x01\x00", b"\xff\xff", b"\x10\x00", b"\x20\x00", b"\x00\x00\x00\x80", b"ISO 2022 IR 87", b"\\ISO_IR 192"),
)


def _save(dataset: Dataset) -> bytes:
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def _all_items(dataset: Dataset) -> Iterator[Dataset]:
    """Yield a data set and every item of its sequences."""
    yield dataset
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value:
                yield from _all_items(item)


def _element(
    data: bytes, rng: np.random.Generator, change: Callable[[Dataset, Any, np.random.Generator], None]
) -> bytes:
    """Change one element, at any depth; a file that no longer parses is damaged as bytes instead."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            dataset = pydicom.dcmread(io.BytesIO(data))
            item = pick(rng, list(_all_items(dataset)))
            change(item, pick(rng, list(item.keys())), rng)
            return _save(dataset)
        except Exception:
            return damaged(data, rng)


def put_value(data: bytes, rng: np.random.Generator) -> bytes:
    """Put awkward bytes into an element."""

    def change(item: Dataset, tag: Any, rng: np.random.Generator) -> None:
        number = int(pick(rng, INTEGERS)) % 2**32
        value = pick(rng, (*_VALUES, number.to_bytes(4, "little"), str(number).encode()))
        item._dict[tag] = RawDataElement(tag, item[tag].VR, len(value), value, 0, False, True)

    return _element(data, rng, change)


def forget(data: bytes, rng: np.random.Generator) -> bytes:
    """Leave an element out."""
    return _element(data, rng, lambda item, tag, rng: item.__delitem__(tag))


def double(data: bytes, rng: np.random.Generator) -> bytes:
    """Repeat or drop items of a sequence."""

    def change(item: Dataset, tag: Any, rng: np.random.Generator) -> None:
        if item[tag].VR == "SQ":
            items = list(item[tag].value)
            item[tag].value = items[1:] if rng.random() < 0.5 else items * 2

    return _element(data, rng, change)


_OWN = (put_value, forget, double)


def mutate(files: Files, rng: np.random.Generator) -> Files:
    """Damage one file of a series, now and then two; or take one away."""
    made = dict(files)
    for _ in range(1 if rng.random() < 0.8 else 2):
        name = pick(rng, sorted(made))
        made[name] = damaged(made[name], rng, _OWN)
    if len(made) > 2 and rng.random() < 0.1:
        del made[pick(rng, sorted(made))]
    return made


def _built(write: Callable[[Path], None]) -> Files:
    with tempfile.TemporaryDirectory() as name:
        write(Path(name))
        return listing(Path(name))


def _compressed(syntax: str) -> Files:
    def write(folder: Path) -> None:
        for path in write_dicom(folder / "case", numbers((2, 32, 32), np.uint16)):
            dataset = pydicom.dcmread(path)
            dataset.compress(syntax)
            dataset.save_as(path)

    return _built(write)


def _two_times(folder: Path) -> None:
    def change(k: int, group: Dataset, _: Dataset) -> None:
        group.FrameContentSequence[0].TemporalPositionIndex = k // 2 + 1
        group.PlanePositionSequence[0].ImagePositionPatient = [0, 0, 3 * (k % 2)]

    write_enhanced(folder / "case" / "two.dcm", VOLUME, change=change)


@cache
def series() -> Sequence[Files]:
    """Return the folders of sound cases."""
    return [
        _built(lambda folder: _sink(write_dicom(folder / "case", VOLUME, directions=OBLIQUE[:, :2]))),
        _built(lambda folder: _sink(write_dicom(folder / "case", VOLUME[:1]))),
        _built(lambda folder: _sink(write_enhanced(folder / "case" / "frames.dcm", VOLUME, order=[2, 0, 3, 1]))),
        _built(_two_times),
        _compressed(JPEG2000Lossless),
        _compressed(RLELossless),
    ]


def _sink(_: object) -> None:
    """Take what a builder returns."""


@cache
def segmentations() -> Sequence[Files]:
    """Return sound segmentations: binary and fractional."""

    def write(folder: Path, *, fractional: bool) -> None:
        write_dicom(folder / "case", VOLUME)
        case = open_case(folder / "case")
        assert isinstance(case, VolumeCase)
        if fractional:
            case.write_confidence(folder / _SEG, lambda i: np.full(case.slice_shape(i), i % 2, np.float32))
        else:
            masks = np.random.default_rng(0).choice([0, 2, 5], size=(case.n_slices, 9, 11))
            case.write_mask(folder / _SEG, masks.__getitem__, [Segment(2, "two"), Segment(5, "five")])

    made = []
    for fractional in (False, True):
        files = _built(lambda folder, fractional=fractional: write(folder, fractional=fractional))
        made.append({_SEG: files[_SEG]})
    return made


def check_series(folder: Path) -> None:
    """Open what is there, and write a mask of it."""
    open_fully(folder / "case", folder)


@cache
def _case() -> VolumeCase:
    folder = Path(tempfile.mkdtemp())
    write_dicom(folder, VOLUME)
    case = open_case(folder)
    assert isinstance(case, VolumeCase)
    return case


def check_labels(folder: Path) -> None:
    """Read a segmentation on its own, which makes its own grid; then onto its series."""
    mask, grid = read_mask_volume(folder / _SEG)
    assert mask.shape == grid.shape
    labels = _case().read_labels(folder / _SEG, [0, 1])
    assert all(image.shape == (9, 11) for image in labels.values())


CASES = Target("DICOM series", seeds=series, mutate=mutate, check=check_series)
LABELS = Target("DICOM segmentations", seeds=segmentations, mutate=mutate, check=check_labels)


def test_damaged_series_are_read_or_refused(record_property: Callable[[str, object], None]) -> None:
    fuzz(f"{__name__}:CASES", record_property)


def test_damaged_segmentations_are_read_or_refused(record_property: Callable[[str, object], None]) -> None:
    fuzz(f"{__name__}:LABELS", record_property)
