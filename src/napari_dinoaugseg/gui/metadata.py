"""How a layer remembers the study it shows: readers put it there, the panel and the writers find it again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_dinoaugseg.study import Study

STUDY_KEY = "napari-dinoaugseg"
"""Key in `layer.metadata`."""


def study_metadata(study: Study) -> dict[str, Any]:
    """Metadata for a layer whose data lie in the display order of the study."""
    return {STUDY_KEY: study}


def study_in(metadata: Mapping[str, Any]) -> Study | None:
    """The study that a layer's metadata name, or None."""
    if STUDY_KEY not in metadata:
        return None
    from napari_dinoaugseg.study import Study

    found = metadata[STUDY_KEY]
    return found if isinstance(found, Study) else None


def study_of(layer: Any) -> Study | None:
    """The study that a layer shows, or None when the layer is not ours."""
    return study_in(layer.metadata)


def spacing_in(scale: Sequence[float], units: Sequence[Any] | None) -> tuple[float, ...] | None:
    """The voxel size in mm along each axis of a layer, from its scale and units; None where it is unknown.

    A scale in pixels counts as millimetres, as plugins that know no units mean it; a scale of 1 in pixels says nothing.
    """
    sizes = [abs(float(size)) for size in scale]
    factors = [_millimetres(unit) for unit in units] if units is not None else [None] * len(sizes)
    if all(factor is None for factor in factors) and all(size == 1 for size in sizes):
        return None
    return tuple(size * (factor or 1.0) for size, factor in zip(sizes, factors, strict=True))


def _millimetres(unit: Any) -> float | None:
    """How many millimetres one unit is; None when it is no length (pixels)."""
    import pint

    try:
        return float(pint.Quantity(1, str(unit)).to("mm").magnitude)
    except (pint.DimensionalityError, pint.UndefinedUnitError):
        return None
