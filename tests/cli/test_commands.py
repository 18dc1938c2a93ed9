"""The commands as a person uses them, on a volume that can be learnt in seconds: results, summaries, JSON."""

from __future__ import annotations

import shutil
import sys

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from napari_dinoaugseg import __version__
from napari_dinoaugseg.case import open_case
from napari_dinoaugseg.case.case import Segment
from tests.blobs import LABELLED, SHAPE, image_voxels, truth_voxels
from tests.case.builders import listing, write_dicom
from tests.cli.conftest import QUICK, run_command

pytestmark = pytest.mark.slow
SEGMENT_KEYS = {
    *("mask", "encoder", "preset", "device", "slices", "encoded", "seconds", "steps", "final_loss", "model"),
}
LEFT_OUT = ",".join(str(index) for index in LABELLED)


def voxels(path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


def overlap(found: np.ndarray, true: np.ndarray) -> float:
    return 2 * np.count_nonzero(found & true) / (np.count_nonzero(found) + np.count_nonzero(true))


# --- segment --------------------------------------------------------------------------------------------------------


def test_segment_prints_one_json_object_with_the_agreed_keys(segmented):
    result = segmented.outcome.json
    assert set(result) == SEGMENT_KEYS
    assert set(result["seconds"]) == {"encode", "train", "predict", "total"}
    assert result["slices"] == {"total": 16, "labelled": 3, "predicted": 13}
    assert (result["mask"], result["model"]) == ("mask.nii.gz", "model.safetensors")
    assert (result["encoder"], result["preset"], result["device"]) == ("efficientnet-lite0", "fast", "cpu")
    assert result["encoded"] >= 16
    assert result["steps"] > 0
    assert 0 < result["final_loss"] < 1
    assert 0 < result["seconds"]["train"] < result["seconds"]["total"]


def test_progress_goes_to_standard_error(segmented):
    for words in ("image: 16 slices, 3 labelled; encoder efficientnet-lite0", "training", "predicting", "loss"):
        assert words in segmented.outcome.errors


def test_the_mask_is_good_and_lies_where_the_case_lies(segmented):
    image, mask = nib.load(segmented.folder / "image.nii.gz"), nib.load(segmented.folder / "mask.nii.gz")
    assert mask.shape == image.shape
    assert np.array_equal(mask.affine, image.affine)
    assert mask.header["sform_code"] == image.header["sform_code"]
    assert mask.header["qform_code"] == image.header["qform_code"]
    found, true = voxels(segmented.folder / "mask.nii.gz"), truth_voxels()
    assert found.dtype == np.uint8
    assert set(np.unique(found)) == {0, 1, 3}
    assert min(overlap(found == number, true == number) for number in (1, 3)) > 0.85


def test_labelled_slices_come_out_exactly_as_painted_and_are_certain(segmented):
    mask, sure = voxels(segmented.folder / "mask.nii.gz"), voxels(segmented.folder / "sure.nii.gz")
    assert np.array_equal(mask[..., LABELLED], truth_voxels()[..., LABELLED])
    assert sure.dtype == np.float32
    assert (sure[..., LABELLED] == 1).all()
    assert 0 <= sure.min() < 1


def test_the_run_leaves_its_results_and_nothing_else(segmented, blob_files):
    results = {"mask.nii.gz", "model.safetensors", "sure.nii.gz"}
    left = listing(segmented.folder)
    assert set(left) == set(listing(blob_files)) | results
    assert all(left[name] == content for name, content in listing(blob_files).items())


def test_the_same_seed_writes_the_same_bytes(segmented, dinoaugseg, case):
    """In a cache of its own, so that nothing is taken over from the first run."""
    results = ("--out", "mask.nii.gz", "--model-out", "model.safetensors", "--confidence-out", "sure.nii.gz")
    outcome = dinoaugseg("segment", "image.nii.gz", "--labels", "labels.nii.gz", *results, *QUICK, "--json")
    assert outcome.json["encoded"] == segmented.outcome.json["encoded"]
    for name in ("mask.nii.gz", "model.safetensors", "sure.nii.gz"):
        assert (case / name).read_bytes() == (segmented.folder / name).read_bytes(), name


def test_a_second_run_encodes_nothing_and_prints_a_summary(segmented, case):
    shutil.copytree(segmented.cache, case / "cache")
    arguments = ("segment", "image.nii.gz", "--labels", "labels.nii.gz", "--out", "mask.nii.gz", *QUICK)
    cache = {"DINOAUGSEG_CACHE": str(case / "cache")}
    assert run_command(case, *arguments, "--json", **cache).json["encoded"] == 0
    assert (case / "mask.nii.gz").read_bytes() == (segmented.folder / "mask.nii.gz").read_bytes()


def test_a_saved_model_is_continued_with_the_labels_of_the_next_patient(segmented, dinoaugseg, case):
    """Without --json the summary is for reading; named slices count although two of them hold no paint."""
    before = (segmented.folder / "model.safetensors").read_bytes()
    (case / "model.safetensors").write_bytes(before)
    labels = ("--labels", "truth.nii.gz", "--slices", "0,8,15")
    model = ("--warm-start", "model.safetensors", "--model-out", "next.safetensors")
    outcome = dinoaugseg("segment", "next.nii.gz", *labels, *model, "--out", "mask.nii.gz", *QUICK)
    assert outcome.code == 0, outcome.errors
    for words in ("mask      mask.nii.gz", "model     next.safetensors", "16: 3 labelled, 13 predicted", "label slice"):
        assert words in outcome.output
    steps = int(outcome.output.partition("training  ")[2].split()[0])
    assert 0 < steps < segmented.outcome.json["steps"]
    assert (case / "model.safetensors").read_bytes() == before
    assert (case / "next.safetensors").read_bytes() != before
    mask = voxels(case / "mask.nii.gz")
    assert np.array_equal(mask[..., (0, 8, 15)], truth_voxels()[..., (0, 8, 15)])
    assert overlap(mask > 0, truth_voxels() > 0) > 0.8


# --- the same for other kinds of case ------------------------------------------------------------------------------


@pytest.fixture
def pictures(tmp_path):
    """Six grey pictures of different sizes, each with a bright disc; binary masks of three of them."""
    for folder in ("scans", "masks"):
        (tmp_path / folder).mkdir()
    random = np.random.default_rng(0)
    for number in range(6):
        height, width = 60 + 4 * number, 72 - 3 * number
        row, column = np.indices((height, width))
        disc = (row - 28) ** 2 + (column - 20 - 3 * number) ** 2 < 15**2
        grey = np.clip(random.normal(60, 15, disc.shape) + 120 * disc, 0, 255).astype(np.uint8)
        Image.fromarray(grey).save(tmp_path / "scans" / f"case {number}.png")
        if number < 3:
            Image.fromarray(np.where(disc, 255, 0).astype(np.uint8)).save(
                tmp_path / "masks" / f"case {number}_mask.png"
            )
    return tmp_path


def test_a_folder_of_pictures_becomes_a_folder_of_masks(dinoaugseg, pictures):
    outcome = dinoaugseg("segment", "scans", "--labels", "masks", "--out", "out", *QUICK, "--json")
    assert outcome.json["slices"] == {"total": 6, "labelled": 3, "predicted": 3}
    assert sorted(path.name for path in (pictures / "out").iterdir()) == [f"case {n}.png" for n in range(6)]
    for number in range(6):
        image = np.asarray(Image.open(pictures / "scans" / f"case {number}.png"))
        mask = np.asarray(Image.open(pictures / "out" / f"case {number}.png"))
        assert mask.shape == image.shape
        assert set(np.unique(mask)) == {0, 255}
        if number < 3:
            given = np.asarray(Image.open(pictures / "masks" / f"case {number}_mask.png"))
            assert np.array_equal(mask, given)
        else:
            assert overlap(mask > 0, image > 120) > 0.7
    compared = dinoaugseg("evaluate", "out", "masks", "--json").json
    assert compared["mean"] == {"dice": 1.0, "hd95_px": 0.0, "asd_px": 0.0}
    assert set(compared["classes"]["255"]) == {"name", "dice", "hd95_px", "asd_px", "size_px", "truth_size_px"}
    assert compared["slices"] == 3


def test_a_dicom_folder_gets_a_mask_on_its_grid(dinoaugseg, tmp_path):
    series = np.moveaxis(image_voxels(), (2, 1, 0), (0, 1, 2))  # slice, row, column
    write_dicom(tmp_path / "scan", series.astype(np.int16), intercept=0)
    grid = open_case(tmp_path / "scan").grid
    painted = np.zeros(SHAPE, np.uint8)
    painted[..., LABELLED] = truth_voxels()[..., LABELLED]
    nib.save(nib.Nifti1Image(painted, grid.affine), tmp_path / "labels.nii.gz")
    outcome = dinoaugseg("segment", "scan", "--labels", "labels.nii.gz", "--out", "mask.nii.gz", *QUICK, "--json")
    assert outcome.json["slices"] == {"total": 16, "labelled": 3, "predicted": 13}
    mask = nib.load(tmp_path / "mask.nii.gz")
    assert mask.shape == SHAPE
    assert np.allclose(mask.affine, grid.affine, atol=1e-5)
    found = voxels(tmp_path / "mask.nii.gz")
    assert np.array_equal(found[..., LABELLED], painted[..., LABELLED])
    assert overlap(found > 0, truth_voxels() > 0) > 0.8


def test_contours_of_a_planning_system_are_labels_and_masks(dinoaugseg, tmp_path):
    series = np.moveaxis(image_voxels(), (2, 1, 0), (0, 1, 2))  # slice, row, column
    write_dicom(tmp_path / "scan", series.astype(np.int16), intercept=0)
    case = open_case(tmp_path / "scan")
    truth = np.moveaxis(truth_voxels(), (2, 1, 0), (0, 1, 2))
    painted = np.zeros_like(truth)
    painted[list(LABELLED)] = truth[list(LABELLED)]
    case.write_mask(tmp_path / "plan.rtstruct.dcm", painted.__getitem__, [Segment(1, "Liver"), Segment(3, "Spleen")])
    refused = dinoaugseg(
        *("segment", "scan", "--labels", "plan.rtstruct.dcm", "--out", "mask.rtstruct.dcm", *QUICK),
        *("--confidence-out", "sure.rtstruct.dcm"),
    )
    assert refused.code == 1
    assert "contours (RTSTRUCT) hold no confidence" in refused.errors
    outcome = dinoaugseg(
        *("segment", "scan", "--labels", "plan.rtstruct.dcm", "--out", "mask.rtstruct.dcm", *QUICK, "--json"),
        *("--label-table-out", "mask.txt"),
    )
    assert outcome.json["slices"] == {"total": 16, "labelled": 3, "predicted": 13}
    assert "Slices without a contour lie between others with one" in outcome.errors
    found = case.read_labels(tmp_path / "mask.rtstruct.dcm")
    assert [entry.name for entry in found.segments] == ["Liver", "Spleen"]
    for i in LABELLED:
        assert np.array_equal(found[i], truth[i])
    assert '"Spleen"' in (tmp_path / "mask.txt").read_text(encoding="utf-8")
    compared = dinoaugseg("evaluate", "mask.rtstruct.dcm", "mask.rtstruct.dcm")
    assert compared.code == 1
    assert "holds contours and no voxels" in compared.errors


# --- the other commands ---------------------------------------------------------------------------------------------


def test_predict_uses_a_saved_model_on_the_next_case(segmented, dinoaugseg, case):
    shutil.copy(segmented.folder / "model.safetensors", case)
    rest = ("--model", "model.safetensors", "--out", "mask.nii.gz", "--confidence-out", "sure.nii.gz")
    result = dinoaugseg("predict", "next.nii.gz", *rest, "--device", "cpu", "--json").json
    assert set(result) == SEGMENT_KEYS
    assert result["slices"] == {"total": 16, "labelled": 0, "predicted": 16}
    assert (result["encoder"], result["preset"], result["encoded"]) == ("efficientnet-lite0", "fast", 16)
    assert (result["steps"], result["final_loss"], result["model"]) == (0, None, None)
    assert overlap(voxels(case / "mask.nii.gz") > 0, truth_voxels() > 0) > 0.85
    assert voxels(case / "sure.nii.gz").max() <= 1


def test_a_model_whose_encoder_learned_is_used_on_the_next_case(dinoaugseg, case):
    adapt = [argument if argument != "fast" else "adapt" for argument in QUICK]
    labels = ("--labels", "labels.nii.gz", "--out", "mask.nii.gz", "--model-out", "adapted.safetensors")
    outcome = dinoaugseg("segment", "image.nii.gz", *labels, *adapt, "--json")
    assert (outcome.json["preset"], outcome.json["steps"]) == ("adapt", 330)
    stages = [line.split(maxsplit=3)[:3] for line in outcome.errors.splitlines()]
    assert ["training", "110", "steps"] in stages
    assert ["adapting", "220", "steps"] in stages
    rest = ("--model", "adapted.safetensors", "--out", "next_mask.nii.gz", "--device", "cpu", "--json")
    assert dinoaugseg("predict", "next.nii.gz", *rest).json["preset"] == "adapt"
    assert overlap(voxels(case / "next_mask.nii.gz") > 0, truth_voxels() > 0) > 0.85


def test_evaluate_gives_figures_as_json(segmented, dinoaugseg):
    shown = dinoaugseg(
        *("evaluate", segmented.folder / "mask.nii.gz", segmented.folder / "truth.nii.gz"),
        *("--exclude-slices", LEFT_OUT, "--json"),
    ).json
    assert set(shown) == {"classes", "mean", "slices"}
    assert set(shown["classes"]) == {"1", "3"}
    for entry in shown["classes"].values():
        assert set(entry) == {"name", "dice", "hd95_mm", "asd_mm", "volume_ml", "truth_volume_ml"}
    assert set(shown["mean"]) == {"dice", "hd95_mm", "asd_mm"}
    assert shown["slices"] == 13
    kept = [index for index in range(16) if index not in LABELLED]
    found, true = voxels(segmented.folder / "mask.nii.gz")[..., kept], truth_voxels()[..., kept]
    for number in (1, 3):
        entry = shown["classes"][str(number)]
        assert entry["dice"] == pytest.approx(overlap(found == number, true == number))
        assert entry["truth_volume_ml"] == pytest.approx(np.count_nonzero(true == number) * 1.2 * 1.1 * 4 / 1000)
        assert 0 <= entry["asd_mm"] <= entry["hd95_mm"]


def test_evaluate_counts_the_named_slices_and_prints_a_table(segmented, dinoaugseg):
    """The labelled slices are as painted, so they agree entirely."""
    files = (segmented.folder / "mask.nii.gz", segmented.folder / "truth.nii.gz")
    outcome = dinoaugseg("evaluate", *files, "--slices", LEFT_OUT)
    assert outcome.code == 0, outcome.errors
    lines = outcome.output.splitlines()
    assert lines[0].split() == ["class", "Dice", "HD95", "mm", "ASD", "mm", "volume", "ml", "truth", "ml"]
    assert [line.split()[:2] for line in lines[1:4]] == [[name, "1.0000"] for name in ("1", "3", "mean")]
    assert lines[4] == "over 3 slices"


def test_simulate_plays_rounds(dinoaugseg, case):
    rounds = ("--rounds", 2, "--slices-per-round", "2,1")
    outcome = dinoaugseg("simulate", "image.nii.gz", "--truth", "truth.nii.gz", *rounds, *QUICK, "--json")
    result = outcome.json
    assert set(result) == {"rounds", "strategy"}
    assert result["strategy"] == "suggested"
    assert [len(entry["labelled"]) for entry in result["rounds"]] == [2, 3]
    assert set(result["rounds"][0]["labelled"]) < set(result["rounds"][1]["labelled"])
    for entry in result["rounds"]:
        assert set(entry) == {"labelled", "dice", "mean_dice", "seconds"}
        assert entry["mean_dice"] == pytest.approx(np.mean(list(entry["dice"].values())))
    assert result["rounds"][-1]["mean_dice"] > 0.7


def test_encoders_are_listed_and_one_is_checked(dinoaugseg):
    result = dinoaugseg("encoders", "--check", "efficientnet-lite0", "--device", "cpu", "--json").json
    listed = {entry["name"]: entry for entry in result["encoders"]}
    assert list(listed) == [
        *(f"dinov3-convnext-{size}" for size in ("tiny", "small", "base", "large")),
        "efficientnet-lite0",
    ]
    for entry in listed.values():
        assert set(entry) == {"name", "channels", "weights", "licence", "megabytes"}
        assert entry["weights"] in ("local", "download", "package", "missing")
    assert listed["efficientnet-lite0"]["weights"] == "package"
    assert listed["dinov3-convnext-large"]["channels"] == [192, 384, 768, 1536]
    assert result["check"]["fingerprint"].startswith("efficientnet-lite0:")


def test_the_version_is_printed(dinoaugseg):
    outcome = dinoaugseg("--version")
    assert (outcome.code, outcome.output.strip()) == (0, f"dinoaugseg {__version__}")


def test_help_names_every_command(dinoaugseg):
    outcome = dinoaugseg("--help")
    assert outcome.code == 0
    for command in ("segment", "predict", "evaluate", "simulate", "encoders", "demo"):
        assert command in outcome.output


@pytest.mark.skipif(sys.platform != "linux", reason="only there do tests copy processes")
@pytest.mark.parametrize("arguments", [("--version",), ("evaluate", "nothing.nii.gz", "truth.nii.gz"), ("segment",)])
def test_a_copied_process_does_as_one_of_its_own(dinoaugseg, arguments):
    """What most tests of the command rely on."""
    assert dinoaugseg(*arguments) == dinoaugseg(*arguments, SOMETHING_ELSE="1")
