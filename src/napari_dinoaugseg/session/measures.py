"""The measures of a session: the long axis of a class, a table of all measures, and their entries in the report."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_dinoaugseg.case.files import atomic_file, check_parent
from napari_dinoaugseg.case.measure import Measure, long_axis, value_of
from napari_dinoaugseg.errors import LabelError, naming_slices

if TYPE_CHECKING:
    from napari_dinoaugseg.session.session import Session


def long_axis_of(session: Session, index: int, number: int) -> Measure:
    """The long axis of a class on a slice, in the mask as it would be exported: painted, accepted or predicted.

    Raises:
        LabelError: the class is not on the slice.
    """
    mask = session.labels.result(index) == number
    found = long_axis(np.asarray(mask), session.case.slice_spacing(index))
    if found is None:
        names = {entry.number: entry.name for entry in session.labels.classes}
        named = session.case.slice_parts(index)
        raise LabelError(naming_slices(f"{names.get(number, f'class {number}')} is not on ", *named, "."))
    return Measure("long axis", index, found, number)


def described(session: Session) -> list[dict[str, Any]]:
    """The measures as plain JSON values, by slice, without names of files.

    Each has ``kind``, ``slice`` (from 0), ``class`` (of a long axis, else None), ``value`` (None for the angle of
    coinciding points), ``unit`` (mm, px or degrees) and ``points``: (row, column) in pixels, the centre of the first
    one at 0.
    """
    names = {entry.number: entry.name for entry in session.labels.classes}
    entries = []
    for measure in sorted(session.measures, key=lambda one: one.index):
        value, unit = value_of(measure, session.case)
        entries.append(
            {
                "kind": measure.kind,
                "slice": measure.index,
                "class": names.get(measure.number, f"class {measure.number}") if measure.number else None,
                "value": round(value, 3) if math.isfinite(value) else None,
                "unit": unit,
                "points": [[round(row, 2), round(column, 2)] for row, column in measure.points],
            }
        )
    return entries


def write_measures(path: Path, session: Session) -> None:
    """Write the measures as CSV, in the columns of :func:`described`; pictures are named as well.

    The column ``slice_from_0`` counts slices from 0, as all files do. An existing file is replaced. Raises OutputError.
    """
    path = Path(path)
    check_parent(path)
    has_names = session.case.kind == "pictures"
    text = io.StringIO(newline="")
    table = csv.writer(text, lineterminator="\n")
    points = [f"{axis}_{n}" for n in (1, 2, 3) for axis in ("row", "column")]
    table.writerow(["kind", "slice_from_0", *(["picture"] if has_names else []), "class", "value", "unit", *points])
    for entry in described(session):
        named = [session.case.slice_name(entry["slice"])] if has_names else []
        places = [value for point in entry["points"] for value in point]
        cells = [entry["kind"], entry["slice"], *named, entry["class"], entry["value"], entry["unit"], *places]
        table.writerow(["" if cell is None else cell for cell in cells] + [""] * (len(points) - len(places)))
    with atomic_file(path) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8")
