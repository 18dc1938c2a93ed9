"""Pictures of any size as a case: one picture, one slice."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from napari_dinoaugseg.case.annotations import Annotated, Annotations, annotation_files, drawn, read_annotations
from napari_dinoaugseg.case.case import UNKNOWN, Case, ConfidenceOf, MaskOf, ReadLabels, Segment
from napari_dinoaugseg.case.files import (
    NIFTI_SUFFIXES,
    NRRD_SUFFIXES,
    PICTURE_SUFFIXES,
    Folder,
    LeftOut,
    atomic_folder,
    check_not_input,
    check_parent,
    check_writable,
    counted,
    each_folder,
    is_same,
    listed,
    look_into,
    name_of,
    once,
    place_of,
    suffix_of,
)
from napari_dinoaugseg.case.geometry import Plane
from napari_dinoaugseg.case.intensity import robust_range
from napari_dinoaugseg.case.masks import (
    WHITE,
    Lie,
    MaskFolder,
    MaskOptions,
    mask_files,
    must_be_deep,
    name_in,
    read_mask_folder,
)
from napari_dinoaugseg.case.matching import (
    LabelStudioMask,
    is_mask_folder,
    label_studio,
    match_masks,
    one_mask_each,
    outdone,
    split_masks,
)
from napari_dinoaugseg.case.picture_files import Orientation, Picture, decode
from napari_dinoaugseg.errors import CaseError, Hint, LabelError, Message, OutputError

_SAMPLE = 2_000_000


@dataclass(frozen=True)
class PictureFacts:
    """What is kept about a picture after decoding it on opening.

    Attributes:
        shape: height and width as stored.
        orientation: by which it is turned to be shown.
        is_colour: whether it is (H, W, 3).
        is_byte: whether it is 8-bit.
        fingerprint: a hash of its file.
        non_finite: how many pixels are NaN or infinite.
        frames: how many images its file holds.
        opacity: what became of it.
        spacing: (row, column) distance in mm; None if unknown.
    """

    shape: tuple[int, int]
    orientation: Orientation
    is_colour: bool
    is_byte: bool
    fingerprint: str
    non_finite: int
    frames: int
    opacity: Literal["none", "left out", "shown"]
    spacing: tuple[float, float] | None


class PictureCase(Case):
    """A folder or list of pictures, whose sizes may differ.

    Every file is decoded once on opening, so that damage is found before training.

    Args:
        path: the folder or file given by the user.
        files: the picture files in order.
        masks: how to read masks of these pictures.
        notices: sentences about the search for the files.
        decoder: reads one file.
        names: the name of each picture without suffix, for matching masks; None takes the file names.
        facts: about each picture; None decodes them to find out.

    Raises:
        CaseError: a file is damaged or does not fit its suffix, or two share a name.
    """

    kind: Literal["volume", "pictures"] = "pictures"

    def __init__(
        self,
        path: Path,
        files: Sequence[Path],
        masks: MaskOptions | None = None,
        notices: Sequence[str] = (),
        decoder: Callable[[Path], Picture] = decode,
        names: Sequence[str] | None = None,
        facts: Sequence[PictureFacts] | None = None,
    ) -> None:
        self.path = path
        self._options = masks or MaskOptions()
        # Orientation of masks on turned pictures: of each picture that had a mask, and of the others.
        self._lies: dict[int, Lie] = {}
        self._others_lie: Lie = self._options.orientation or "seen"
        self.name = name_of(path)
        self.plane = Plane.NATIVE
        self.modality = None
        self.slice_distance = None
        self.pictures = list(files)
        self.root = _common_parent(self.pictures)
        self._decode = decoder
        self._names = [name_in(file.absolute(), self.root) for file in self.pictures] if names is None else list(names)
        _require_unique(self.pictures, self._names)
        self.n_slices = len(self.pictures)
        self._facts = [_examine(file, decoder) for file in self.pictures] if facts is None else list(facts)
        self._range: tuple[float, float] | None = None
        self.is_colour = all(facts.is_colour for facts in self._facts)
        self.has_colour = any(facts.is_colour for facts in self._facts)
        self.notices = [*notices, *self._peculiarities()]

    def _peculiarities(self) -> list[str]:
        """Return notices about the pictures themselves."""
        notices: list[str] = []

        def of(chosen: Callable[[PictureFacts], bool]) -> list[str]:
            return [file.name for file, facts in zip(self.pictures, self._facts, strict=True) if chosen(facts)]

        if turned := of(lambda facts: facts.orientation.tag != 1):
            place = "as they are stored" if self._others_lie == "stored" else "as they are shown"
            notices.append(
                f"{counted(len(turned), 'picture')} with an orientation (EXIF) shown turned, as every viewer does: "
                f"{listed(turned)}. Their masks are written to lie on them {place}, unless those that are read lie "
                "otherwise"
            )
        if several := of(lambda facts: facts.frames > 1):
            notices.append(
                f"{counted(len(several), 'picture')} with several images (frames or pages), of which the first is "
                f"taken: {listed(several)}"
            )
        if shown := of(lambda facts: facts.opacity == "shown"):
            notices.append(
                f"{counted(len(shown), 'picture')} of one colour and varying opacity; the opacity is shown as grey: "
                f"{listed(shown)}"
            )
        if dropped := of(lambda facts: facts.opacity == "left out"):
            notices.append(f"the opacity of {counted(len(dropped), 'picture')} is left out: {listed(dropped)}")
        if bad := of(lambda facts: facts.non_finite > 0):
            notices.append(f"NaN or infinite pixels in {listed(bad)}: replaced by the lowest value")
        return notices

    @property
    def is_byte(self) -> bool:
        """Whether every picture is 8-bit."""
        return all(facts.is_byte for facts in self._facts)

    def slice(self, i: int) -> NDArray[Any]:
        """Return picture `i` upright: (H, W) or (H, W, 3), uint8 or float32."""
        return _values(self._decode(self.pictures[i]))

    def slice_shape(self, i: int) -> tuple[int, int]:
        """Return height and width of the upright picture."""
        return self._facts[i].orientation.shown_shape(self._facts[i].shape)

    def slice_spacing(self, i: int) -> tuple[float, float] | None:
        """Return (row, column) distance in mm of a DICOM picture; None for others, whose resolution is for print."""
        return self._facts[i].spacing

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
        """Return the 0.5th and 99.5th percentile over all grey pictures; 0 and 255 without any."""
        if self._range is None:
            grey = [i for i, facts in enumerate(self._facts) if not facts.is_colour]
            samples = [self._sample(i, _SAMPLE // len(grey)) for i in grey]
            self._range = robust_range(np.concatenate(samples)) if samples else (0.0, 255.0)
        return self._range

    def _sample(self, i: int, count: int) -> NDArray[Any]:
        pixels = _values(self._decode(self.pictures[i]))
        step = max(1, int(np.ceil(np.sqrt(pixels.size / max(count, 1)))))
        return pixels[::step, ::step].astype(np.float32).reshape(-1)

    def outputs(self, folder: Path) -> list[Path]:
        """Return the path of each picture's mask in a folder."""
        return [folder / f"{name}.png" for name in self._names]

    def write_mask(self, path: Path, masks: MaskOf) -> None:
        """Write a folder with one PNG per picture, of the same stem.

        Masks match the upright picture, or the picture as stored if the labels that were read do, or if
        `MaskOptions.orientation` is "stored".

        Masks are 8-bit where that is unambiguous: a class 255 beside others would be read as unknown, so such a folder
        is 16-bit throughout. `UNKNOWN` is written as 255, in 16-bit masks as 65535.

        Args:
            path: the folder; created if missing. Subfolders of the case are mirrored.
            masks: gives the labels (H, W) of the upright picture i, from 0 to 65534, or `UNKNOWN`.

        Raises:
            OutputError: the system refused to write.
        """
        used: set[int] = set()

        def pixels(i: int) -> NDArray[Any]:
            mask = np.asarray(masks(i))
            values = set(np.unique(mask).astype(int).tolist())
            used.update(values)
            return mask.astype(np.uint8 if max(values, default=0) <= WHITE else np.uint16)

        def deep() -> bool:
            return must_be_deep(used) or (UNKNOWN in used and max(used - {UNKNOWN}, default=0) > WHITE)

        self._write(Path(path), pixels, deep)

    def write_confidence(self, path: Path, maps: ConfidenceOf) -> None:
        """Write a folder with one 8-bit PNG per picture, 255 for a confidence of 1.

        Args:
            path: the folder.
            maps: gives the confidence (H, W) of the upright picture i, from 0 to 1.

        Raises:
            OutputError: the system refused to write.
        """
        self._write(Path(path), lambda i: np.rint(np.clip(maps(i), 0, 1) * 255).astype(np.uint8))

    def _write(
        self, path: Path, pixels: Callable[[int], NDArray[Any]], deepen: Callable[[], bool] = lambda: False
    ) -> None:
        """Write one PNG per picture; after the last, `deepen` returns whether all must be 16-bit."""
        with atomic_folder(path) as folder:
            targets = self.outputs(folder)
            unknown: list[Path] = []
            for i, target in enumerate(targets):
                shown = pixels(i)
                if shown.shape != self.slice_shape(i):
                    msg = f"picture {i} is {self.slice_shape(i)}, not {shown.shape}"
                    raise ValueError(msg)
                target.parent.mkdir(parents=True, exist_ok=True)
                lies = self._lies.get(i, self._others_lie)
                laid = self._facts[i].orientation.store(shown) if lies == "stored" else shown
                if shown.dtype == np.uint16 and (shown == UNKNOWN).any():
                    unknown.append(target)
                Image.fromarray(np.ascontiguousarray(laid)).save(target, format="PNG")
            if deepen():
                for target in targets:
                    _rewrite(target, lambda mask: mask.astype(np.uint16))
            else:
                for target in unknown:
                    _rewrite(target, lambda mask: np.where(mask == UNKNOWN, WHITE, mask).astype(np.uint8))

    def check_output(self, path: Path, inputs: Sequence[Path] = ()) -> None:
        """Raise `OutputError` when the folder `path` cannot be written or an input would be overwritten."""
        path = Path(path)
        if path.exists() and not path.is_dir():
            msg = f"{path}: this is a file, but the masks of pictures go to a folder. Name a folder."
            raise OutputError(msg)
        if not path.exists() and suffix_of(path) in PICTURE_SUFFIXES | NIFTI_SUFFIXES | NRRD_SUFFIXES:
            msg = f"{path}: the masks of pictures go to a folder, but this is the name of a file. Name a folder."
            raise OutputError(msg)
        if any(is_same(path, folder) for folder in {file.parent for file in self.pictures}):
            msg = f"{path}: the pictures of the case lie here. Choose another folder for the masks."
            raise OutputError(msg)
        check_not_input(path, inputs)
        if path.is_dir():
            taken = [*self.pictures, *(file for given in inputs for file in _files_of(given))]
            for output in self.outputs(path):
                if output.exists():
                    check_not_input(output, taken)
            check_writable(path, path)
        check_parent(path)

    def read_labels(self, path: Path | Sequence[Path], slices: Sequence[int] | None = None) -> ReadLabels:
        """Read the masks of some pictures; an all-background mask counts as labelled.

        Masks are written in the same orientation from then on.

        Args:
            path: a folder or a list of mask files, matched with the pictures by name; a file of COCO, or a folder with
                one or with the files of LabelMe and no masks.
            slices: the labelled pictures; None takes every picture that has a mask.

        Returns:
            The upright (H, W) label image by picture number. Binary masks hold 0 and 255.

        Raises:
            LabelError: masks that match no picture, several for one, another size, no labels, only background, or a
                named picture without a mask.
        """
        chosen = self.require_slices(slices) if slices is not None else None
        notices: list[str] = []
        annotations = self._annotations(path)
        if annotations is not None:
            return self._annotated(Path(path) if isinstance(path, str | Path) else Path(), annotations, chosen)
        masks = self._mask_folder(path, notices)
        where = str(path) if isinstance(path, str | Path) else "the given masks"
        matches = match_masks(masks, self._names, notices)
        stray = [masks.path(name).name for name in masks if name not in matches]
        if stray:
            msg = f"{where}: {listed(stray)} {'matches' if len(stray) == 1 else 'match'} no picture of {self.name}."
            raise LabelError(f"{msg} Give each mask the name of its picture.")
        parts, segments = _parts_of(matches)
        of_picture = one_mask_each({mask: name for mask, name in matches.items() if mask not in parts})
        given: dict[int, list[str]] = {}
        for i, name in enumerate(self._names):
            names = [*([of_picture[name]] if name in of_picture else ()), *(m for m in parts if matches[m] == name)]
            if chosen is not None and i not in chosen:
                continue
            if names:
                given[i] = names
            elif chosen is not None:
                msg = f"{where}: picture {i} ({self.slice_name(i)}) has no mask here. Add it or leave it out."
                raise LabelError(msg)
        lies = self._lies_of(given, masks, notices)
        labels = {i: self._joined(i, names, masks, parts, lies) for i, names in given.items()}
        if chosen is None and not any(((label > 0) & (label != UNKNOWN)).any() for label in labels.values()):
            msg = f"{where}: every mask is all background, so there is nothing to learn. Paint a few pictures first."
            raise LabelError(msg)
        return ReadLabels(
            labels,
            notices=[*notices, *masks.notices],
            segments=segments or masks.segments,
            may_be_unknown=masks.may_be_unknown,
        )

    def _annotations(self, path: Path | Sequence[Path]) -> Annotations | None:
        """Return the annotations at a path; None if it holds none, or masks as well."""
        if not isinstance(path, str | Path):
            return None
        files = annotation_files(Path(path)) if Path(path).exists() else []
        if not files:
            return None
        if Path(path).is_dir():
            own = {place_of(file) for file in self.pictures}
            if any(place_of(file) not in own for file in look_into(Path(path)).pictures):
                return None
        return read_annotations(files)

    def _annotated(self, path: Path, annotations: Annotations, chosen: Sequence[int] | None) -> ReadLabels:
        """Return the labels of annotated pictures; those without any annotation only where they are chosen."""
        by_name = {found.name: found for found in annotations.pictures}
        if len(by_name) < len(annotations.pictures):
            names = [found.name for found in annotations.pictures]
            msg = f"{path}: it names the picture {max(names, key=names.count)} twice. Export the annotations again."
            raise LabelError(msg)
        matches = one_mask_each(match_masks(by_name, self._names))
        if not matches:
            msg = f"{path}: its pictures ({listed(list(by_name))}) are none of {self.name}. Give them the same names."
            raise LabelError(msg)
        given = [i for i, name in enumerate(self._names) if name in matches]
        missing = [i for i in chosen or () if i not in given]
        if missing:
            msg = f"{path}: picture {missing[0]} ({self.slice_name(missing[0])}) is not in it. Leave it out."
            raise LabelError(msg)
        empty = [i for i in given if not by_name[matches[self._names[i]]].shapes] if chosen is None else []
        taken = [i for i in given if i not in empty] if chosen is None else list(chosen)
        labels: dict[int, NDArray[np.uint16]] = {}
        shared = lost = 0
        for i in taken:
            labels[i], both, cut = self._drawn(i, path, by_name[matches[self._names[i]]])
            shared, lost = shared + both, lost + cut
        if chosen is None and not any(((label > 0) & (label != UNKNOWN)).any() for label in labels.values()):
            msg = f"{path}: no picture of {self.name} has an annotated region, so there is nothing to learn."
            raise LabelError(f"{msg} Annotate a few pictures first.")
        others = len(by_name) - len(matches)
        sentences = (
            (others, f"annotations of {counted(others, 'picture')} that {self.name} does not have are left out"),
            (len(empty), f"{counted(len(empty), 'picture')} without any annotation: taken as not labelled"),
            (shared, f"annotations of several classes share {counted(shared, 'pixel')}: a pixel has one class here"),
            (lost, f"{counted(lost, 'annotation')} reach out of a picture or enclose no pixel centre"),
        )
        return ReadLabels(
            labels,
            notices=[*annotations.notices, *(sentence for number, sentence in sentences if number)],
            segments=annotations.segments,
            may_be_unknown=True,
        )

    def _drawn(self, i: int, path: Path, found: Annotated) -> tuple[NDArray[np.uint16], int, int]:
        """Draw the annotations of a picture upright; those of its stored pixels are turned."""
        seen, stored = self.slice_shape(i), self._facts[i].shape
        size = found.size or seen
        is_stored = size == stored != seen or (seen == stored and self._options.orientation == "stored")
        if size not in (seen, stored):
            msg = (
                f"{path}: its annotations of {self.slice_name(i)} are for {size[1]} x {size[0]} pixels, "
                f"but it has {seen[1]} x {seen[0]}. Give annotations of this picture."
            )
            raise LabelError(msg)
        try:
            labels, shared, lost = drawn(found, size)
        except LabelError as error:
            msg = f"{path}: {self.slice_name(i)}: {error}, but the picture has {size[1]} x {size[0]}. Export it again."
            raise LabelError(msg) from error
        shown = self._facts[i].orientation.show(labels) if is_stored else labels
        return np.ascontiguousarray(shown), shared, lost

    def _mask_folder(self, path: Path | Sequence[Path], notices: list[str]) -> MaskFolder:
        if not isinstance(path, str | Path):
            return read_mask_folder(path, self._options)
        folder = Path(path)
        if folder.is_file():
            if suffix_of(folder) not in PICTURE_SUFFIXES:
                msg = f"{folder}: labels of pictures are a folder of masks or a file of COCO, not a file of this kind."
                raise LabelError(msg)
            return read_mask_folder(folder, self._options)
        found = mask_files(folder)
        # A picture of the case without a mask beside it is not a mask.
        own = {place_of(file) for file in self.pictures}
        files = {name: file for name, file in found.files.items() if place_of(file) not in own}
        if not files:
            msg = f"{folder}: this folder holds only pictures of the case. Name the folder with the masks."
            raise LabelError(msg)
        if folder.resolve() not in (self.path.resolve(), self.root.resolve()):  # otherwise reported on opening
            notices.extend(found.left_out.sentences(folder.name))
        return MaskFolder(files, self._options)

    def _lies_of(self, given: Mapping[int, list[str]], masks: MaskFolder, notices: list[str]) -> dict[str, Lie]:
        """Return the orientation of each mask relative to its picture, and keep it for writing masks.

        A mask with its own EXIF orientation fits the upright picture. Otherwise its size decides, if only one
        orientation fits; undecided masks follow the option, else the decided ones, else the upright picture.
        """
        lies: dict[str, Lie] = {}
        settled: dict[Lie, int] = {"seen": 0, "stored": 0}
        open_ones: list[tuple[int, str]] = []
        for i, names in given.items():
            facts = self._facts[i]
            for name in names:
                own = masks.orientations[name]
                shape = own.show(masks[name]).shape
                lies[name] = "seen"
                if own.tag != 1 or facts.orientation.tag == 1:
                    continue
                if shape == self.slice_shape(i) != facts.shape:
                    settled["seen"] += 1
                elif shape == facts.shape != self.slice_shape(i):
                    settled["stored"] += 1
                    lies[name] = "stored"
                else:
                    open_ones.append((i, name))
        sizes = [lie for lie, number in settled.items() if number]
        by_size = sizes[0] if len(sizes) == 1 else None
        usual = self._options.orientation or by_size or "seen"
        lies |= {name: usual for _, name in open_ones}
        turned = {i: lies[name] for i, names in given.items() for name in names if self._facts[i].orientation.tag != 1}
        self._lies, self._others_lie = turned, usual
        notices.extend(_orientation_notices(self._options.orientation, by_size, settled, len(open_ones)))
        return lies

    def _joined(
        self,
        i: int,
        names: Sequence[str],
        masks: MaskFolder,
        parts: Mapping[str, tuple[int, LabelStudioMask]],
        lies: Mapping[str, Lie],
    ) -> NDArray[np.uint16]:
        """Return the upright labels of a picture: one mask, or the parts that Label Studio saves for each class."""
        if len(names) == 1 and names[0] not in parts:
            return self._shown(i, masks, names[0], lies[names[0]])
        joined = np.zeros(self.slice_shape(i), np.uint16)
        owner: dict[int, str] = {}
        for name in names:
            if name not in parts:
                msg = f"{self._names[i]}: it has several masks ({', '.join(names)}). Keep one way of naming masks."
                raise LabelError(msg)
            number, _ = parts[name]
            inside = self._shown(i, masks, name, lies[name]) > 0
            taken = set(np.unique(joined[inside]).tolist()) - {0, number}
            if taken:
                msg = (
                    f"{masks.path(name)}: it overlaps {masks.path(owner[min(taken)]).name}, and a pixel has one class "
                    "only. Correct one of them."
                )
                raise LabelError(msg)
            joined[inside] = number
            owner[number] = name
        return joined

    def _shown(self, i: int, masks: MaskFolder, name: str, lies: Lie) -> NDArray[np.uint16]:
        """Return a mask upright; a mask with its own EXIF orientation is turned by that."""
        stored, own = masks[name], masks.orientations[name]
        shown = self._facts[i].orientation.show(stored) if lies == "stored" else own.show(stored)
        if shown.shape != self.slice_shape(i):
            height, width = self.slice_shape(i)
            turned = " as it is seen" if self._facts[i].shape != self.slice_shape(i) else ""
            msg = (
                f"{masks.path(name)}: the mask is {shown.shape[1]} x {shown.shape[0]} pixels, "
                f"but {self.slice_name(i)} is {width} x {height}{turned}. Give a mask of the same size."
            )
            raise LabelError(msg)
        return np.ascontiguousarray(shown)


