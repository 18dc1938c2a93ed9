"""A mask with what its labels mean, for the formats that keep it (DICOM SEG)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from napari_dinoaugseg.session.classes import LabelClass
from napari_dinoaugseg.session.labels import LabelBook, Status
from napari_dinoaugseg.study import Study, VolumeStudy
from napari_dinoaugseg.study.segments import Segment
from napari_dinoaugseg.study.study import MaskOf


def is_by_hand(book: LabelBook, n_slices: int, include: Sequence[Status], *, reviewed_only: bool = False) -> bool:
    """Tell whether a person drew all the labels of the slices with these statuses, as they come out of the book."""
    left_out = set(book.unseen(include)) if reviewed_only else set()
    found = {book.status(index) for index in range(n_slices) if index not in left_out} & set(include)
    return found <= {Status.MANUAL}


def write_mask(
    study: Study, path: Path, masks: MaskOf, classes: Iterable[LabelClass], *, by_hand: bool = False
) -> None:
    """Write a mask as :meth:`Study.write_mask` does, and tell a format that asks what its labels mean.

    Args:
        study: whose mask.
        path: where to write.
        masks: gives the labels (H, W) of slice i.
        classes: number, name and colour of the labels in it.
        by_hand: whether a person drew all of it.

    Raises:
        OutputError: it cannot be written.
    """
    if isinstance(study, VolumeStudy):
        segments = [Segment(entry.number, entry.name, entry.colour, by_hand) for entry in classes]
        study.write_mask(path, masks, segments)
    else:
        study.write_mask(path, masks)
