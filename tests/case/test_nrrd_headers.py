"""NRRD headers that point elsewhere, skip, or claim more than there is."""

from __future__ import annotations

import bz2
import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_dinoaugseg.case import VolumeCase, open_case
from napari_dinoaugseg.errors import CaseError
from tests.case.builders import numbers

ARRAY = numbers((4, 5, 6))
AXES = "(1,0,0) (0,1,0) (0,0,1)"
PACKERS = {"gzip": gzip.compress, "bzip2": bz2.compress, "raw": bytes}


def write(path: Path, body: bytes, **fields: Any) -> Path:
    header = {"type": "short", "dimension": 3, "sizes": "4 5 6", "endian": "little", "encoding": "raw", **fields}
    lines = ["NRRD0004", *(f"{key.replace('_', ' ')}: {value}" for key, value in header.items())]
    path.write_bytes("\n".join(lines).encode() + b"\n\n" + body)
    return path


def voxels(path: Path) -> np.ndarray:
    case = open_case(path)
    assert isinstance(case, VolumeCase)
    return case.restore(np.stack([case.slice(i) for i in range(case.n_slices)]))


def test_a_space_with_an_accent_does_not_keep_a_mask_from_being_written(tmp_path: Path) -> None:
    path = write(tmp_path / "image.nrrd", ARRAY.tobytes("F"), space="gauche-postérieur", space_directions=AXES)
    case = open_case(path)
    case.write_mask(tmp_path / "mask.nrrd", lambda i: np.ones(case.slice_shape(i), np.uint8))
    assert case.read_labels(tmp_path / "mask.nrrd", [0])[0].all()


@pytest.mark.parametrize("field", ["data_file", "datafile", "Data_File", "DATAFILE"])
@pytest.mark.parametrize("value", ["other.raw", "LIST\nother.raw", "%s.raw 1 1 1"])
@pytest.mark.parametrize("encoding", ["raw", "gzip"])
def test_no_other_file_is_ever_read(field: str, value: str, encoding: str, tmp_path: Path) -> None:
    body = PACKERS[encoding](ARRAY.tobytes("F"))
    (tmp_path / "other.raw").write_bytes(body)
    path = write(tmp_path / "image.nrrd", body, encoding=encoding, **{field: value})
    with pytest.raises(CaseError, match=r"image\.nrrd: (a detached NRRD header is not supported|cannot be read)"):
        open_case(path)


@pytest.mark.parametrize("encoding", ["raw", "gzip", "bzip2"])
@pytest.mark.parametrize(("lines", "skip"), [(0, 0), (2, 0), (0, 7), (1, 7), (1, -1)])
def test_what_lies_in_front_of_the_voxels_is_skipped(lines: int, skip: int, encoding: str, tmp_path: Path) -> None:
    """Lines in front of what is packed, bytes in front of what was unpacked."""
    body = b"comment\n" * lines + PACKERS[encoding](b"x" * abs(7 if skip < 0 else skip) + ARRAY.tobytes("F"))
    path = write(tmp_path / "image.nrrd", body, encoding=encoding, line_skip=lines, byte_skip=skip)
    assert np.array_equal(voxels(path), ARRAY)


@pytest.mark.parametrize("encoding", ["raw", "gzip"])
def test_more_lines_to_skip_than_there_are_is_refused(encoding: str, tmp_path: Path) -> None:
    path = write(tmp_path / "image.nrrd", ARRAY.tobytes("F"), encoding=encoding, line_skip=10**15)
    with pytest.raises(CaseError, match=r"image\.nrrd: its header skips more lines than the file has"):
        open_case(path)


@pytest.mark.parametrize("encoding", ["gzip", "bzip2"])
@pytest.mark.parametrize(("size", "words"), [(238, "Size of the data"), (242, "more than the 240 bytes")])
def test_a_packed_file_of_another_size_than_its_header_announces_is_refused(
    size: int, words: str, encoding: str, tmp_path: Path
) -> None:
    path = write(tmp_path / "image.nrrd", PACKERS[encoding](bytes(size)), encoding=encoding)
    with pytest.raises(CaseError, match=rf"image\.nrrd: cannot be read as a NRRD file \(.*{words}"):
        open_case(path)


def test_sizes_beyond_the_memory_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "image.nrrd", ARRAY.tobytes("F"), sizes="1000000 1000000 6")
    with pytest.raises(CaseError, match=r"image\.nrrd: its header announces 6e\+03 GB of pixels"):
        open_case(path)


def test_a_flipped_bit_in_a_packed_file_is_noticed(tmp_path: Path) -> None:
    body = bytearray(gzip.compress(ARRAY.tobytes("F")))
    body[-6] ^= 1
    with pytest.raises(CaseError, match=r"image\.nrrd: cannot be read as a NRRD file"):
        open_case(write(tmp_path / "image.nrrd", bytes(body), encoding="gzip"))


def test_text_that_is_no_number_is_refused(tmp_path: Path) -> None:
    body = b"1 2 three " + b"4 " * 117
    with pytest.raises(CaseError, match=r"image\.nrrd: cannot be read as a NRRD file"):
        open_case(write(tmp_path / "image.nrrd", body, encoding="ascii"))


def test_bytes_of_a_header_do_not_reach_the_terminal(tmp_path: Path) -> None:
    (tmp_path / "image.nrrd").write_bytes(b"NRRD\x1b[2J\x0704\n\n")
    with pytest.raises(CaseError) as caught:
        open_case(tmp_path / "image.nrrd")
    assert str(caught.value).isprintable()


def test_centers_are_kept_under_their_other_name(tmp_path: Path) -> None:
    case = open_case(write(tmp_path / "image.nrrd", ARRAY.tobytes("F"), centers="cell node ???"))
    case.write_mask(tmp_path / "mask.nrrd", lambda i: np.ones(case.slice_shape(i), np.uint8))
    assert b"\ncenterings: cell node ???\n" in (tmp_path / "mask.nrrd").read_bytes()


@pytest.mark.parametrize("fields", [{"labels": '"x"'}, {"kinds": "domain"}, {"centers": "cell"}, {"units": '"mm"'}])
def test_a_list_shorter_than_the_axes_is_refused(fields: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(CaseError, match=r"image\.nrrd: cannot be read as a NRRD file"):
        open_case(write(tmp_path / "image.nrrd", ARRAY.tobytes("F"), **fields))
