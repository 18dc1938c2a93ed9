"""Pictures of any size as a study: one picture, one slice."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from napari_dinoaugseg.errors import LabelError, OutputError, StudyError
from napari_dinoaugseg.study.decode import Orientation, Picture, decode
from napari_dinoaugseg.study.files import (
    NIFTI_SUFFIXES,
    NRRD_SUFFIXES,
    PICTURE_SUFFIXES,
    is_hidden,
    listed,
    name_of,
    natural_key,
    suffix_of,
)
from napari_dinoaugseg.study.grid import Plane
from napari_dinoaugseg.study.intensity import robust_range
from napari_dinoaugseg.study.masks import MaskFolder, find_pictures, mask_files, must_be_deep, name_in, read_mask_folder
from napari_dinoaugseg.study.matching import is_mask_folder, match_masks, one_mask_each, split_masks
from napari_dinoaugseg.study.output import atomic_folder, check_not_input, check_parent, check_writable, is_same
from napari_dinoaugseg.study.study import ConfidenceOf, MaskOf, Study

_SAMPLE = 2_000_000


@dataclass(frozen=True)
class _Facts:
    """What is kept of a picture once it was seen to decode."""

    shape: tuple[int, int]
    orientation: Orientation
    is_colour: bool
    is_byte: bool
    fingerprint: str
    non_finite: int


class PictureStudy(Study):
    """A folder or list of pictures, whose sizes may differ.

    Every file is decoded once on opening, so that a damaged one is known before anybody waits for a training.

    Args:
        path: the folder or file that was asked for.
        files: the picture files, in the order of their numbers.

    Raises:
        StudyError: a file is damaged or not what its suffix says, or two share a name.
    """

    kind: Literal["volume", "pictures"] = "pictures"

    def __init__(self, path: Path, files: Sequence[Path]) -> None:
        self.path = path
        self.name = name_of(path)
        self.plane = Plane.NATIVE
        self.modality = None
        self.slice_distance = None
        self.pictures = list(files)
        self.root = _common_parent(self.pictures)
        self._names = [name_in(file.absolute(), self.root) for file in self.pictures]
        _require_unique(self.pictures, self._names)
        self.n_slices = len(self.pictures)
        self._facts = [_examine(file) for file in self.pictures]
        self._range: tuple[float, float] | None = None
        self.is_colour = all(facts.is_colour for facts in self._facts)
        self.has_colour = any(facts.is_colour for facts in self._facts)
        bad = [file.name for file, facts in zip(self.pictures, self._facts, strict=True) if facts.non_finite]
        self.notices = [f"NaN or infinite pixels in {listed(bad)}: replaced by the lowest value"] if bad else []

    @property
    def is_byte(self) -> bool:
        """Whether every picture is 8-bit."""
        return all(facts.is_byte for facts in self._facts)

    def slice(self, i: int) -> NDArray[Any]:
        """Return picture `i` as it is meant to be seen: (H, W) or (H, W, 3), uint8 or float32."""
        return _values(decode(self.pictures[i]))

    def slice_shape(self, i: int) -> tuple[int, int]:
        """Return height and width as seen."""
        return self._facts[i].orientation.shown_shape(self._facts[i].shape)

    def slice_spacing(self, i: int) -> tuple[float, float] | None:
        """Return None: pictures seldom say how large a pixel is, and then for paper."""
        del i
        return None

    def slice_name(self, i: int) -> str:
        """Return the file name."""
        return self.pictures[i].name

    def slice_fingerprint(self, i: int) -> str:
        """Return a hash of the bytes of the file."""
        return self._facts[i].fingerprint

    @property
    def fingerprint(self) -> str:
        """A hash of all pictures in their order."""
        digest = hashlib.blake2b(digest_size=16)
        for facts in self._facts:
            digest.update(facts.fingerprint.encode())
        return digest.hexdigest()

    def intensity_range(self) -> tuple[float, float]:
        """Return the 0.5th and 99.5th percentile over all grey pictures; 0 and 255 when there is none."""
        if self._range is None:
            grey = [i for i, facts in enumerate(self._facts) if not facts.is_colour]
            samples = [self._sample(i, _SAMPLE // len(grey)) for i in grey]
            self._range = robust_range(np.concatenate(samples)) if samples else (0.0, 255.0)
        return self._range

    def _sample(self, i: int, count: int) -> NDArray[Any]:
        pixels = _values(decode(self.pictures[i]))
        step = max(1, int(np.ceil(np.sqrt(pixels.size / max(count, 1)))))
        return pixels[::step, ::step].astype(np.float32).reshape(-1)

    def outputs(self, folder: Path) -> list[Path]:
        """Return the file that each picture's mask takes in a folder."""
        return [folder / f"{name}.png" for name in self._names]

    def write_mask(self, path: Path, masks: MaskOf) -> None:
        """Write a folder with one PNG per picture: same stem, the picture's own size and stored orientation.

        Masks are 8-bit where that is unambiguous: 255 beside other labels would be read as white, so such a folder is
        16-bit throughout.

        Args:
            path: the folder; made when it does not exist. Subfolders of the study are mirrored.
            masks: gives the labels (H, W) of picture i as seen, from 0 to 65535.

        Raises:
            OutputError: the system refused to write.
        """
        used: set[int] = set()

        def pixels(i: int) -> NDArray[Any]:
            mask = np.asarray(masks(i))
            used.update(np.unique(mask).astype(int).tolist())
            return mask.astype(np.uint8 if not mask.size or int(mask.max()) <= 255 else np.uint16)

        self._write(Path(path), pixels, lambda: must_be_deep(used))

    def write_confidence(self, path: Path, maps: ConfidenceOf) -> None:
        """Write a folder with one 8-bit PNG per picture, 255 for a confidence of 1.

        Args:
            path: the folder.
            maps: gives the confidence (H, W) of picture i as seen, from 0 to 1.

        Raises:
            OutputError: the system refused to write.
        """
        self._write(Path(path), lambda i: np.rint(np.clip(maps(i), 0, 1) * 255).astype(np.uint8))

    def _write(
        self, path: Path, pixels: Callable[[int], NDArray[Any]], deepen: Callable[[], bool] = lambda: False
    ) -> None:
        """Write one PNG per picture; when all are seen, `deepen` tells whether they have to be 16-bit."""
        with atomic_folder(path) as folder:
            targets = self.outputs(folder)
            for i, target in enumerate(targets):
                shown = pixels(i)
                if shown.shape != self.slice_shape(i):
                    msg = f"picture {i} is {self.slice_shape(i)}, not {shown.shape}"
                    raise ValueError(msg)
                target.parent.mkdir(parents=True, exist_ok=True)
                stored = np.ascontiguousarray(self._facts[i].orientation.store(shown))
                Image.fromarray(stored).save(target, format="PNG")
            for target in targets if deepen() else ():
                with Image.open(target) as image:
                    deep = np.asarray(image).astype(np.uint16)
                Image.fromarray(deep).save(target, format="PNG")

    def check_output(self, path: Path, inputs: Sequence[Path] = ()) -> None:
        """Raise `OutputError` when the folder `path` could not be written or an input would be overwritten."""
        path = Path(path)
        if path.exists() and not path.is_dir():
            msg = f"{path}: this is a file, but the masks of pictures go to a folder. Name a folder."
            raise OutputError(msg)
        if not path.exists() and suffix_of(path) in PICTURE_SUFFIXES | NIFTI_SUFFIXES | NRRD_SUFFIXES:
            msg = f"{path}: the masks of pictures go to a folder, but this is the name of a file. Name a folder."
            raise OutputError(msg)
        if any(is_same(path, folder) for folder in {file.parent for file in self.pictures}):
            msg = f"{path}: the pictures of the study lie here. Choose another folder for the masks."
            raise OutputError(msg)
        check_not_input(path, inputs)
        if path.is_dir():
            taken = [*self.pictures, *(file for given in inputs for file in _files_of(given))]
            for output in self.outputs(path):
                if output.exists():
                    check_not_input(output, taken)
            check_writable(path, path)
        check_parent(path)

    def read_labels(
        self, path: Path | Sequence[Path], slices: Sequence[int] | None = None
    ) -> dict[int, NDArray[np.uint16]]:
        """Read the masks of some of the pictures; a mask that is all background counts as labelled.

        Args:
            path: a folder or a list of mask files, matched with the pictures by name.
            slices: exactly these pictures are labelled; None takes every picture that has a mask.

        Returns:
            The (H, W) label image by picture number, as seen. Binary masks hold 0 and 255.

        Raises:
            LabelError: masks that match no picture, several for one, another size, no labels, only background, or a
                named picture without a mask.
        """
        chosen = self.require_slices(slices) if slices is not None else None
        masks = self._mask_folder(path)
        where = str(path) if isinstance(path, str | Path) else "the given masks"
        matches = match_masks(masks, self._names)
        stray = [masks.path(name).name for name in masks if name not in matches]
        if stray:
            msg = f"{where}: {listed(stray)} {'matches' if len(stray) == 1 else 'match'} no picture of {self.name}."
            raise LabelError(f"{msg} Give each mask the name of its picture.")
        of_picture = one_mask_each(matches)
        labels: dict[int, NDArray[np.uint16]] = {}
        for i, name in enumerate(self._names):
            if chosen is not None and i not in chosen:
                continue
            if name in of_picture:
                labels[i] = self._shown(i, masks, of_picture[name])
            elif chosen is not None:
                msg = f"{where}: picture {i} ({self.slice_name(i)}) has no mask here. Add it or leave it out."
                raise LabelError(msg)
        if chosen is None and not any(label.any() for label in labels.values()):
            msg = f"{where}: every mask is all background, so there is nothing to learn. Paint a few pictures first."
            raise LabelError(msg)
        return labels

    def _mask_folder(self, path: Path | Sequence[Path]) -> MaskFolder:
        if not isinstance(path, str | Path):
            return read_mask_folder(path)
        folder = Path(path)
        if folder.is_file():
            if suffix_of(folder) not in PICTURE_SUFFIXES:
                msg = f"{folder}: the labels of pictures are a folder of masks, not a file of this kind."
                raise LabelError(msg)
            return read_mask_folder(folder)
        # Where masks lie among the pictures, the pictures are no masks, not even those without a mask.
        own = {file.resolve() for file in self.pictures}
        files = {name: file for name, file in mask_files(folder).items() if file.resolve() not in own}
        if not files:
            msg = f"{folder}: there is no mask here, only pictures. Name the folder with the masks."
            raise LabelError(msg)
        return MaskFolder(files)

    def _shown(self, i: int, masks: MaskFolder, name: str) -> NDArray[np.uint16]:
        """Return a mask as its picture is seen; a mask with an orientation of its own is already drawn that way."""
        stored, own = masks[name], masks.orientations[name]
        turned = own if own.tag != 1 else self._facts[i].orientation
        shown = turned.show(stored)
        if shown.shape != self.slice_shape(i):
            height, width = self._facts[i].shape
            msg = (
                f"{masks.path(name)}: the mask is {stored.shape[1]} x {stored.shape[0]} pixels, "
                f"but {self.slice_name(i)} is {width} x {height}. Give a mask of the same size."
            )
            raise LabelError(msg)
        return np.ascontiguousarray(shown)


