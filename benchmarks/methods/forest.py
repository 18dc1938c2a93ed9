"""A random forest on frozen features, pixel by pixel: what interactive classifiers of pixels do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier

from benchmarks.methods.problem import Learnt, Limit, Problem, encode
from napari_dinoaugseg.learning.augmentation import View
from napari_dinoaugseg.learning.events import Prediction
from napari_dinoaugseg.learning.features import SliceView
from napari_dinoaugseg.learning.postprocessing import mask_of
from napari_dinoaugseg.learning.train import resize_target

_STRIDE = 2  # of the pixels that are learnt and predicted, as in the head of our decoder
_PIXELS = 20_000  # to learn from, in all labelled slices and their views together
_VIEWS = 7  # of each labelled slice, as in the preset `balanced`; without them forests were worse in trials
_TREES, _AT_A_TIME = 100, 10
_FLOOR = 1e-3  # probability that no tree's vote is taken for, so that its logarithm is finite


def learn_forest(problem: Problem) -> Learnt:
    """Grow trees on a sample of the labelled pixels until the plan or the time is done."""
    views = problem.views(_VIEWS)
    pairs = [(index, view) for index in problem.labelled for view in views]
    encode(problem, pairs)
    limit = Limit(problem)
    values, classes = _sample(problem, pairs)
    forest = RandomForestClassifier(
        0, max_features="sqrt", min_samples_leaf=2, warm_start=True, random_state=problem.seed, n_jobs=1
    )
    while forest.n_estimators < _TREES and not (forest.n_estimators and limit.is_reached):
        forest.set_params(n_estimators=forest.n_estimators + _AT_A_TIME)
        forest.fit(values, classes)
    seconds = limit.seconds

    def masks(order: Sequence[int]) -> Iterator[Prediction]:
        side = problem.store.input_size // _STRIDE
        for index in order:
            probability = np.full((side * side, problem.n_classes), _FLOOR, np.float32)
            probability[:, forest.classes_] += forest.predict_proba(_features(problem, index))
            logits = torch.from_numpy(np.log(probability).T.reshape(problem.n_classes, side, side).copy())
            yield mask_of(logits, index, problem.cases.slices.slice_shape(index))

    return Learnt(masks, forest.n_estimators, _TREES, seconds, len(pairs))


def _features(problem: Problem, index: int, view: View | None = None) -> NDArray[np.float32]:
    """All maps of a view of a slice, enlarged and laid on one another: (pixels, channels)."""
    side = problem.store.input_size // _STRIDE
    maps = [
        F.interpolate(stage[None].float(), size=(side, side), mode="bilinear", align_corners=False)[0]
        for stage in problem.store.features(index, view)
    ]
    return torch.cat(maps).flatten(1).T.contiguous().numpy()


def _sample(problem: Problem, pairs: Sequence[SliceView]) -> tuple[NDArray[np.float32], NDArray[np.int16]]:
    """Features and classes of pixels drawn at random, as many from each view of a labelled slice.

    As they come: drawn evenly from the classes they made forests worse in trials.
    """
    random = np.random.default_rng(problem.seed)
    side = problem.store.input_size // _STRIDE
    count = min(side * side, max(1, _PIXELS // len(pairs)))
    values, classes = [], []
    for index, view in pairs:
        target = resize_target(problem.target(index, view), side).flatten().numpy()
        chosen = random.choice(side * side, size=count, replace=False)
        values.append(_features(problem, index, view)[chosen])
        classes.append(target[chosen])
    return np.concatenate(values), np.concatenate(classes)