def _orientation_notices(
    asked: Lie | None, by_size: Lie | None, settled: Mapping[Lie, int], undecided: int
) -> list[str]:
    """Return notices about the orientation of masks on turned pictures."""
    words = {"seen": "as every viewer shows it", "stored": "as it is stored"}
    notices = [
        f"{counted(number, 'mask')} fit{'s' if number == 1 else ''} the turned picture only {words[lie]}"
        for lie, number in settled.items()
        if number
    ]
    if undecided:
        usual = asked or by_size or "seen"
        why = "" if asked is not None or by_size is None else ", like the masks whose size fits only one way"
        other = "stored" if usual == "seen" else "seen"
        both = f"{counted(undecided, 'mask')} would fit the turned picture both as it is seen and as it is stored"
        notices.append(Message(f"{both}: taken {words[usual]}{why}", Hint.OTHER_ORIENTATION, other=other))
    if notices:
        notices.append("masks are written to lie on the turned pictures in the same way")
    return notices


def _parts_of(
    matches: Mapping[str, str],
) -> tuple[dict[str, tuple[int, LabelStudioMask]], tuple[Segment, ...]]:
    """Return the masks of Label Studio, which saves one file per class and picture, with their labels and classes.

    A single class keeps 255, as in other binary masks; several are numbered in the order of their names.

    Raises:
        LabelError: several annotations of one picture.
    """
    named = {mask: part for mask in matches if (part := label_studio(mask)) is not None}
    tags = sorted({part.tag for part in named.values()})
    numbers = {tag: WHITE if len(tags) == 1 else number for number, tag in enumerate(tags, start=1)}
    first: dict[str, str] = {}
    for mask, part in named.items():
        other = first.setdefault(matches[mask], mask)
        if named[other].annotation != part.annotation:
            msg = (
                f"{matches[mask]}: it has several annotations ({other} and {mask}), which may be of several people. "
                "Keep those of one annotation."
            )
            raise LabelError(msg)
    parts = {mask: (numbers[part.tag], part) for mask, part in named.items()}
    return parts, tuple(Segment(numbers[tag], tag) for tag in tags)