def find_study_pictures(folder: Path) -> list[Path]:
    """Return the pictures of a folder: those right in it, or else those in its subfolders; masks are left out.

    Subfolders named like masks are skipped, and so are files such as `NAME_mask.png` beside `NAME.png`.
    """
    own = find_pictures(folder)
    if own:
        return _without_masks(own, folder)
    found: list[Path] = []
    for sub in sorted((p for p in folder.iterdir() if p.is_dir()), key=lambda p: natural_key(p.name)):
        if not is_hidden(sub, folder) and not is_mask_folder(sub.name):
            found.extend(find_study_pictures(sub))
    return found


def _without_masks(files: list[Path], folder: Path) -> list[Path]:
    _, masks = split_masks(name_in(file, folder) for file in files)
    taken = set(masks)
    return [file for file in files if name_in(file, folder) not in taken]


def _common_parent(files: Sequence[Path]) -> Path:
    parents = [file.absolute().parent for file in files]
    root = parents[0]
    while not all(parent.is_relative_to(root) for parent in parents):
        root = root.parent
    return root


def _require_unique(files: Sequence[Path], names: Sequence[str]) -> None:
    seen: dict[str, Path] = {}
    for file, name in zip(files, names, strict=True):
        if name in seen:
            msg = f"{file}: {seen[name].name} has the same name, so their masks would collide. Rename one of them."
            raise StudyError(msg)
        seen[name] = file


