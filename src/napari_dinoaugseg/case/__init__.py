"""Read images and write masks in exactly their geometry."""

from __future__ import annotations

from napari_dinoaugseg.case.array import ArrayCase, case_from_array
from napari_dinoaugseg.case.case import Case, Slices
from napari_dinoaugseg.case.geometry import Grid, Plane, align
from napari_dinoaugseg.case.intensity import CT_WINDOWS, SliceRange, Window, choose_scale, choose_window, to_unit_rgb
from napari_dinoaugseg.case.labels import read_mask_volume
from napari_dinoaugseg.case.masks import MaskFolder, MaskOptions, read_mask_folder
from napari_dinoaugseg.case.matching import pair as match_masks
from napari_dinoaugseg.case.opening import open_case
from napari_dinoaugseg.case.pictures import PictureCase, find_masks_beside
from napari_dinoaugseg.case.volume import VolumeCase

__all__ = [
    "CT_WINDOWS",
    "ArrayCase",
    "Case",
    "Grid",
    "MaskFolder",
    "MaskOptions",
    "PictureCase",
    "Plane",
    "SliceRange",
    "Slices",
    "VolumeCase",
    "Window",
    "align",
    "case_from_array",
    "choose_scale",
    "choose_window",
    "find_masks_beside",
    "match_masks",
    "open_case",
    "read_mask_folder",
    "read_mask_volume",
    "to_unit_rgb",
]
