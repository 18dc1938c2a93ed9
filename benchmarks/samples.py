"""Public medical images with their true masks, as the benchmarks take them: one layout of folders, one kind of sample.

A sample is a picture or a volume. Images keep the values of their file: the program opens each sample as a case of its
own (`benchmarks.cases`), which has its own intensity window. True masks are brought to class indices, 0 = background.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from napari_dinoaugseg.case import Case, Plane, case_from_array, open_case
from napari_dinoaugseg.case.array import brain_sample, sample_case
from napari_dinoaugseg.errors import CaseError

Kind = Literal["pictures", "volume"]
Split = Literal["train", "test"]

_FOREGROUND = 128  # of masks that are 0 and 255; some have stray values between


@dataclass(frozen=True)
class Sample:
    """A picture or a volume with its truth.

    Attributes:
        name: unique in its set, without folders of this machine.
        images: (H, W) or (H, W, 3) each, in the values of the file; one for a picture.
        truth: (H, W) uint8 class indices each, 0 = background.
        spacing: mm along (row, column), for a volume along (slice, row, column); None = not known.
    """

    name: str
    images: tuple[NDArray[Any], ...]
    truth: tuple[NDArray[np.uint8], ...]
    spacing: tuple[float, ...] | None

    def __post_init__(self) -> None:
        """Refuse a truth that does not lie on the image."""
        shapes = [image.shape[:2] for image in self.images]
        if not shapes or shapes != [mask.shape for mask in self.truth]:
            msg = f"{self.name}: the mask is not of the size of the image. Compare the files with those of the set."
            raise CaseError(msg)

    @property
    def n_slices(self) -> int:
        """How many images it has."""
        return len(self.images)


@dataclass(frozen=True)
class ImageSet:
    """What is known of a set before it is read.

    Attributes:
        name: of its folder, and on the command line.
        kind: of its samples.
        classes: names of the foreground classes, of the indices 1, 2, …
        about: modality, for tables.
        read: gives the samples in a folder, in the order of their names.
        installed: it comes with a library and lies in no folder.
    """

    name: str
    kind: Kind
    classes: tuple[str, ...]
    about: str
    read: Callable[[Path], Iterator[Sample]]
    installed: bool = False


def load_set(data: Path, name: str, split: Split | None = None) -> list[Sample]:
    """The samples of a set.

    Args:
        data: folder with a folder for each set; not asked of one that is installed.
        name: one of `SETS`.
        split: the folder below that of the set; None = all samples below it, wherever they lie.

    Raises:
        CaseError: an unknown set, no such folder, nothing in it, or a damaged file.
    """
    if name not in SETS:
        msg = f"There is no set '{name}'. Choose among: {', '.join(SETS)}."
        raise CaseError(msg)
    folder = data / SETS[name].name / (split or "")
    if not SETS[name].installed and not folder.is_dir():
        msg = f"{folder}: there is no such folder. Name the folder that holds the sets with --data."
        raise CaseError(msg)
    samples = list(SETS[name].read(folder))
    if not samples:
        msg = f"{folder}: no case of {name}. Compare the folder with the layout that benchmarks/samples.py reads."
        raise CaseError(msg)
    return samples


def _find(folder: Path, pattern: str) -> list[Path]:
    """Files in name order, without the copies in their first format that some sets keep beside them."""
    paths = sorted(path for path in folder.rglob(pattern) if path.is_file())
    return [path for path in paths if not any(part.startswith("original_") for part in path.relative_to(folder).parts)]


def _picture(image: Path, mask: Path, name: str, spacing: tuple[float, float] | None = None) -> Sample:
    case = open_case(image)
    if not mask.is_file():
        msg = f"{mask}: the mask of {image.name} is missing. Copy the set again."
        raise CaseError(msg)
    painted = open_case(mask).slice(0)
    truth = (painted if painted.ndim == 2 else painted[..., 0]) >= _FOREGROUND
    return Sample(name, (case.slice(0),), (truth.astype(np.uint8),), spacing)


def _picture_reader(images: str, suffix: str, masks: str, ending: str = "") -> Callable[[Path], Iterator[Sample]]:
    """Reader of sets with a folder for images and one for masks of the same name and an ending."""

    def read(folder: Path) -> Iterator[Sample]:
        for path in _find(folder, f"{images}/*{suffix}"):
            mask = path.parent.parent / masks / f"{path.stem}{ending}{suffix}"
            yield _picture(path, mask, path.stem)

    return read


def _read_busi(folder: Path) -> Iterator[Sample]:
    for mask in _find(folder, "*_mask.png"):
        image = mask.with_name(mask.name.replace("_mask", ""))
        yield _picture(image, mask, image.stem)


def _read_hc18(folder: Path) -> Iterator[Sample]:
    sizes = _pixel_sizes(folder)
    for mask in _find(folder, "*_Annotation.png"):
        image = mask.with_name(mask.name.replace("_Annotation", ""))
        size = sizes.get(image.name)
        yield _picture(image, mask, image.stem, None if size is None else (size, size))


def _pixel_sizes(folder: Path) -> dict[str, float]:
    """Millimetres a pixel by file name, from the table of the set."""
    for place in (folder, folder.parent):
        tables = sorted(place.glob("pixel_size*.csv"))
        if tables:
            with tables[0].open(newline="", encoding="utf-8") as file:
                return {row[0]: float(row[1]) for row in list(csv.reader(file))[1:] if len(row) > 1}
    return {}


def _volume(case: Case, truth: NDArray[Any], name: str) -> Sample:
    """A sample of a case and its truth (n_slices, H, W) in the case's own slices."""
    pixel = case.slice_spacing(0)
    spacing = None if pixel is None or case.slice_distance is None else (case.slice_distance, *pixel)
    images = tuple(case.slice(i) for i in range(case.n_slices))
    return Sample(name, images, tuple(np.ascontiguousarray(truth, dtype=np.uint8)), spacing)


