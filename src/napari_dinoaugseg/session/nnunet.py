"""Export of labelled cases as a raw dataset of nnU-Net v2, under neutral names.

The format is that of nnU-Net's ``documentation/dataset_format.md`` and ``documentation/ignore_label.md`` (Isensee et
al., Nature Methods 18, 2021; the ignore label: Gotkowski et al., arXiv 2403.12834)::

    Dataset123_Liver/
      dataset.json                    channel_names, labels, numTraining, file_ending
      imagesTr/case_001_0000.nii.gz   one file a channel; pictures: one PNG with all channels
      labelsTr/case_001.nii.gz        labels 0 to K without gaps; K + 1 is "ignore"
      imagesTs/case_002_0000.nii.gz   cases without labels, for nnU-Net to predict

``dataset.json`` also holds ``class_of_label``, the class number of each label, and ``fingerprints``, a hash of the
pixels of each case. nnU-Net copies that file beside the masks that it predicts, and `session.foreign_masks` reads it
there to take the masks back.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from napari_dinoaugseg.case import Case, PictureCase, VolumeCase
from napari_dinoaugseg.case.files import atomic_folder, check_parent, counted, folded, listed
from napari_dinoaugseg.case.sequences import ONE, in_words
from napari_dinoaugseg.errors import LabelError, OutputError, naming_slices
from napari_dinoaugseg.session.labels import UNKNOWN, LabelBook, LabelClass, Labels, Status, foreign_values, new_class

IMAGES, LABELS, OPEN_IMAGES, DESCRIPTION = "imagesTr", "labelsTr", "imagesTs", "dataset.json"
CLASS_TABLE, FINGERPRINTS = "class_of_label", "fingerprints"
_MAKER = "napari-dinoaugseg"
# Names of channels by DICOM modality. nnU-Net chooses the normalisation by this name: "CT" is clipped and scaled by the
# intensities of the whole dataset, any other name means a z-score for each case (explanation_normalization.md). A
# modality that is not listed is "image": text of a DICOM header is never copied.
_CHANNELS = {"CT": "CT", "MR": "MRI", "PT": "PET", "US": "ultrasound", "MG": "mammography", "OPT": "OCT"}
_ANY_CHANNEL = "image"
_COLOURS = ("R", "G", "B")
_RESERVED = ("background", "ignore")
_FOLDS = 5
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


@dataclass(frozen=True, eq=False)
class NnunetCase:
    """A case to export.

    Attributes:
        case: a volume, or pictures, each of which becomes a case of nnU-Net.
        labels: its label book; None = only its images, for nnU-Net to predict.
        identifier: a neutral name of letters, digits, ``-`` and ``_``, such as ``case_007``; pictures add their number.
            None numbers volumes and pictures in the order of export, from ``case_001``.
    """

    case: Case
    labels: LabelBook | None
    identifier: str | None = None


@dataclass(frozen=True)
class NnunetEntry:
    """A row of the table from the names in the dataset to the cases.

    Attributes:
        name: in the dataset.
        case: the number of the case in the order of export, from 0.
        picture: the number of the picture in the case; None for a volume.
        fingerprint: of the volume or picture.
    """

    name: str
    case: int
    picture: int | None
    fingerprint: str


@dataclass(frozen=True)
class NnunetDataset:
    """What was exported.

    Attributes:
        folder: of the dataset.
        entries: one for each case of nnU-Net with labels.
        to_predict: one for each without.
        labels: the names in ``dataset.json`` with their values.
        label_of: the value in the dataset of each class number.
        notices: sentences for the person, which name cases as the dataset does.
    """

    folder: Path
    entries: tuple[NnunetEntry, ...]
    to_predict: tuple[NnunetEntry, ...]
    labels: dict[str, int]
    label_of: dict[int, int]
    notices: tuple[str, ...]


def _silent(_: int) -> None:
    """Take no notice of progress."""


def export_nnunet(
    cases: Iterable[NnunetCase],
    classes: Sequence[LabelClass],
    folder: Path,
    *,
    channel: str | None = None,
    replace: bool = False,
    to_predict: bool = False,
    progress: Callable[[int], None] = _silent,
) -> NnunetDataset:
    """Write a raw dataset of nnU-Net v2, whole or not at all.

    Labels are what a person painted, else what they accepted, see :attr:`SliceLabels.labels`. Everything else is the
    ignore label, on which nnU-Net does not train: pixels that scribbles left open, slices without labels, and
    predictions that nobody accepted. A dataset without such pixels has no ignore label. A volume or picture without any
    label is left out or, with `to_predict`, written without labels. A volume with unevenly spaced slices, which NIfTI
    cannot hold, is left out. Notices name what is left out.

    A volume is written as NIfTI on exactly its own grid, with the values of the file without loss, and one file for
    each colour or sequence if it has several. Pictures are written as PNG, all of them as TIFF if one has values that
    PNG cannot hold. No file name, header text or name of a case enters the dataset.

    Cases are read one after the other, so that a generator may open each one when it is asked for.

    Args:
        cases: what to export. A sequence is checked as a whole before anything is written.
        classes: of all the cases. Numbers with gaps become consecutive labels, by rank; the names of those that change
            end with the number, as do names that are used twice or reserved by nnU-Net ("background", "ignore").
        folder: the dataset, which nnU-Net expects to be called ``DatasetNNN_Name``; new, empty, or with ``replace``.
        channel: the name of the (first) channel of grey cases, which decides the normalisation. None takes the modality
            of the cases ("CT", "MRI"), and "image" if that is unknown or differs: "image" means the z-score of each
            case, which fits any mix, whereas the window that nnU-Net takes for CT would distort the others.
        replace: replace a dataset that this function wrote before.
        to_predict: write volumes and pictures without labels into ``imagesTs``, where nnU-Net predicts them.
        progress: called after each case of nnU-Net with their number so far; an exception abandons the export.

    Raises:
        OutputError: volumes beside pictures, grey beside colour, no class, no labels, an unusable identifier, the
            folder holds something else or a case, or the system refused to write. The folder is unchanged.
        LabelError: a label is not among `classes`.
    """
    folder = Path(folder)
    if not classes:
        msg = f"{folder}: there is no class to export. Add one, or load labels."
        raise OutputError(msg)
    _check_folder(folder, replace=replace)
    if isinstance(cases, Sequence):
        _require_alike([given.case for given in cases])
    with atomic_folder(folder, whole=True) as temporary:
        writer = _Writer(folder, temporary, classes, progress, to_predict=to_predict)
        for given in cases:
            writer.add(given)
        return writer.finish(channel)


def is_nnunet_export(folder: Path) -> bool:
    """Return whether a folder holds a dataset that :func:`export_nnunet` wrote, and nothing else."""
    try:
        content = {path.name: path for path in folder.iterdir()}
        if set(content) - {OPEN_IMAGES} != {IMAGES, LABELS, DESCRIPTION}:
            return False
        described = json.loads(content[DESCRIPTION].read_text(encoding="utf-8"))
        count, ending = int(described["numTraining"]), str(described["file_ending"])
        channels = len(described["channel_names"]) if ending == ".nii.gz" else 1
        files = {name: list(path.iterdir()) for name, path in content.items() if name != DESCRIPTION}
        known = {
            f"{name}_{channel:04d}{ending}" for name in described.get(FINGERPRINTS, ()) for channel in range(channels)
        }
        made = str(described["converted_by"]).startswith(_MAKER)
    except (OSError, ValueError, KeyError, TypeError):
        return False
    right = all(path.is_file() and path.name.endswith(ending) for paths in files.values() for path in paths)
    right = right and {path.name for path in files.get(OPEN_IMAGES, ())} <= known
    return made and right and len(files[LABELS]) == count and len(files[IMAGES]) == count * channels


def picture_name(identifier: str, picture: int) -> str:
    """The name in the dataset of a picture of a case, by its number from 0."""
    return f"{identifier}-{picture + 1:03d}"


def _check_folder(folder: Path, *, replace: bool) -> None:
    check_parent(folder)
    if folder.exists() and not folder.is_dir():
        msg = f"{folder}: this is a file, but a dataset of nnU-Net is a folder. Name a folder."
        raise OutputError(msg)
    if not folder.exists() or not any(folder.iterdir()):
        return
    if not is_nnunet_export(folder):
        msg = f"{folder}: this folder holds something else, and a dataset of nnU-Net needs a folder of its own. "
        raise OutputError(msg + "Choose another one, such as Dataset001_Name in the folder nnUNet_raw.")
    if not replace:
        msg = f"{folder}: it already holds an exported dataset. Choose another folder, or remove this one."
        raise OutputError(msg)


@dataclass(frozen=True)
class _Kind:
    """What all cases of a dataset have in common."""

    pictures: bool
    colour: bool
    sequences: tuple[str, ...] = ONE

    @property
    def words(self) -> str:
        kind = f"{'colour' if self.colour else 'grey'} {'pictures' if self.pictures else 'volumes'}"
        return kind if self.sequences == ONE else f"{kind} with {in_words(self.sequences)}"


def _kind_of(case: Case) -> _Kind:
    if isinstance(case, PictureCase):
        if case.has_colour != case.is_colour:
            raise OutputError(_mixed(case, "grey and colour pictures"))
        return _Kind(pictures=True, colour=case.is_colour)
    return _Kind(pictures=False, colour=case.is_colour, sequences=tuple(folded(name) for name in case.sequences))


def _mixed(case: Case, what: str) -> str:
    return (
        f"{case.name}: {what} cannot share a dataset of nnU-Net, whose cases all have the same channels and format. "
        "Export them separately."
    )


def _require_alike(cases: Iterable[Case]) -> None:
    first: _Kind | None = None
    for case in cases:
        kind = _kind_of(case)
        if first is not None and kind != first:
            raise OutputError(_mixed(case, f"{first.words} and {kind.words}"))
        first = kind


def _channel(modalities: Iterable[str | None]) -> str:
    """The name of a channel that all cases share."""
    found = {_CHANNELS.get(modality or "", _ANY_CHANNEL) for modality in modalities}
    return found.pop() if len(found) == 1 else _ANY_CHANNEL


def _label_names(classes: Sequence[LabelClass]) -> dict[str, int]:
    """Return the labels of ``dataset.json`` without "ignore": unique names with 0, 1, 2 … in the order of classes."""
    names, taken = {"background": 0}, set(_RESERVED)
    given = Counter(entry.name.strip().casefold() for entry in classes)
    for label, entry in enumerate(classes, 1):
        name = " ".join(entry.name.split())
        unnamed = name == new_class(entry.number).name  # holds its number already
        if (entry.number != label and not unnamed) or not name or given[entry.name.strip().casefold()] > 1:
            name = f"{name} (class {entry.number})".strip()
        while name.casefold() in taken:  # reserved, or the very name that another class got
            name = f"{name} (class {entry.number})"
        taken.add(name.casefold())
        names[name] = label
    return names


@dataclass
class _Facts:
    """What the notices are made of: names in the dataset, by notice."""

    unlabelled: list[str] = field(default_factory=list)
    uneven: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    unseen: list[str] = field(default_factory=list)
    unsized: list[str] = field(default_factory=list)
    in_time: list[str] = field(default_factory=list)
    skewed: list[str] = field(default_factory=list)
    lost_size: list[str] = field(default_factory=list)
    modalities: defaultdict[int, set[str | None]] = field(default_factory=lambda: defaultdict(set))  # by channel


class _Writer:
    """Writes cases into the temporary folder of a dataset, one after the other."""

    def __init__(
        self,
        target: Path,
        folder: Path,
        classes: Sequence[LabelClass],
        progress: Callable[[int], None],
        *,
        to_predict: bool,
    ) -> None:
        self.target, self.folder = target, folder
        self.progress = progress
        self.classes = sorted(classes, key=lambda entry: entry.number)
        self.names = _label_names(self.classes)
        self.label_of = {entry.number: label for label, entry in enumerate(self.classes, 1)}
        self.ignore = len(self.classes) + 1
        self._table = np.zeros(UNKNOWN + 1, np.uint16)
        self._table[list(self.label_of)] = list(self.label_of.values())
        self._table[UNKNOWN] = self.ignore
        self.kind: _Kind | None = None
        self.ending = ".nii.gz"
        self.entries: list[NnunetEntry] = []
        self.to_predict: list[NnunetEntry] = []
        self.facts = _Facts()
        self._takes_open = to_predict
        self._taken: set[str] = set()
        self._cases = self._numbered = 0
        for name in (IMAGES, LABELS, *([OPEN_IMAGES] if to_predict else [])):
            (folder / name).mkdir()

    def add(self, given: NnunetCase) -> None:
        """Write a volume, or the pictures of a case."""
        case, kind = given.case, _kind_of(given.case)
        if self.kind is None:
            self.kind, self.ending = kind, ".png" if kind.pictures else ".nii.gz"
        if kind != self.kind:
            raise OutputError(_mixed(case, f"{self.kind.words} and {kind.words}"))
        if case.path.resolve().is_relative_to(self.target.resolve()):
            msg = f"{self.target}: {case.name} lies in this folder, which the export would replace. Choose another one."
            raise OutputError(msg)
        if isinstance(case, PictureCase):
            for i in range(case.n_slices):
                self._add_picture(case, given.labels, i, self._name(given, i))
        elif isinstance(case, VolumeCase):
            self._add_volume(case, given.labels, self._name(given))
        else:
            msg = f"a case of type {type(case).__name__}"
            raise TypeError(msg)
        self._cases += 1

    def _name(self, given: NnunetCase, picture: int | None = None) -> str:
        self._numbered += 1
        name = f"case_{self._numbered:03d}"
        if given.identifier is not None:
            name = given.identifier if picture is None else picture_name(given.identifier, picture)
        if not _NAME.fullmatch(name) or name in self._taken:
            problem = "is used twice" if name in self._taken else "holds other characters than letters, digits, - and _"
            msg = f"{self.target}: the identifier {name!r} {problem}. Give each case one of its own, such as case_001."
            raise OutputError(msg)
        self._taken.add(name)
        return name

    def _add_volume(self, case: VolumeCase, book: LabelBook | None, name: str) -> None:
        is_open = book is None or not book.labelled
        if case.grid.is_uneven and (self._takes_open or not is_open):
            self.facts.uneven.append(name)
            return
        if book is None or is_open:
            if self._may_stay_open(name):
                self._write_images(case, name, is_open=True)
                self._open(NnunetEntry(name, self._cases, None, case.fingerprint))
            return
        ignored = []

        def mask(i: int) -> Labels:
            labels = self._target(case, book, i)
            ignored.append(bool((labels == self.ignore).any()))
            return labels

        self._write_images(case, name)
        case.write_anonymous([], self.folder / LABELS / f"{name}{self.ending}", mask)
        for wanted, names in (
            (not case.grid.has_size and not case.grid.in_time, self.facts.unsized),
            (case.grid.in_time, self.facts.in_time),
            (case.itk_refuses, self.facts.skewed),
        ):
            if wanted:
                names.append(name)
        unseen = bool(book.unseen((Status.MANUAL, Status.ACCEPTED)))
        self._done(case, name, None, case.fingerprint, ignored=any(ignored), unseen=unseen)

    def _write_images(self, case: VolumeCase, name: str, *, is_open: bool = False) -> None:
        """Write a file for each colour, or for each sequence."""
        if case.is_colour:
            case.write_anonymous([self._image(name, channel, is_open=is_open) for channel in range(len(_COLOURS))])
            return
        for channel, sequence in enumerate(case.sequences.values()):
            sequence.write_anonymous([self._image(name, channel, is_open=is_open)])

    def _may_stay_open(self, name: str) -> bool:
        """Whether a volume or picture without labels is written; a notice names it otherwise."""
        if not self._takes_open:
            self.facts.unlabelled.append(name)
        return self._takes_open

    def _image(self, name: str, channel: int = 0, *, is_open: bool = False) -> Path:
        """The file of a channel."""
        return self.folder / (OPEN_IMAGES if is_open else IMAGES) / f"{name}_{channel:04d}{self.ending}"

    def _add_picture(self, case: PictureCase, book: LabelBook | None, i: int, name: str) -> None:
        is_open = book is None or book.of_slice(i).is_empty
        if is_open and not self._may_stay_open(name):
            return
        pixels = _storable(case.slice(i))
        if pixels.dtype == np.float32 and self.ending == ".png":
            self._turn_to_tiff()
        _save_picture(self._image(name, is_open=is_open), pixels)
        if book is None or is_open:
            self._open(NnunetEntry(name, self._cases, i, case.slice_fingerprint(i)))
            return
        labels = self._target(case, book, i)
        _save_picture(
            self.folder / LABELS / f"{name}{self.ending}", labels.astype(np.uint8 if self.ignore < 256 else np.uint16)
        )
        if case.slice_spacing(i) is not None:
            self.facts.lost_size.append(name)
        ignored = bool((labels == self.ignore).any())
        self._done(case, name, i, case.slice_fingerprint(i), ignored=ignored, unseen=not book.of_slice(i).seen)

    def _done(
        self, case: Case, name: str, picture: int | None, fingerprint: str, *, ignored: bool, unseen: bool
    ) -> None:
        self.entries.append(NnunetEntry(name, self._cases, picture, fingerprint))
        for channel, sequence in enumerate(case.sequences.values()):
            self.facts.modalities[channel].add(sequence.modality)
        if ignored:
            self.facts.ignored.append(name)
        if unseen:
            self.facts.unseen.append(name)
        self._report()

    def _open(self, entry: NnunetEntry) -> None:
        self.to_predict.append(entry)
        self._report()

    def _report(self) -> None:
        self.progress(len(self.entries) + len(self.to_predict))

    def _target(self, case: Case, book: LabelBook, i: int) -> Labels:
        """Return the labels (H, W) of a slice in the values of the dataset."""
        labels = book.of_slice(i).labels
        if labels is None:
            return np.full(case.slice_shape(i), self.ignore, np.uint16)
        foreign = foreign_values(labels, self.label_of)
        if foreign:
            what = f": its labels hold the value {foreign[0]}, which is not a class."
            remedy = f" Add class {foreign[0]}, or remove these labels."
            raise LabelError(naming_slices(f"{case.name}, ", *case.slice_parts(i), what + remedy))
        target: Labels = self._table[labels]
        return target

    def _turn_to_tiff(self) -> None:
        """Write the pictures so far as TIFF: a dataset has one format, and PNG does not hold fractions."""
        self.ending = ".tif"
        for path in [*self.folder.glob("*/*.png")]:
            with Image.open(path) as image:
                _save_picture(path.with_suffix(".tif"), np.asarray(image))
            path.unlink()

    def finish(self, channel: str | None) -> NnunetDataset:
        """Write ``dataset.json``."""
        if not self.entries or self.kind is None:
            why = f" ({'; '.join(sentence.rstrip('.') for sentence in _left_out(self.facts))})" if self._cases else ""
            remedy = "Choose other cases." if self.facts.uneven else "Paint or accept labels first."
            msg = f"{self.target}: no case can be exported{why}. {remedy}"
            raise OutputError(msg)
        labels = dict(self.names)
        if self.facts.ignored:
            labels["ignore"] = self.ignore
        channels = list(_COLOURS if self.kind.colour else map(_channel, self.facts.modalities.values()))
        if channel is not None and not self.kind.colour:
            channels[0] = channel
        described: dict[str, Any] = {
            "channel_names": {str(number): name for number, name in enumerate(channels)},
            "labels": labels,
            "numTraining": len(self.entries),
            "file_ending": self.ending,
            "converted_by": _maker(),
            CLASS_TABLE: {str(label): number for number, label in self.label_of.items()},
            FINGERPRINTS: {entry.name: entry.fingerprint for entry in (*self.entries, *self.to_predict)},
        }
        if self.facts.skewed:
            described["overwrite_image_reader_writer"] = "NibabelIO"
        # ASCII, because nnU-Net reads it in the encoding of the system.
        text = json.dumps(described, indent=2, ensure_ascii=True)
        (self.folder / DESCRIPTION).write_text(text + "\n", encoding="ascii")
        notices = [*self._class_notices(), *self._case_notices(), *self._dataset_notices(self.kind, channel)]
        entries, to_predict = tuple(self.entries), tuple(self.to_predict)
        return NnunetDataset(self.target, entries, to_predict, labels, self.label_of, tuple(notices))

    def _class_notices(self) -> Iterable[str]:
        names = {label: name for name, label in self.names.items()}
        moved = [entry for entry in self.classes if self.label_of[entry.number] != entry.number]
        if moved:
            pairs = [f"class {entry.number} is label {self.label_of[entry.number]}" for entry in moved]
            yield f"nnU-Net needs labels without gaps: {', '.join(pairs)}."
        renamed = [entry for entry in self.classes if entry not in moved and names[entry.number] != entry.name]
        for entry in renamed:
            yield f"Class {entry.number} is called {names[entry.number]!r}: its name is empty, used twice or reserved."

    def _case_notices(self) -> Iterable[str]:
        yield from _left_out(self.facts)
        count = len(self.entries)
        if self.to_predict:
            names = [entry.name for entry in self.to_predict]
            open_cases = f"{counted(len(names), 'case')} for nnU-Net to predict, without labels in {OPEN_IMAGES}"
            yield f"{open_cases}: {listed(names)}."
        if self.facts.ignored:
            yield (
                f"{len(self.facts.ignored)} of {counted(count, 'case')} {_has(self.facts.ignored)} pixels without a "
                f"painted or accepted label: there the dataset has {self.ignore} ('ignore'), on which nnU-Net does not "
                "train."
            )
        sentences = (
            (self.facts.unseen, "{has} labels that nobody has looked at"),
            (self.facts.unsized, "{has} no voxel size: 1 mm is written"),
            (self.facts.in_time, "{has} frames in time: they are written as slices, whose distance means nothing"),
            (
                self.facts.skewed,
                "{has} axes that are not at right angles, which ITK refuses: nnU-Net is told to read with nibabel",
            ),
            (self.facts.lost_size, "{has} a pixel size, which pictures cannot hold"),
        )
        for names, sentence in sentences:
            if names:
                yield f"{counted(len(names), 'case')} {sentence.format(has=_has(names))}: {listed(names)}."

    def _dataset_notices(self, kind: _Kind, channel: str | None) -> Iterable[str]:
        if not kind.colour:
            yield from self._channel_notices(kind, channel)
        if self.ending == ".tif":
            yield "Some pictures hold values that PNG cannot: all are written as TIFF."
        if len(self.entries) < _FOLDS:
            count = counted(len(self.entries), "case")
            yield f"nnU-Net trains {_FOLDS} folds by default and needs at least {_FOLDS} cases; here {_are(count)}."
        if not re.fullmatch(r"Dataset\d{3}_\w+", self.target.name):
            yield "nnU-Net finds a dataset by its name: call the folder DatasetNNN_Name, and put it into nnUNet_raw."

    def _channel_notices(self, kind: _Kind, channel: str | None) -> Iterable[str]:
        for number, found in sorted(self.facts.modalities.items()):
            if number == 0 and channel is not None:
                continue
            which = "the channel" if len(kind.sequences) == 1 else f"channel {number}"
            known = sorted({"unknown" if name is None else _CHANNELS.get(name, "other") for name in found})
            if len(known) > 1:
                yield (
                    f"The cases have several modalities ({', '.join(known)}): {which} is called {_ANY_CHANNEL!r}, and "
                    "nnU-Net normalises each case by itself (z-score)."
                )
            elif not kind.pictures and found == {None}:
                yield (
                    f"The files do not give their modality: {which} is called {_ANY_CHANNEL!r}, and nnU-Net normalises "
                    f"each case by itself (z-score). For CT, change this name to 'CT' in {DESCRIPTION}."
                )


def _left_out(facts: _Facts) -> Iterable[str]:
    for names, why in ((facts.unlabelled, "no label"), (facts.uneven, "slices at uneven distances")):
        if names:
            yield f"{counted(len(names), 'case')} with {why} left out: {listed(names)}."


def _has(names: Sequence[str]) -> str:
    return "has" if len(names) == 1 else "have"


def _are(count: str) -> str:
    return f"{'is' if count.startswith('1 ') else 'are'} {count}"


def _maker() -> str:
    try:
        return f"{_MAKER} {version(_MAKER)}"
    except PackageNotFoundError:
        return _MAKER


def _storable(pixels: NDArray[Any]) -> NDArray[Any]:
    """Return a picture as uint8 or uint16 where that loses nothing, else as float32."""
    if pixels.dtype == np.uint8 or pixels.ndim == 3:
        return pixels
    whole = pixels.astype(np.uint16) if pixels.min() >= 0 and pixels.max() <= 65535 else None
    return whole if whole is not None and (whole == pixels).all() else pixels.astype(np.float32)


def _save_picture(path: Path, pixels: NDArray[Any]) -> None:
    if path.suffix == ".png":
        Image.fromarray(np.ascontiguousarray(pixels)).save(path, format="PNG")
        return
    kind = "rgb" if pixels.ndim == 3 else "minisblack"
    tifffile.imwrite(path, pixels, photometric=kind, compression="zlib", metadata=None, software=False)
