"""Figures of the paper, and what its authors published of their splits (github.com/apple1986/DINO-AugSeg).

The authors label the first N of a list; `authors.json` has as many of its names as the paper needs. The lists are
public for all sets but ISIC 2018. Of their test lists those of LA2018, Synapse and TN3K are public. That of ACDC is
what their 80 training patients leave of the 100. That of Kvasir-SEG is what their 880 training pictures leave of the
1000: the 120 names of the official split (`kvasir-seg-train-val/val.txt` in
github.com/DebeshJha/2020-MediaEval-Medico-polyp-segmentation).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

ENCODER = "dinov3-convnext-large"
INPUT_SIZE = 768
PASSES = 2000
BATCH = 2


@dataclass(frozen=True)
class Figures:
    """Of one experiment of the paper.

    Attributes:
        dice: mean over classes and samples, in percent.
        dice_of: the same by class number, where it was published.
        hd95: in voxels.
        hd95_of: by class number.
        higher: Dice of other methods in the same experiment that is higher than the paper's, by their name.
    """

    dice: float
    dice_of: Mapping[int, float] = field(default_factory=dict)
    hd95: float | None = None
    hd95_of: Mapping[int, float] = field(default_factory=dict)
    higher: Mapping[str, float] = field(default_factory=dict)


ACDC = {7: Figures(81.85, {1: 80.63, 2: 79.58, 3: 85.34}, 9.96, {1: 4.75, 2: 9.97, 3: 15.17})}
LA2018 = {7: Figures(86.22)}
SYNAPSE = {7: Figures(71.19)}
TN3K = {25: Figures(60.13), 100: Figures(65.40, higher={"SegDINO": 66.16})}
KVASIR = {10: Figures(73.59), 40: Figures(78.61)}
ISIC2018 = {5: Figures(67.64), 25: Figures(78.53, higher={"SegDINO": 79.38})}

ACDC_PATIENTS = frozenset(f"patient{number:03d}" for number in range(1, 101))
"""Those of whom the authors chose."""


def authors_draw(dataset: str) -> tuple[str, ...]:
    """The patients, or pictures, that the authors label, in their order; empty where that is not public."""
    return tuple(_LISTS.get(dataset, {}).get("draw", ()))


def authors_test(dataset: str) -> frozenset[str]:
    """The patients that the authors test on; empty where that is not public, or part of the data set itself."""
    return frozenset(_LISTS.get(dataset, {}).get("test", ()))


_LISTS = json.loads(Path(__file__).with_name("authors.json").read_text(encoding="utf-8"))