def _hdf5_reader(pattern: str, slice_axis: int) -> Callable[[Path], Iterator[Sample]]:
    """Reader of HDF5 files with the keys `image` and `label`; they hold no voxel size."""

    def read(folder: Path) -> Iterator[Sample]:
        import h5py

        for path in _find(folder, pattern):
            with h5py.File(path, "r") as file:
                image, label = (np.moveaxis(file[key][()], slice_axis, 0) for key in ("image", "label"))
            name = path.stem if pattern.startswith("*") else path.parent.name
            yield _volume(case_from_array(image, name=name), label, name)

    return read


def _nifti(image: Path, labels: Path, name: str) -> Sample:
    opened = open_case(image)
    painted = opened.read_labels(labels, range(opened.n_slices))
    return _volume(opened, np.stack([painted[i] for i in range(opened.n_slices)]), name)


def _read_hippocampus(folder: Path) -> Iterator[Sample]:
    for path in _find(folder, "images/*.nii.gz"):
        yield _nifti(path, path.parent.parent / "labels" / path.name, path.name.removesuffix(".nii.gz"))


def _read_spleen(folder: Path) -> Iterator[Sample]:
    for labels in _find(folder, "*_seg-manual.nii.gz"):
        image = labels.with_name(labels.name.replace("_seg-manual", ""))
        yield _nifti(image, labels, image.name.removesuffix(".nii.gz"))


def _read_sunnybrook(folder: Path) -> Iterator[Sample]:
    """End-diastole: the phase in which both contours of the myocardium are drawn."""
    for phase in sorted(path for path in folder.rglob("ED") if path.is_dir()):
        case = open_case(phase / "dicom", plane=Plane.NATIVE)
        # Masks are named after the file of the slice, and only pixels show which slice of the volume a file is.
        files = {_values(open_case(path, plane=Plane.NATIVE)): path for path in sorted((phase / "dicom").glob("*.dcm"))}
        truth = []
        for i in range(case.n_slices):
            mask = phase / "masks" / f"{files[case.slice(i).tobytes()].stem}.png"
            truth.append(open_case(mask).slice(0))
        yield _volume(case, np.stack(truth), phase.parent.name)


def _read_brain_sample(_: Path) -> Iterator[Sample]:
    """The case that the program shows: a template and its tissue, where the probability of one is half or more."""
    case = sample_case()
    yield _volume(case, case.to_slices(np.asarray(brain_sample().tissue.dataobj)), "mni152")


def _values(case: Case) -> bytes:
    return case.slice(0).tobytes()


SETS: MappingProxyType[str, ImageSet] = MappingProxyType(
    {
        spec.name: spec
        for spec in (
            ImageSet(
                "acdc",
                "volume",
                ("right ventricle", "myocardium", "left ventricle"),
                "cardiac cine MRI",
                _hdf5_reader("*.h5", slice_axis=0),
            ),
            ImageSet("la2018", "volume", ("left atrium",), "cardiac MRI", _hdf5_reader("mri_norm2.h5", slice_axis=2)),
            ImageSet(
                "msd_hippocampus",
                "volume",
                ("anterior", "posterior"),
                "brain MRI",
                _read_hippocampus,
            ),
            ImageSet("msd_spleen_sample", "volume", ("spleen",), "abdominal CT", _read_spleen),
            ImageSet(
                "sunnybrook_dicom",
                "volume",
                ("left ventricle", "myocardium"),
                "cardiac cine MRI, end-diastole",
                _read_sunnybrook,
            ),
            ImageSet(
                "brain_sample",
                "volume",
                ("grey matter", "white matter"),
                "brain MRI, a template",
                _read_brain_sample,
                installed=True,
            ),
            ImageSet("cvc_clinicdb", "pictures", ("polyp",), "colonoscopy", _picture_reader("images", ".png", "masks")),
            ImageSet(
                "ph2", "pictures", ("lesion",), "dermoscopy", _picture_reader("images", ".png", "masks", "_lesion")
            ),
            ImageSet("lung_ct", "pictures", ("lungs",), "chest CT", _picture_reader("2d_images", ".tif", "2d_masks")),
            ImageSet("busi", "pictures", ("lesion",), "breast ultrasound", _read_busi),
            ImageSet("hc18", "pictures", ("head",), "fetal ultrasound", _read_hc18),
        )
    }
)
