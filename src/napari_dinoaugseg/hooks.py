"""The readers, the writer and the sample case that napari.yaml declares.

napari imports this module whenever a file is opened or saved, so everything heavy is imported inside the functions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_dinoaugseg.case.volume import VolumeCase

PathOrPaths = str | Sequence[str]
LayerData = tuple[Any, dict[str, Any], str]

_LOOKED_AT = 200  # files of a folder that are checked for DICOM


def get_volume_reader(path: PathOrPaths) -> Callable[[PathOrPaths], list[LayerData]] | None:
    """The reader of one NIfTI or NRRD file; None for several files, which do not form a volume."""
    return _read if isinstance(path, str) or len(path) == 1 else None


def get_dicom_reader(path: PathOrPaths) -> Callable[[PathOrPaths], list[LayerData]] | None:
    """The reader of a DICOM series: a folder, one file, or a list of files; None for a folder without DICOM."""
    if isinstance(path, str) and Path(path).is_dir() and not _holds_dicom(Path(path)):
        return None
    return _read


def _holds_dicom(folder: Path) -> bool:
    """Whether DICOM files are among the first ones. Not all are checked: napari asks for every dropped folder."""
    from napari_dinoaugseg.case.files import each_folder, may_be_dicom

    files = (path for found in each_folder(folder) for path in (*found.pictures, *found.others))
    return any(may_be_dicom(path) for path in islice(files, _LOOKED_AT))


def _read(path: PathOrPaths) -> list[LayerData]:
    """Open a volume. Raises CaseError; napari shows its message."""
    from napari_dinoaugseg.case.opening import open_case
    from napari_dinoaugseg.case.volume import VolumeCase
    from napari_dinoaugseg.errors import CaseError
    from napari_dinoaugseg.gui.words import in_words

    try:
        case = open_case(path)
    except CaseError as error:
        raise CaseError(in_words(error)) from error
    if not isinstance(case, VolumeCase):
        msg = f"{path}: this is not a volume. Open pictures in the Case section of the DINO-AugSeg panel."
        raise CaseError(msg)
    return [_layer(sequence) for sequence in case.sequences.values()]


def sample_brain() -> list[LayerData]:
    """The sample case, a brain template. Raises CaseError if nilearn is not installed."""
    from napari_dinoaugseg.case.array import sample_case

    return [_layer(sample_case())]


def _layer(case: VolumeCase) -> LayerData:
    """An image layer in display order, in millimetres where the voxel size is known."""
    from napari_dinoaugseg.gui.display import case_metadata

    options: dict[str, Any] = {"name": case.name, "metadata": case_metadata(case), "scale": case.display_scale}
    if case.grid.known:
        options["units"] = ("mm", "mm", "mm")
    if case.is_colour:
        options["rgb"] = True
    else:
        low, high = case.intensity_range()
        if low < high:
            options["contrast_limits"] = (low, high)
    return case.display, options, "image"


def write_labels(path: str, data: Any, attributes: dict[str, Any]) -> list[str]:
    """Write a labels layer as NIfTI or NRRD.

    Labels on an image that this plugin opened get its exact geometry; others a diagonal affine from the layer's scale.

    Args:
        path: the file to write: .nii.gz, .nii or .nrrd.
        data: (z, y, x) or (y, x) labels from 0 to 65535.
        attributes: of the layer, as napari passes them.

    Returns:
        The written path.

    Raises:
        LabelError: the layer does not hold labels that fit into such a file.
        OutputError: the file cannot be written.
    """
    import numpy as np

    from napari_dinoaugseg.case.array import case_from_array
    from napari_dinoaugseg.errors import LabelError
    from napari_dinoaugseg.gui.display import AXIS, case_in, spacing_in
    from napari_dinoaugseg.session.labels import BACKGROUND

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
    if case_in(attributes.get("metadata", {})) is not None:
        labels = np.where(labels == BACKGROUND, 0, labels)
    case = _case_below(labels, attributes)
    if case is None:
        spacing = spacing_in(attributes.get("scale", (1,) * labels.ndim), attributes.get("units"))
        case = case_from_array(labels, spacing=spacing, name=name)
    case.check_output(Path(path))
    shown = labels if labels.ndim == 3 else labels[np.newaxis]
    slices = np.moveaxis(shown, AXIS[case.plane], 0)
    case.write_mask(Path(path), lambda i: slices[i].astype(np.uint16))
    return [path]


def _case_below(labels: NDArray[Any], attributes: dict[str, Any]) -> VolumeCase | None:
    """The volume that labels were drawn on: that in the layer's metadata, or of an image with the same grid."""
    from napari_dinoaugseg.case.volume import VolumeCase
    from napari_dinoaugseg.gui.display import case_in

    own = case_in(attributes.get("metadata", {}))
    if isinstance(own, VolumeCase) and own.display.shape[:3] == labels.shape:
        return own
    for case in _cases_in_viewer():
        scale = tuple(float(size) for size in attributes.get("scale", ()))
        same = len(scale) == 3 and all(abs(a - b) <= 1e-6 * b for a, b in zip(scale, case.display_scale, strict=True))
        if case.display.shape[:3] == labels.shape and same:
            return case
    return None


def _cases_in_viewer() -> list[VolumeCase]:
    import napari

    from napari_dinoaugseg.case.volume import VolumeCase
    from napari_dinoaugseg.gui.display import case_of

    viewer = napari.current_viewer()
    found = [case_of(layer) for layer in viewer.layers] if viewer is not None else []
    return [case for case in found if isinstance(case, VolumeCase)]
