"""How well a slice's confidence finds bad masks: as the program judges them, and by the probabilities alone.

    python -m benchmarks.confidence --data FOLDER [--sets busi,cvc_clinicdb,…] [--draws 2] [--shots 10] [--json FILE]

Labelled are pictures of `train`, or one slice of each volume in turn, at another height in each; predicted are those of
`test`, at most 160 slices of volumes. Both confidences judge the masks of one training with `balanced`. The area under
the curve is the chance that a slice with Dice below 0.8 has a lower confidence than a better one: 0.5 is guessing.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from benchmarks.cases import SampleCases
from benchmarks.comparison import POOR
from benchmarks.few_shot import WITH_SPLIT
from benchmarks.samples import Sample, load_set
from napari_dinoaugseg.learning.confidence import agreement
from napari_dinoaugseg.learning.features import FeatureStore
from napari_dinoaugseg.learning.predict import choose_finish, choose_tta, predict
from napari_dinoaugseg.learning.settings import Settings
from napari_dinoaugseg.learning.train import fit
from napari_dinoaugseg.model.decoder import Decoder
from napari_dinoaugseg.model.encoder import load_encoder

_MOST = 160  # slices to predict
_SURE = 0.9  # what Review proposes for "Accept"


def measure(data: Path, name: str, draw: int, shots: int) -> dict[str, Any]:
    """Train, predict and judge once; returns a row."""
    pool, scored = load_set(data, name, "train"), load_set(data, name, "test")
    cases = SampleCases([*pool, *scored])
    labelled = _labelled(cases, pool, draw, shots)
    tested = [i for sample in scored for i in cases.indices(sample)]
    tested = [tested[i] for i in np.linspace(0, len(tested) - 1, min(_MOST, len(tested))).astype(int)]
    n_classes = 1 + max(int(mask.max()) for sample in pool for mask in sample.truth)
    settings = Settings.of_preset("balanced", seed=draw)
    store = cases.store(load_encoder("efficientnet-lite0"), settings.input_size, None)
    examples = [cases.example(i) for i in labelled]
    decoder = _train(store, examples, settings, n_classes)
    finish = choose_finish(store, settings, (example.target for example in examples))
    true = np.zeros(len(tested))
    found: dict[str, NDArray[np.float64]] = {}
    tta = choose_tta(store, settings, n_classes)
    for way, judge in (("probabilities", False), ("judged", True)):
        masks = list(predict(store, decoder, tested, tta=tta, finish=finish, judge=judge))
        found[way] = np.array([mask.confidence for mask in masks])
        true = np.array([agreement(mask.classes, cases.truth(mask.index)) for mask in masks])
    poor = true < POOR
    row: dict[str, Any] = {"set": name, "draw": draw, "slices": len(true), "poor": int(poor.sum())}
    for way, values in found.items():
        row[way] = {
            "area": _area(values, poor),
            "error": float(np.abs(values - true).mean()),
            "sure": int((values >= _SURE).sum()),
            "sure_and_poor": int(((values >= _SURE) & poor).sum()),
        }
    return row


def _labelled(cases: SampleCases, pool: Sequence[Sample], draw: int, shots: int) -> list[int]:
    order = np.random.default_rng(draw).permutation(len(pool))
    if all(sample.n_slices == 1 for sample in pool):
        return [i for place in order[:shots] for i in cases.indices(pool[place])]
    samples = [pool[order[shot % len(pool)]] for shot in range(shots)]
    heights = [int((shot + 0.5) / shots * sample.n_slices) for shot, sample in enumerate(samples)]
    return sorted({cases.indices(sample)[height] for sample, height in zip(samples, heights, strict=True)})


def _train(store: FeatureStore, examples: Sequence[Any], settings: Settings, n_classes: int) -> Decoder:
    work = fit(store, examples, settings, n_classes=n_classes)
    while True:
        try:
            next(work)
        except StopIteration as end:
            return end.value.decoder


def _area(confidence: NDArray[np.float64], poor: NDArray[np.bool_]) -> float | None:
    return float(roc_auc_score(poor, -confidence)) if poor.any() and not poor.all() else None


def main() -> None:
    """Print a table; write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with a folder for each set")
    parser.add_argument("--sets", type=lambda text: text.split(","), default=list(WITH_SPLIT))
    parser.add_argument("--draws", type=int, default=2)
    parser.add_argument("--shots", type=int, default=10, help="labelled pictures; twice as many slices of volumes")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    print(
        f"{'set':<16} draw slices  poor   area: probabilities  judged   |error|: probabilities  judged   sure and poor"
    )
    for name in arguments.sets:
        pictures = load_set(arguments.data, name, "train")[0].n_slices == 1
        for draw in range(arguments.draws):
            row = measure(arguments.data, name, draw, arguments.shots * (1 if pictures else 2))
            rows.append(row)
            before, after = row["probabilities"], row["judged"]
            areas = "".join(
                f"{'–' if way['area'] is None else format(way['area'], '.2f'):>12}" for way in (before, after)
            )
            print(
                f"{name:<16} {draw:>4} {row['slices']:>6} {row['poor']:>5}  {areas}{before['error']:>17.3f} "
                f"{after['error']:>10.3f}   {before['sure_and_poor']} of {before['sure']}, "
                f"{after['sure_and_poor']} of {after['sure']}",
                flush=True,
            )
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
