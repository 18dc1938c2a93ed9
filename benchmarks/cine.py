"""A heart beat of 30 frames, three of them labelled, the others predicted: Dice of the left ventricle.

    python -m benchmarks.cine --data FOLDER [--preset fast] [--patients 3]

The Sunnybrook set holds two labelled frames of each slice, the end of diastole and of systole. The frames between them
are made from these two: warped along their optical flow, blended, with noise; the outlines follow the same flow. So
the motion is simulated, the hearts are real. The beat is written as NIfTI (x, y, 1, t) and opened like a patient's.
Labelled are the end of diastole, the end of systole and a frame between; only the other 27 are scored.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import distance_transform_edt
from skimage.registration import optical_flow_tvl1
from skimage.transform import warp

from napari_dinoaugseg import Session, Settings, open_case
from napari_dinoaugseg.learning.metrics import dice
from napari_dinoaugseg.session.labels import new_class

FRAMES, LABELLED = 30, (0, 8, 15)
_NOISE = 0.02  # of the brightest pixel

Frame = tuple[NDArray[np.float64], NDArray[np.bool_]]


def phases(patient: Path) -> tuple[Frame, Frame]:
    """The two labelled frames, image and cavity of the left ventricle, of the middle slice that has both."""
    found: dict[str, dict[float, Frame]] = {}
    for phase in ("ED", "ES"):
        found[phase] = {}
        for file in (patient / phase / "dicom").iterdir():
            dataset = pydicom.dcmread(file)
            mask = np.asarray(Image.open(patient / phase / "masks" / f"{file.stem}.png")) == 1
            found[phase][round(float(dataset.SliceLocation), 1)] = dataset.pixel_array.astype(np.float64), mask
    shared = sorted(set(found["ED"]) & set(found["ES"]))
    middle = shared[len(shared) // 2]
    return found["ED"][middle], found["ES"][middle]


def beat(diastole: Frame, systole: Frame, seed: int = 0) -> tuple[NDArray[np.int16], NDArray[np.bool_]]:
    """Images and cavities (FRAMES, H, W) from one diastole to the next; the middle one is the systole."""
    brightest = max(diastole[0].max(), systole[0].max())
    flow = optical_flow_tvl1(diastole[0] / brightest, systole[0] / brightest)
    rows, columns = np.indices(diastole[0].shape)
    noise = np.random.default_rng(seed)

    def moved(image: NDArray[Any], share: float) -> NDArray[np.float64]:
        made: NDArray[np.float64] = warp(image, np.array([rows + share * flow[0], columns + share * flow[1]]))
        return made

    images, cavities = [], []
    for number in range(FRAMES):
        share = float(np.sin(np.pi * number / FRAMES) ** 2)
        pairs = [
            (moved(one, -share), moved(other, 1 - share))
            for one, other in zip(
                (diastole[0], _distance(diastole[1])), (systole[0], _distance(systole[1])), strict=True
            )
        ]
        image, distance = ((1 - share) * one + share * other for one, other in pairs)
        images.append(image + noise.normal(0, _NOISE * brightest, image.shape))
        cavities.append(distance > 0)
    return np.clip(images, 0, 32767).astype(np.int16), np.array(cavities)


def _distance(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Distance from the outline, positive inside."""
    inside: NDArray[np.float64] = distance_transform_edt(mask) - distance_transform_edt(~mask)
    return inside


def measure(patient: Path, settings: Settings, folder: Path) -> tuple[float, float, float]:
    """Mean and least Dice of the frames that were not labelled, and the seconds to train and predict."""
    images, cavities = beat(*phases(patient))
    path = folder / f"{patient.name}.nii.gz"
    nib.save(nib.Nifti1Image(images.transpose(2, 1, 0)[:, :, np.newaxis], np.diag([-1.0, -1.0, 8.0, 1.0])), path)
    session = Session(open_case(path), settings)
    session.labels.label({i: cavities[i].astype(np.uint16) for i in LABELLED}, classes=[new_class(1, "left ventricle")])
    started = time.monotonic()
    for _ in session.train():
        pass
    for _ in session.predict():
        pass
    seconds = time.monotonic() - started
    others = [i for i in range(FRAMES) if i not in LABELLED]
    found = [dice(session.labels.result(i) == 1, cavities[i]) for i in others]
    return float(np.mean(found)), float(np.min(found)), seconds


def main() -> None:
    """Measure each patient, and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the folder sunnybrook_dicom")
    parser.add_argument("--preset", default="fast", choices=["fast", "balanced"])
    parser.add_argument("--patients", type=int, default=3)
    options = parser.parse_args()
    settings = Settings.of_preset(options.preset, encoder="efficientnet-lite0")
    patients = sorted((options.data / "sunnybrook_dicom").glob("t*/SCD*"), key=lambda path: path.name)
    with tempfile.TemporaryDirectory() as folder:
        for patient in patients[: options.patients]:
            mean, least, seconds = measure(patient, settings, Path(folder))
            print(f"{patient.name}: mean Dice {mean:.1%}, least {least:.1%}, {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main()
