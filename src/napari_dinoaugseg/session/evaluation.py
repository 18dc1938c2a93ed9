"""Evaluation against true masks: of one volume or a folder of pictures, or of rounds with a simulated person."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from napari_dinoaugseg.case import Grid, MaskFolder, MaskOptions, Plane, match_masks, read_mask_folder
from napari_dinoaugseg.case.case import ReadLabels
from napari_dinoaugseg.case.geometry import Layout, finest_plane
from napari_dinoaugseg.case.labels import read_mask_volumes
from napari_dinoaugseg.errors import LabelError, Message
from napari_dinoaugseg.learning.events import Report, ignore
from napari_dinoaugseg.learning.metrics import Score, mean_of, score
from napari_dinoaugseg.session.labels import UNKNOWN, Labels, classes_of
from napari_dinoaugseg.session.session import Session

StrategyName = Literal["suggested", "even", "random"]


@dataclass(frozen=True)
class ClassResult:
    """One class over the volume, or its mean over the pictures.

    Attributes:
        dice: 0 to 1.
        hd95: in ``unit`` of the evaluation; None if one mask lacks the class.
        asd: likewise.
        volume: of the prediction, in ml; in pixels per picture if no spacing is known.
        truth_volume: of the truth.
    """

    dice: float
    hd95: float | None
    asd: float | None
    volume: float
    truth_volume: float


@dataclass(frozen=True)
class Evaluation:
    """Results of all classes in the compared slices.

    Attributes:
        classes: results by class number.
        slices: how many slices or pictures were compared.
        unit: of distances: ``mm``, or ``px`` if no spacing is known.
        unmatched: how many true masks have no prediction, and are not compared.
        notices: sentences for the person.
    """

    classes: dict[int, ClassResult]
    slices: int
    unit: str
    unmatched: int = 0
    notices: tuple[str, ...] = ()

    def mean(self, name: str) -> float | None:
        """Mean of ``dice``, ``hd95`` or ``asd`` over the classes that have it."""
        return mean_of(getattr(result, name) for result in self.classes.values())


def evaluate(
    prediction: Path,
    truth: Path,
    *,
    slices: Sequence[int] | None = None,
    exclude: Sequence[int] = (),
    plane: Plane | str | None = None,
    masks: MaskOptions | None = None,
) -> Evaluation:
    """Compare two mask files on one voxel grid, or two folders of masks matched by name.

    Args:
        prediction: file or folder.
        truth: the same kind.
        slices: the slices to compare (pictures: in natural order of their names); None = all.
        exclude: slices to leave out.
        plane: in which the slices are numbered; None = the one with the finest pixels.
        masks: how to read masks of pictures. Pixels that are unknown in the truth are not compared; masks with an
            orientation tag are compared as they are seen, unless the options ask for "stored".

    Raises:
        LabelError: not masks, different grids or sizes, nothing to compare, or a slice that does not exist.
    """
    for path in (prediction, truth):
        if not path.exists():
            msg = f"{path}: no such file or folder. Check the path."
            raise LabelError(msg)
    if prediction.is_dir() != truth.is_dir():
        msg = f"{prediction} and {truth}: one is a folder, the other a file. Compare two folders or two files."
        raise LabelError(msg)
    if truth.is_dir():
        return _evaluate_pictures(prediction, truth, slices, exclude, masks or MaskOptions())
    return _evaluate_volume(prediction, truth, slices, exclude, plane)


def _evaluate_volume(
    prediction: Path, truth: Path, slices: Sequence[int] | None, exclude: Sequence[int], plane: Plane | str | None
) -> Evaluation:
    masks = read_mask_volumes(prediction, truth)
    grid = masks.grid
    layout = _layout(grid, plane)
    true, found = layout.apply(masks.second), layout.apply(masks.first)
    chosen = _chosen(truth, len(true), slices, exclude)
    if grid.in_time:
        return Evaluation(_frame_by_frame(found[chosen], true[chosen], truth), len(chosen), "px", notices=masks.notices)
    counted = np.zeros(true.shape, dtype=bool)
    counted[chosen] = True
    numbers = np.union1d(np.unique(true[chosen]), np.unique(found[chosen]))
    spacing = layout.permuted(grid.spacing) if grid.known else (1.0, 1.0, 1.0)
    unit_volume = float(np.prod(spacing)) / 1000 if grid.known else 1.0
    classes = {
        int(number): _result(score(found == number, true == number, spacing, counted), unit_volume)
        for number in numbers
        if number
    }
    _check_not_empty(classes, truth)
    return Evaluation(classes, len(chosen), "mm" if grid.known else "px", notices=masks.notices)


def _frame_by_frame(found: Labels, true: Labels, truth: Path) -> dict[int, ClassResult]:
    """Compare frames (n, H, W) one by one, like pictures, because time is not a distance."""
    numbers = sorted({int(n) for n in np.unique(true)} - {0})
    scores = {
        number: [score(one == number, other == number, (1.0, 1.0)) for one, other in zip(found, true, strict=True)]
        for number in numbers
    }
    _check_not_empty(scores, truth)
    return {number: _mean_result(values) for number, values in scores.items()}


def _layout(grid: Grid, plane: Plane | str | None) -> Layout:
    chosen = finest_plane(grid) if plane is None else Plane(plane)
    if chosen is Plane.NATIVE or not grid.known:
        return Layout.native()
    return Layout.display(grid).sliced(chosen)


def _evaluate_pictures(
    prediction: Path, truth: Path, slices: Sequence[int] | None, exclude: Sequence[int], options: MaskOptions
) -> Evaluation:
    true_masks, found_masks = read_mask_folder(truth, options), read_mask_folder(prediction, options)
    notices: list[str] = [
        Message(notice).reworded(f"{folder}: {notice}")
        for folder, masks in ((truth, true_masks), (prediction, found_masks))
        for notice in masks.notices
    ]
    try:
        pairs = list(match_masks(found_masks, true_masks, notices).items())
    except LabelError as error:
        msg = f"{prediction} and {truth} do not fit together: {error}"
        raise LabelError(msg) from error
    chosen = [pairs[index] for index in _chosen(truth, len(pairs), slices, exclude)]
    scores: dict[int, list[Score]] = {}
    numbers = sorted({int(n) for _, name in chosen for n in np.unique(true_masks[name])} - {0, UNKNOWN})
    for found_name, true_name in chosen:
        found, true = _oriented(found_masks, found_name, options), _oriented(true_masks, true_name, options)
        if found.shape != true.shape:
            msg = (
                f"{found_masks.path(found_name)}: the mask is {found.shape[1]} x {found.shape[0]} pixels, but "
                f"{true_masks.path(true_name)} is {true.shape[1]} x {true.shape[0]}. Compare masks of one picture."
            )
            raise LabelError(msg)
        for number in numbers:
            result = score(found == number, true == number, (1.0, 1.0), true != UNKNOWN)
            scores.setdefault(number, []).append(result)
    _check_not_empty(scores, truth)
    classes = {number: _mean_result(values) for number, values in scores.items()}
    return Evaluation(classes, len(chosen), "px", len(true_masks) - len(pairs), tuple(notices))


def _oriented(masks: MaskFolder, name: str, options: MaskOptions) -> NDArray[np.uint16]:
    """A mask as stored, or turned by its orientation tag as it is seen."""
    return masks[name] if options.orientation == "stored" else masks.orientations[name].show(masks[name])


def _chosen(truth: Path, n_slices: int, slices: Sequence[int] | None, exclude: Sequence[int]) -> list[int]:
    wrong = [index for index in (*(slices or ()), *exclude) if not 0 <= index < n_slices]
    if wrong:
        last = n_slices - 1
        msg = f"{truth}: slice {wrong[0]} does not exist; slices are numbered 0 to {last}. Check the numbers."
        raise LabelError(msg)
    left = sorted(set(range(n_slices) if slices is None else slices) - set(exclude))
    if not left:
        msg = f"{truth}: no slice is left to compare. Leave out fewer slices."
        raise LabelError(msg)
    return left


def _result(found: Score, unit_volume: float) -> ClassResult:
    return ClassResult(found.dice, found.hd95, found.asd, found.voxels * unit_volume, found.truth_voxels * unit_volume)


def _mean_result(scores: Sequence[Score]) -> ClassResult:
    return ClassResult(
        dice=float(np.mean([entry.dice for entry in scores])),
        hd95=mean_of(entry.hd95 for entry in scores),
        asd=mean_of(entry.asd for entry in scores),
        volume=float(np.mean([entry.voxels for entry in scores])),
        truth_volume=float(np.mean([entry.truth_voxels for entry in scores])),
    )


def _check_not_empty(classes: dict[int, ClassResult] | dict[int, list[Score]], truth: Path) -> None:
    if not classes:
        msg = f"{truth}: both masks are empty on the slices to compare. Choose other slices or files."
        raise LabelError(msg)


# --- the simulated person -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SimulatedRound:
    """The result of one round.

    Attributes:
        labelled: all slices labelled so far.
        dice: by class number, over the voxels of the unlabelled slices; empty if all are labelled.
        seconds: of training and prediction.
    """

    labelled: list[int]
    dice: dict[int, float]
    seconds: float

    @property
    def mean_dice(self) -> float | None:
        """Mean over the classes."""
        return float(np.mean(list(self.dice.values()))) if self.dice else None


def simulate(
    session: Session,
    truth: Mapping[int, Labels],
    counts: Sequence[int],
    strategy: StrategyName,
    seed: int = 0,
    *,
    report: Report = ignore,
) -> Iterator[SimulatedRound]:
    """Play ``len(counts)`` rounds: label ``counts[r]`` slices with the truth, train, predict; yields a result for each.

    The first slices are spread evenly over those that hold the structure (``random``: drawn from them), like those of a
    person who scrolls through the case. Afterwards the strategy chooses among all slices.

    Args:
        session: without labels.
        truth: the true mask of each slice that is not background, (H, W). UNKNOWN pixels are not used.
        counts: slices to label in each round.
        strategy: ``suggested`` takes the session's suggestions, ``even`` halves the largest gaps, ``random`` draws.
        seed: of the draws.
        report: receives progress and notices.

    Raises:
        LabelError: the truth is empty.
    """
    holding = sorted(index for index, labels in truth.items() if ((labels > 0) & (labels != UNKNOWN)).any())
    if not holding:
        msg = "The true mask holds only background, so nothing can be simulated."
        raise LabelError(msg)
    numbers = {int(value) for labels in truth.values() for value in np.unique(labels)} - {UNKNOWN}
    session.labels.replace_classes(classes_of(numbers, truth.segments if isinstance(truth, ReadLabels) else ()))
    random = np.random.default_rng(seed)
    for number, count in enumerate(counts):
        chosen = (
            first_slices(holding, count, strategy, random)
            if number == 0
            else next_slices(session, count, strategy, random)
        )
        for index in chosen:
            session.paint(index, _true_slice(session, truth, index))
        started = time.monotonic()
        for event in session.train():
            report(event)
        for _ in session.predict(chosen[0] if chosen else 0, report=report):
            pass
        yield SimulatedRound(session.labels.labelled, _dice(session, truth), time.monotonic() - started)


def first_slices(holding: Sequence[int], count: int, strategy: StrategyName, random: np.random.Generator) -> list[int]:
    """The slices of the first round: ``count`` of those that hold the structure, or all if there are fewer."""
    count = min(count, len(holding))
    if strategy == "random":
        return sorted(int(index) for index in random.choice(holding, size=count, replace=False))
    # Middles of equal parts: neither the first nor the last slice, which hold little of the structure.
    return [holding[int((part + 0.5) * len(holding) / count)] for part in range(count)]


def next_slices(session: Session, count: int, strategy: StrategyName, random: np.random.Generator) -> list[int]:
    """The slices of a later round: ``count`` unlabelled ones by the strategy, or all if there are fewer."""
    if strategy == "suggested":
        return [suggestion.index for suggestion in session.suggest(count)]
    labelled = set(session.labels.labelled)
    n_slices = session.case.n_slices
    left = [index for index in range(n_slices) if index not in labelled]
    if strategy == "random":
        return sorted(int(index) for index in random.choice(left, size=min(count, len(left)), replace=False))
    chosen: list[int] = []
    while len(chosen) < min(count, len(left)):
        taken = sorted(labelled | set(chosen))
        free = [index for index in left if index not in chosen]
        chosen.append(max(free, key=lambda index: (min(abs(index - other) for other in taken), -index)))
    return chosen


def _true_slice(session: Session, truth: Mapping[int, Labels], index: int) -> Labels:
    empty: Labels = np.zeros(session.case.slice_shape(index), np.uint16)
    return truth.get(index, empty)


def _dice(session: Session, truth: Mapping[int, Labels]) -> dict[int, float]:
    labelled = set(session.labels.labelled)
    left = [index for index in range(session.case.n_slices) if index not in labelled]
    result = {}
    for entry in session.labels.classes:
        overlap = size = 0
        for index in left:
            truly = _true_slice(session, truth, index)
            found = (session.labels.result(index) == entry.number) & (truly != UNKNOWN)
            true = truly == entry.number
            overlap += int(np.count_nonzero(found & true))
            size += int(np.count_nonzero(found)) + int(np.count_nonzero(true))
        if size:
            result[entry.number] = 2 * overlap / size
    return result