def _rewrite(target: Path, change: Callable[[NDArray[Any]], NDArray[Any]]) -> None:
    with Image.open(target) as image:
        changed = change(np.asarray(image).astype(np.uint16))
    Image.fromarray(changed).save(target, format="PNG")


def survey_pictures(folder: Path) -> tuple[list[Path], LeftOut]:
    """Return the pictures directly in a folder, or else in its subfolders, and what is skipped. Raises `CaseError`.

    Skipped are subfolders with the name of a mask folder, and files such as `NAME_mask.png` beside `NAME.png`.
    """
    left_out = LeftOut()
    return list(_walk(folder, left_out, {os.path.realpath(folder)})), left_out


def _walk(folder: Path, left_out: LeftOut, seen: set[str]) -> Iterator[Path]:
    found = look_into(folder)
    left_out.others.extend(found.others)
    left_out.broken.extend(found.broken)
    masks = set(split_masks(path.with_suffix("").name for path in found.pictures)[1])
    left_out.masks.extend(path for path in found.pictures if path.with_suffix("").name in masks)
    yield from (path for path in found.pictures if path.with_suffix("").name not in masks)
    below = [path for path in found.folders if not is_mask_folder(path.name)]
    left_out.mask_folders.extend(path for path in found.folders if is_mask_folder(path.name))
    if found.pictures:
        left_out.below.extend(path for path in below if any(inside.pictures for inside in each_folder(path)))
        return
    for sub in once(below, seen):
        yield from _walk(sub, left_out, seen)


