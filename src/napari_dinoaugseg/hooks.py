"""What napari may call: readers, writers and the sample study; see napari.yaml.

napari imports this module when a file is opened or saved, so nothing is loaded here before it is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_dinoaugseg.study.volume import VolumeStudy

PathOrPaths = str | Sequence[str]
LayerData = tuple[Any, dict[str, Any], str]

_LOOKED_AT = 200  # files of a folder


def get_volume_reader(path: PathOrPaths) -> Callable[[PathOrPaths], list[LayerData]] | None:
    """The reader of one NIfTI or NRRD file; None for several files at once, which make no volume."""
    return _read if isinstance(path, str) or len(path) == 1 else None


def get_dicom_reader(path: PathOrPaths) -> Callable[[PathOrPaths], list[LayerData]] | None:
    """The reader of a DICOM series: a folder, one file, or a list of files; None for a folder without DICOM."""
    if isinstance(path, str) and Path(path).is_dir() and not _holds_dicom(Path(path)):
        return None
    return _read


def _holds_dicom(folder: Path) -> bool:
    """Look at the first files only: napari asks for every folder that is dropped, however large."""
    from napari_dinoaugseg.study.files import may_be_dicom
    from napari_dinoaugseg.study.folders import each_folder

    files = (path for found in each_folder(folder) for path in (*found.pictures, *found.others))
    return any(may_be_dicom(path) for path in islice(files, _LOOKED_AT))


def _read(path: PathOrPaths) -> list[LayerData]:
    """Open a volume. Raises StudyError; napari shows its message."""
    from napari_dinoaugseg.errors import StudyError
    from napari_dinoaugseg.study.opening import open_study
    from napari_dinoaugseg.study.volume import VolumeStudy

    try:
        study = open_study(path)
    except StudyError as error:
        # The message names an option of the command; in the window the panel asks.
        said = str(error)
        for option in ("--component", "--series"):
            said = said.replace(f"with {option}", "when you open it in the Study section of the DINO-AugSeg panel")
        raise StudyError(said) from error
    if not isinstance(study, VolumeStudy):
        msg = f"{path}: this is no volume. Open pictures in the Study section of the DINO-AugSeg panel."
        raise StudyError(msg)
    return [_layer(study)]


def sample_brain() -> list[LayerData]:
    """The sample study: a brain template. Raises StudyError when nilearn is not installed."""
    from napari_dinoaugseg.study.sample import sample_study

    return [_layer(sample_study())]


def _layer(study: VolumeStudy) -> LayerData:
    """An image layer in display order, in millimetres where they are known."""
    from napari_dinoaugseg.gui.metadata import study_metadata

    options: dict[str, Any] = {"name": study.name, "metadata": study_metadata(study), "scale": study.display_scale}
    if study.grid.known:
        options["units"] = ("mm", "mm", "mm")
    if study.is_colour:
        options["rgb"] = True
    else:
        low, high = study.intensity_range()
        if low < high:
            options["contrast_limits"] = (low, high)
    return study.display, options, "image"


def write_labels(path: str, data: Any, attributes: dict[str, Any]) -> list[str]:
    """Write a labels layer as NIfTI or NRRD.

    Labels on an image that we opened get its exact geometry; others a diagonal affine from the layer's scale.

    Args:
        path: where to write; .nii.gz, .nii or .nrrd.
        data: (z, y, x) or (y, x) labels from 0 to 65535.
        attributes: of the layer, as napari passes them.

    Returns:
        The written path.

    Raises:
        LabelError: what the layer holds are no labels that fit into such a file.
        OutputError: nothing can be written there.
    """
    import numpy as np

    from napari_dinoaugseg.errors import LabelError
    from napari_dinoaugseg.gui.encoding import BACKGROUND
    from napari_dinoaugseg.gui.metadata import spacing_in, study_in
    from napari_dinoaugseg.study.array import study_from_array

    name = str(attributes.get("name", "labels"))
    if isinstance(data, Sequence):
        msg = f"{name}: labels of several resolutions (multiscale) cannot be saved as one volume."
        raise LabelError(msg)
    labels = np.asarray(data)
    if labels.ndim not in (2, 3):
        msg = f"{name}: labels with {labels.ndim} axes cannot be saved as one volume. Split the layer first."
        raise LabelError(msg)
    if labels.size and (int(labels.min()) < 0 or int(labels.max()) > 65535):
        msg = f"{name}: labels must lie from 0 to 65535 to be saved; these reach {int(labels.max())}."
        raise LabelError(msg)
    if study_in(attributes.get("metadata", {})) is not None:
        labels = np.where(labels == BACKGROUND, 0, labels)
    study = _study_below(labels, attributes)
    if study is None:
        spacing = spacing_in(attributes.get("scale", (1,) * labels.ndim), attributes.get("units"))
        study = study_from_array(labels, spacing=spacing, name=name)
    study.check_output(Path(path))
    shown = labels if labels.ndim == 3 else labels[np.newaxis]
    slices = np.moveaxis(shown, _slice_axis(study), 0)
    study.write_mask(Path(path), lambda i: slices[i].astype(np.uint16))
    return [path]


def _slice_axis(study: VolumeStudy) -> int:
    """The axis of the display array that counts the slices."""
    from napari_dinoaugseg.study.grid import Plane

    return {Plane.CORONAL: 1, Plane.SAGITTAL: 2}.get(study.plane, 0)


def _study_below(labels: NDArray[Any], attributes: dict[str, Any]) -> VolumeStudy | None:
    """The volume that labels were drawn on: the layer's own, or that of an image in the viewer of the same grid."""
    from napari_dinoaugseg.gui.metadata import study_in
    from napari_dinoaugseg.study.volume import VolumeStudy

    own = study_in(attributes.get("metadata", {}))
    if isinstance(own, VolumeStudy) and own.display.shape[:3] == labels.shape:
        return own
    for study in _studies_in_viewer():
        scale = tuple(float(size) for size in attributes.get("scale", ()))
        close = len(scale) == 3 and all(abs(a - b) <= 1e-6 * b for a, b in zip(scale, study.display_scale, strict=True))
        if study.display.shape[:3] == labels.shape and close:
            return study
    return None


def _studies_in_viewer() -> list[VolumeStudy]:
    import napari

    from napari_dinoaugseg.gui.metadata import study_of
    from napari_dinoaugseg.study.volume import VolumeStudy

    viewer = napari.current_viewer()
    found = [study_of(layer) for layer in viewer.layers] if viewer is not None else []
    return [study for study in found if isinstance(study, VolumeStudy)]