def _files_of(given: Path) -> list[Path]:
    return [path for path in given.rglob("*") if path.is_file()] if given.is_dir() else [given]


def _examine(file: Path) -> _Facts:
    picture = decode(file)
    pixels = picture.pixels
    finite = int(np.isfinite(pixels).sum()) if pixels.dtype.kind == "f" else pixels.size
    if finite == 0:
        msg = f"{file}: no pixel holds a finite number (all are NaN or infinite). Export the picture again."
        raise StudyError(msg)
    return _Facts(
        shape=(int(pixels.shape[0]), int(pixels.shape[1])),
        orientation=picture.orientation,
        is_colour=pixels.ndim == 3,
        is_byte=bool(pixels.dtype == np.uint8),
        fingerprint=hashlib.blake2b(file.read_bytes(), digest_size=16).hexdigest(),
        non_finite=pixels.size - finite,
    )


def _values(picture: Picture) -> NDArray[Any]:
    """Return the pixels as seen: uint8, or float32 with NaN and -inf at the lowest value and +inf at the highest."""
    shown = picture.orientation.show(picture.pixels)
    if shown.dtype == np.uint8:
        return np.array(shown)
    values = np.array(shown, dtype=np.float32, order="C")
    finite = np.isfinite(values)
    if finite.any() and not finite.all():
        low, high = float(values[finite].min()), float(values[finite].max())
        values = np.nan_to_num(values, nan=low, posinf=high, neginf=low)
    return values
