"""Damaged label files: volumes against a sound case, and mask folders against sound pictures."""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import nibabel as nib
import nrrd
import numpy as np
import pytest
from PIL import Image

from napari_dinoaugseg.case import Case, open_case
from tests.case.builders import OBLIQUE, numbers
from tests.fuzz import test_fuzz_nifti, test_fuzz_nrrd
from tests.fuzz.harness import Files, Target, fuzz
from tests.fuzz.mutators import pick
from tests.fuzz.picture_files import GREY, bmps, damaged_picture, exif, jpegs, packed, pngs, tiff, tiffs

AFFINE = nib.affines.from_matvec(OBLIQUE @ np.diag([0.8, 1.0, 3.0]), [-10, 5, 30])
SHAPE = (4, 5, 6)
LABELS = (numbers(SHAPE) % 3).astype(np.uint8)


@cache
def _volume(kind: str) -> bytes:
    """The sound image that labels are read for."""
    if kind == "tif":
        return tiff(numbers((6, 5, 4), np.uint16), photometric="minisblack")
    image = nib.Nifti1Image(numbers(SHAPE), AFFINE)
    return image.to_bytes()


def label_volumes() -> Sequence[Files]:
    made: list[Files] = []
    for array in (LABELS, LABELS.astype(np.float32), LABELS[::-1], LABELS.astype(np.int16) * 200):
        image = nib.Nifti1Image(array, AFFINE)
        image.set_sform(AFFINE, code=1)
        image.set_qform(AFFINE, code=1)
        made += [{"labels.nii": image.to_bytes()}, {"labels.nii.gz": gzip.compress(image.to_bytes(), 9, mtime=0)}]
    scaled = nib.Nifti1Image(LABELS, AFFINE)
    scaled.header.set_slope_inter(0.5, 0)
    made.append({"labels.nii": scaled.to_bytes()})
    lps = np.diag([-1.0, -1, 1, 1]) @ AFFINE
    stream = io.BytesIO()
    place = {"space": "left-posterior-superior", "space directions": lps[:3, :3].T, "space origin": lps[:3, 3]}
    nrrd.write(stream, LABELS, {**place, "encoding": "gzip"})
    made.append({"labels.nrrd": stream.getvalue()})
    made.append({"labels.tif": tiff(LABELS.T, photometric="minisblack")})
    return made


def damage_volume(files: Files, rng: np.random.Generator) -> Files:
    ((name, data),) = files.items()
    if name == "labels.nrrd":
        return {name: test_fuzz_nrrd.damage({"image.nrrd": data}, rng)["image.nrrd"]}
    if name == "labels.tif":
        return {name: damaged_picture(name, data, rng)}
    return test_fuzz_nifti.damage(files, rng)


def check_volume(folder: Path) -> None:
    (path,) = folder.iterdir()
    kind = "tif" if path.suffix == ".tif" else "nii"
    (folder / f"image.{kind}").write_bytes(_volume(kind))
    _read(open_case(folder / f"image.{kind}"), path)


def _read(case: Case, path: Path) -> None:
    """Take what is labelled, then slices by their number."""
    labels = case.read_labels(path)
    assert labels
    for i, found in {**labels, **case.read_labels(path, list(labels)[:1])}.items():
        assert found.shape == case.slice_shape(i)
        assert found.dtype == np.uint16


def mask_folders() -> Sequence[Files]:
    """Two pictures, one of them turned, and masks in every format."""
    pictures = {"images/a.png": packed(Image.fromarray(GREY), "PNG"), "images/b.jpg": jpegs()[1]}
    binary = np.where(GREY > 60, 255, 0).astype(np.uint8)
    turned = packed(Image.fromarray(binary), "PNG", exif=exif(5))
    masks = [packed(Image.fromarray(GREY % 4), "PNG"), packed(Image.fromarray(binary), "PNG"), pngs()[2], pngs()[5]]
    made = [{**pictures, "masks/a.png": content} for content in masks]
    made += [{**pictures, "masks/a.tif": content} for content in (tiff(GREY % 3), tiff(binary.astype(np.float32)))]
    made += [{**pictures, "masks/a_mask.bmp": bmps()[2]}, {**pictures, "masks/b.tif": tiffs()[2]}]
    made += [{**pictures, "masks/a.jpg": packed(Image.fromarray(binary), "JPEG"), "masks/b_mask.png": turned}]
    return made


def damage_masks(files: Files, rng: np.random.Generator) -> Files:
    name = pick(rng, [name for name in files if name.startswith("masks")])
    return {**files, name: damaged_picture(name, files[name], rng)}


def check_masks(folder: Path) -> None:
    _read(open_case(folder / "images"), folder / "masks")


VOLUMES = Target("label volume", label_volumes, damage_volume, check_volume, cases=300)
MASKS = Target("mask folder", mask_folders, damage_masks, check_masks, cases=300)


@pytest.mark.parametrize("kind", ["VOLUMES", "MASKS"])
def test_damaged_labels_are_read_or_refused(kind: str, record_property: Callable[[str, object], None]) -> None:
    fuzz(f"{__name__}:{kind}", record_property)
