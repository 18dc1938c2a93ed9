"""The files that the commands and the code of the documentation name, small enough to be learnt in seconds."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import av
import nibabel as nib
import numpy as np
from PIL import Image

from napari_dinoaugseg.case import open_case
from napari_dinoaugseg.case.case import Segment
from tests.case.builders import write_dicom

SHAPE = (32, 40, 64)
AFFINE = np.array([[-1.2, 0, 0, 20], [0, -1.1, 0, 30], [0, 0, 4.0, 5], [0, 0, 0, 1.0]])
PAINTED = (20, 40, 60)
QUICK = {"input_size": 64, "width": 16, "steps": 12, "views": 1, "batch_size": 2}
"""What every preset, and settings without one, change here; what the presets are worth is measured elsewhere."""


def write_samples(folder: Path) -> None:
    """Two patients with a tube in noise, both in folders of cases, the tube, and what was painted of it."""
    i, j, k = np.indices(SHAPE)
    truth = (((i - 14) / 7) ** 2 + ((j - 18 - k / 16) / 8) ** 2 < 1).astype(np.uint8)
    painted = np.zeros_like(truth)
    painted[..., PAINTED] = truth[..., PAINTED]
    for seed, name in enumerate(("ct", "next_patient")):
        _save(folder / f"{name}.nii.gz", (noise_of(seed) + 600.0 * truth).astype(np.int16))
        for several in ("cohort", "cases"):
            (folder / several).mkdir(exist_ok=True)
            shutil.copy(folder / f"{name}.nii.gz", folder / several)
    _save(folder / "truth.nii.gz", truth)
    _save(folder / "painted.nii.gz", painted)
    (folder / "labels").mkdir()
    shutil.copy(folder / "painted.nii.gz", folder / "labels" / "ct.nii.gz")
    # The same examination as a DICOM series, what was painted as contours and for 3D Slicer.
    write_dicom(folder / "ct_series", _slices((noise_of(0) + 600.0 * truth).astype(np.int16)), step=4.0)
    series, image, drawn = open_case(folder / "ct_series"), open_case(folder / "ct.nii.gz"), _slices(painted)
    series.write_mask(folder / "plan.rtstruct.dcm", drawn.__getitem__, [Segment(1, "Aorta", "#e69f00")])
    series.write_mask(folder / "painted_series.nii.gz", drawn.__getitem__)
    shown = image.to_slices(painted)
    image.write_mask(folder / "slicer.seg.nrrd", shown.__getitem__, [Segment(1, "Aorta", "#e69f00")])
    _write_sequences(folder, truth)
    _write_pictures(folder)
    _write_video(folder)
    # What nnU-Net predicted for the second of the cases.
    (folder / "predicted").mkdir()
    _save(folder / "predicted" / "case_002.nii.gz", truth)
    description = {"labels": {"background": 0, "class 1": 1}}
    (folder / "predicted" / "dataset.json").write_text(json.dumps(description), encoding="utf-8")
    # Studies of MONAI Label: two images, and the finished labels of one.
    (folder / "studies" / "labels" / "final").mkdir(parents=True)
    for name in ("ct", "next_patient"):
        shutil.copy(folder / f"{name}.nii.gz", folder / "studies")
    shutil.copy(folder / "painted.nii.gz", folder / "studies" / "labels" / "final" / "ct.nii.gz")
    (folder / "studies" / "datastore_v2.json").write_text("{}", encoding="utf-8")
    np.savez(folder / "scan.npz", voxels=(600.0 * truth).astype(np.int16), affine=AFFINE)


def noise_of(seed: int) -> np.ndarray:
    """Noise of one patient."""
    return np.random.default_rng(seed).normal(0, 40, SHAPE)


def _slices(voxels: np.ndarray) -> np.ndarray:
    """Voxels (i, j, k) as (slice, row, column)."""
    return np.ascontiguousarray(voxels.transpose(2, 1, 0))


def _save(path: Path, voxels: np.ndarray) -> None:
    image = nib.Nifti1Image(voxels, AFFINE)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)


def _write_sequences(folder: Path, truth: np.ndarray) -> None:
    """Two patients with two sequences each, also together in a folder."""
    (folder / "scans").mkdir()
    for seed, name in enumerate(("anna_t1", "anna_t2", "next_t1", "next_t2")):
        _save(folder / f"{name}.nii.gz", (noise_of(10 + seed) + 600.0 * truth).astype(np.int16))
        shutil.copy(folder / f"{name}.nii.gz", folder / "scans")


def _write_pictures(folder: Path) -> None:
    """Pictures of a bright square each, and annotations of two of them in COCO format."""
    (folder / "pictures").mkdir()
    images, annotations = [], []
    for n in range(4):
        pixels = np.random.default_rng(n).integers(0, 60, (48, 48), dtype=np.uint8)
        pixels[8 + 4 * n : 24 + 4 * n, 10:30] += 150
        Image.fromarray(pixels).save(folder / "pictures" / f"p{n}.png")
        images.append({"id": n, "file_name": f"p{n}.png", "height": 48, "width": 48})
        square = [10, 8 + 4 * n, 30, 8 + 4 * n, 30, 24 + 4 * n, 10, 24 + 4 * n]
        annotations.append({"image_id": n, "category_id": 1, "segmentation": [square]})
    content = {"images": images, "categories": [{"id": 1, "name": "square"}], "annotations": annotations[:2]}
    (folder / "annotations.json").write_text(json.dumps(content), encoding="utf-8")


def _write_video(folder: Path) -> None:
    """A video of a bright square that moves, and masks of two of its frames."""
    (folder / "polyps").mkdir()
    with av.open(str(folder / "colonoscopy.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.height = stream.width = 48
        stream.pix_fmt = "yuv420p"
        for n in range(40):
            mask = np.zeros((48, 48), np.uint8)
            mask[4 + n // 2 : 20 + n // 2, 10:30] = 1
            if n in (0, 20):
                Image.fromarray(mask).save(folder / "polyps" / f"frame_{n:06d}.png")
            pixels = np.repeat((40 + 150 * mask)[..., np.newaxis], 3, axis=2)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