def find_masks_beside(case: Case) -> Path | None:
    """Find the masks of an opened case of pictures by name, without decoding anything.

    Candidates are masks among the pictures (`NAME_mask.png`), and mask folders in the case's folder or beside it
    (`images` and `masks`, `imagesTr` and `labelsTr`, `JPEGImages` and `SegmentationClass`).

    Returns:
        A folder or file for `read_labels`: the one with masks for most pictures. None if there is none or it cannot be
        read, and for volumes.
    """
    if not isinstance(case, PictureCase):
        return None
    folder = case.path if case.path.is_dir() else case.path.parent
    own = {place_of(file) for file in case.pictures}
    names = [name_in(file.absolute(), case.root) for file in case.pictures]
    if case.path.is_file():
        candidates = [file for file in _look_into(folder).pictures if place_of(file) not in own]
        matched = _matching([file.with_suffix("").name for file in candidates], names)
        return next((file for file in candidates if file.with_suffix("").name in matched), None)
    best: tuple[int, Path] | None = None
    places = [folder, *_mask_folders(folder), *_mask_folders(folder.absolute().parent)]
    for place in places:
        try:
            files = {name: file for name, file in mask_files(place).files.items() if place_of(file) not in own}
        except LabelError:
            continue
        if place == folder and not split_masks([*files, *names])[1]:
            continue  # only pictures, some of which are not part of this case
        number = len(_matching(files, names))
        if number and (best is None or number > best[0]):
            best = number, place
    return best[1] if best is not None else None


