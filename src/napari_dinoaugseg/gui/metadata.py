"""How a layer remembers the study it shows: readers put it there, the panel and the writers find it again."""

from __future__ import annotations

from collections.abc import Mapping
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
