"""Images in, masks out, in exactly the geometry that came in."""

from __future__ import annotations

from napari_dinoaugseg.study.array import ArrayStudy, study_from_array
from napari_dinoaugseg.study.grid import Grid, Plane, align
from napari_dinoaugseg.study.intensity import CT_WINDOWS, SliceRange, Window, choose_scale, choose_window, to_unit_rgb
from napari_dinoaugseg.study.labels import read_mask_volume
from napari_dinoaugseg.study.masks import MaskFolder, MaskOptions, read_mask_folder
from napari_dinoaugseg.study.matching import pair as match_masks
from napari_dinoaugseg.study.opening import open_study
from napari_dinoaugseg.study.pictures import PictureStudy, find_masks_beside
from napari_dinoaugseg.study.study import Slices, Study
from napari_dinoaugseg.study.volume import VolumeStudy

__all__ = [
    "CT_WINDOWS",
    "ArrayStudy",
    "Grid",
    "MaskFolder",
    "MaskOptions",
    "PictureStudy",
    "Plane",
    "SliceRange",
    "Slices",
    "Study",
    "VolumeStudy",
    "Window",
    "align",
    "choose_scale",
    "choose_window",
    "find_masks_beside",
    "match_masks",
    "open_study",
    "read_mask_folder",
    "read_mask_volume",
    "study_from_array",
    "to_unit_rgb",
]
