"""Opening a study the whole way: every slice's path from the file to the encoder, and a mask back."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from napari_dinoaugseg.errors import SeveralVolumesError
from napari_dinoaugseg.study import PictureStudy, Study, choose_window, open_study, to_unit_rgb


def open_fully(path: Path, folder: Path, suffix: str = ".nii") -> Study:
    """Open a study, look at its first and last slice as the engine does, and write a mask that reads back.

    Args:
        path: the file or folder.
        folder: where the mask goes.
        suffix: of the mask of a volume.
    """
    study = _open(path)
    for i in {0, study.n_slices - 1}:
        pixels = study.slice(i)
        assert pixels.shape[:2] == study.slice_shape(i)
        assert np.isfinite(pixels).all()
        assert study.slice_fingerprint(i)
    assert study.fingerprint
    low, high = study.intensity_range()
    assert np.isfinite([low, high]).all()
    unit = to_unit_rgb(study.slice(0), choose_window(study))
    assert unit.min() >= 0
    assert unit.max() <= 1
    output = folder / ("masks" if isinstance(study, PictureStudy) else f"mask{suffix}")
    study.check_output(output)
    study.write_mask(output, lambda i: np.zeros(study.slice_shape(i), np.uint8))
    if not isinstance(study, PictureStudy):
        # An empty mask on the study's own grid fits it, whatever the header.
        labels = study.read_labels(output, [0])
        assert not labels[0].any()
    return study


def _open(path: Path) -> Study:
    try:
        return open_study(path)
    except SeveralVolumesError as error:
        return open_study(path, component=error.count - 1)
