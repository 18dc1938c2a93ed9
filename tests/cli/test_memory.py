"""A large case on a small machine."""

import json
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest

SHAPE = (512, 512, 300)
LIMIT = 3.0  # GB of resident memory

# Runs the command, then tells the largest resident memory of this process, in bytes. No step of a training takes more
# memory than the first ones.
RUN_AND_MEASURE = """
import resource, sys
from napari_dinoaugseg.cli.app import app
from napari_dinoaugseg.learning import settings
settings.PRESETS = {"fast": {**settings.PRESETS["fast"], "steps": 10, "shows": 0}}
app(sys.argv[1:], standalone_mode=False)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(peak if sys.platform == "darwin" else 1024 * peak, file=sys.stderr)
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no getrusage")
def test_a_ct_of_300_slices_is_segmented_within_3_gb(tmp_path):
    """512 x 512 x 300 voxels, three slices labelled, at 256 x 256 with the offline encoder."""
    rows, columns = np.indices(SHAPE[:2])
    disc = (rows - 200) ** 2 + (columns - 300) ** 2 < 90**2
    noise = np.random.default_rng(0).integers(-60, 60, SHAPE[:2], dtype=np.int16)
    image = np.broadcast_to((noise + np.where(disc, 150, -100)).astype(np.int16)[..., None], SHAPE)
    labels = np.zeros(SHAPE, np.uint8)
    labels[..., [60, 150, 240]] = disc[..., None]
    affine = np.diag([0.8, 0.8, 1.5, 1.0])
    nib.save(nib.Nifti1Image(image, affine), tmp_path / "ct.nii")
    nib.save(nib.Nifti1Image(labels, affine), tmp_path / "labels.nii.gz")
    arguments = ["segment", "ct.nii", "--labels", "labels.nii.gz", "--out", "mask.nii.gz", "--plane", "axial"]
    arguments += ["--preset", "fast", "--encoder", "efficientnet-lite0", "--device", "cpu", "--json"]
    done = subprocess.run(
        [sys.executable, "-c", RUN_AND_MEASURE, *arguments], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout)["slices"] == {"total": 300, "labelled": 3, "predicted": 297}
    peak = int(done.stderr.split()[-1]) / 1e9
    assert peak < LIMIT, f"{peak:.2f} GB"
    assert nib.load(tmp_path / "mask.nii.gz").shape == SHAPE
