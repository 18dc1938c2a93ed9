"""How a layer remembers the study it shows: readers put it there, the panel and the writers find it again.

And how a study is made of a layer, or cut along another plane.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from napari_dinoaugseg.errors import StudyError

if TYPE_CHECKING:
    from napari_dinoaugseg.study import Plane, Study, VolumeStudy

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


def study_of_layer(layer: Any, plane: Plane | None = None) -> Study:
    """The study that a layer shows; where nobody left one, a study of its pixels.

    Args:
        layer: what the person chose; None = there is nothing to choose.
        plane: direction of the slices; None leaves it as it is.

    Raises:
        StudyError: it is no image, or no single volume or picture.
    """
    from napari.layers import Image

    if layer is None:
        msg = "There is no image yet. Open a file or folder, or drop an image into the viewer."
        raise StudyError(msg)
    if not isinstance(layer, Image):
        msg = f"The layer '{layer.name}' is no image. Select an image layer, or open a file."
        raise StudyError(msg)
    made = study_of(layer)
    if made is not None:
        return made if plane in (None, made.plane) else study_in_plane(made, plane)
    from napari_dinoaugseg.study.array import study_from_array

    return study_from_array(
        layer.data, spacing=spacing_in(layer.scale, layer.units), name=layer.name, is_rgb=bool(layer.rgb), plane=plane
    )


def study_in_plane(study: Study, plane: Plane) -> VolumeStudy:
    """The same volume cut along another plane: the same voxels, the same way back into the file.

    Raises:
        StudyError: pictures have no other plane.
    """
    from napari_dinoaugseg.study import VolumeStudy

    if not isinstance(study, VolumeStudy):
        msg = f"{study.name}: these are pictures, not a volume. They cannot be cut along another plane."
        raise StudyError(msg)
    return study.in_plane(plane)


def shows_alike(study: Study, plane: Plane) -> bool:
    """Whether a study is displayed by the same array in another plane; pictures have only one."""
    from napari_dinoaugseg.study import VolumeStudy

    return not isinstance(study, VolumeStudy) or study.shows_alike(plane)


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
