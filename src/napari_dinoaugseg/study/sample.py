"""The sample study: a T1 brain template with its grey and white matter, which nilearn carries (ICBM 152, 2009)."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from napari_dinoaugseg.errors import StudyError
from napari_dinoaugseg.study.grid import Grid
from napari_dinoaugseg.study.volume import VolumeStudy
from napari_dinoaugseg.study.voxels import Voxels

GREY_MATTER, WHITE_MATTER = 1, 2
CLASS_NAMES = {GREY_MATTER: "grey matter", WHITE_MATTER: "white matter"}
LABELLED_SLICES = (20, 46, 72, 98, 124)
"""Axial slices that the demo labels: evenly spread over the 140 of the sample."""

# The cerebrum, with a margin of 8 voxels; below and above lie 49 slices with little or no brain.
_CROP = (slice(19, 179), slice(20, 216), slice(10, 150))


@dataclass(frozen=True)
class BrainSample:
    """The template at 1 mm, 160 x 196 x 140 voxels.

    Attributes:
        image: T1 contrast, uint8.
        tissue: uint8, 0 background, 1 grey matter, 2 white matter: where its probability is at least one half.
    """

    image: nib.Nifti1Image
    tissue: nib.Nifti1Image


def brain_sample() -> BrainSample:
    """Load the sample from the installed nilearn; nothing is downloaded.

    Raises:
        StudyError: nilearn is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            from nilearn import datasets
    except ImportError as error:
        msg = 'The sample study comes with nilearn, which is not installed. Run: pip install "napari-dinoaugseg[demo]"'
        raise StudyError(msg) from error
    image = datasets.load_mni152_template(resolution=1).slicer[_CROP]
    grey = datasets.load_mni152_gm_template(resolution=1).slicer[_CROP].get_fdata(dtype=np.float32)
    white = datasets.load_mni152_wm_template(resolution=1).slicer[_CROP].get_fdata(dtype=np.float32)
    tissue = np.zeros(grey.shape, np.uint8)
    tissue[grey >= 0.5] = GREY_MATTER
    tissue[white >= 0.5] = WHITE_MATTER
    pixels = np.round(image.get_fdata(dtype=np.float32) * 255).astype(np.uint8)
    return BrainSample(_nifti(pixels, image), _nifti(tissue, image))


def sample_study() -> VolumeStudy:
    """The image of the sample as a study, without a file on the disk: axial slices, masks with its own affine.

    Raises:
        StudyError: nilearn is not installed.
    """
    image = brain_sample().image
    shape = (int(image.shape[0]), int(image.shape[1]), int(image.shape[2]))
    voxels = Voxels(
        path=Path("brain template"),
        files=[],
        format="nifti",
        stored=np.asarray(image.dataobj),
        grid=Grid(shape, np.asarray(image.affine, dtype=np.float64)),
        file_shape=shape,
        modality="MR",
        header=image.header,
    )
    return VolumeStudy(voxels)


def _nifti(voxels: np.ndarray[Any, np.dtype[np.uint8]], like: nib.Nifti1Image) -> nib.Nifti1Image:
    result = nib.Nifti1Image(voxels, like.affine)
    result.header.set_xyzt_units("mm")
    return result
