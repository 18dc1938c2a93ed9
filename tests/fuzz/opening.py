"""Opening a case the whole way: every slice's path from the file to the encoder, and a mask back."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from napari_dinoaugseg.case import Case, PictureCase, choose_window, open_case, to_unit_rgb
from napari_dinoaugseg.errors import SeveralVolumesError


def open_fully(path: Path, folder: Path, suffix: str = ".nii") -> Case:
    """Open a case, look at its first and last slice as the engine does, and write a mask that reads back.

    Args:
        path: the file or folder.
        folder: where the mask goes.
        suffix: of the mask of a volume.
    """
    case = _open(path)
    for i in {0, case.n_slices - 1}:
        pixels = case.slice(i)
        assert pixels.shape[:2] == case.slice_shape(i)
        assert np.isfinite(pixels).all()
        assert case.slice_fingerprint(i)
    assert case.fingerprint
    low, high = case.intensity_range()
    assert np.isfinite([low, high]).all()
    unit = to_unit_rgb(case.slice(0), choose_window(case))
    assert unit.min() >= 0
    assert unit.max() <= 1
    output = folder / ("masks" if isinstance(case, PictureCase) else f"mask{suffix}")
    case.check_output(output)
    case.write_mask(output, lambda i: np.zeros(case.slice_shape(i), np.uint8))
    if not isinstance(case, PictureCase):
        # An empty mask on the case's own grid fits it, whatever the header.
        labels = case.read_labels(output, [0])
        assert not labels[0].any()
    return case


def _open(path: Path) -> Case:
    try:
        return open_case(path)
    except SeveralVolumesError as error:
        return open_case(path, component=error.count - 1)