def _look_into(folder: Path) -> Folder:
    """List a folder; empty when it cannot be read."""
    try:
        return look_into(folder)
    except CaseError:
        return Folder()


def _mask_folders(folder: Path) -> list[Path]:
    folders = [path for path in _look_into(folder).folders if is_mask_folder(path.name)]
    superfluous = outdone(path.name for path in folders)
    return [path for path in folders if path.name not in superfluous]


def _matching(masks: Iterable[str], names: Sequence[str]) -> set[str]:
    """Return the masks that match a picture; empty if names are ambiguous."""
    try:
        return set(match_masks(masks, names))
    except LabelError:
        return set()


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
            msg = (
                f"{file}: {seen[name].name} has the same name, so their masks would collide. Rename one of them; "
                "if one is the mask of the other, move masks to a folder of their own."
            )
            raise CaseError(msg)
        seen[name] = file


def _files_of(given: Path) -> list[Path]:
    return [path for path in given.rglob("*") if path.is_file()] if given.is_dir() else [given]


def _examine(file: Path, decoder: Callable[[Path], Picture]) -> PictureFacts:
    picture = decoder(file)
    pixels, opacity = _visible(picture)
    finite = int(np.isfinite(pixels).sum()) if pixels.dtype.kind == "f" else pixels.size
    if finite == 0:
        msg = f"{file}: no pixel holds a finite number (all are NaN or infinite). Export the picture again."
        raise CaseError(msg)
    return PictureFacts(
        shape=(int(pixels.shape[0]), int(pixels.shape[1])),
        orientation=picture.orientation,
        is_colour=pixels.ndim == 3,
        is_byte=bool(pixels.dtype == np.uint8),
        fingerprint=hashlib.blake2b(file.read_bytes(), digest_size=16).hexdigest(),
        non_finite=pixels.size - finite,
        frames=picture.frames,
        opacity=opacity,
        spacing=picture.spacing,
    )


def _visible(picture: Picture) -> tuple[NDArray[Any], Literal["none", "left out", "shown"]]:
    """Return the visible pixels and the use of opacity, which replaces the colours where these are all the same.

    Opacity is 8-bit; 16-bit opacity of some TIFF and PNG files is reduced to 8.
    """
    pixels, alpha = picture.pixels, picture.alpha
    if alpha is None:
        return pixels, "none"
    flat = pixels.reshape(alpha.size, -1)
    if not (flat == flat[0]).all():
        return pixels, "left out"
    return (alpha >> 8).astype(np.uint8) if alpha.dtype == np.uint16 else alpha, "shown"


def _values(picture: Picture) -> NDArray[Any]:
    """Return upright pixels: uint8, or float32 with NaN and -inf set to the lowest value and +inf to the highest."""
    shown = picture.orientation.show(_visible(picture)[0])
    if shown.dtype == np.uint8:
        return np.array(shown)
    values = np.array(shown, dtype=np.float32, order="C")
    finite = np.isfinite(values)
    if finite.any() and not finite.all():
        low, high = float(values[finite].min()), float(values[finite].max())
        values = np.nan_to_num(values, nan=low, posinf=high, neginf=low)
    return values
