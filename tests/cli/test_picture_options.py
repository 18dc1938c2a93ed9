"""What the command does with masks of pictures: how they lie, what is unknown, how they are named; and what it says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from napari_dinoaugseg.case.case import UNKNOWN
from tests.cli.conftest import QUICK

pytestmark = pytest.mark.slow
HEIGHT, WIDTH = 48, 64
Y, X = np.mgrid[:HEIGHT, :WIDTH]
POLYP = (Y - 16) ** 2 + (X - 20) ** 2 < 64
OUTSIDE = (Y - 24) ** 2 + (X - 32) ** 2 > 30**2


def mask_with_unknown() -> np.ndarray:
    mask = np.where(OUTSIDE, 255, 0).astype(np.uint8)
    mask[POLYP] = 1
    return mask


def write(folder: Path, *, tag: int, masks: dict[str, np.ndarray], count: int = 3) -> None:
    """Pictures of one polyp with an orientation (a half turn changes no size), and masks."""
    (folder / "scans").mkdir()
    (folder / "masks").mkdir()
    for n in range(count):
        noise = np.random.default_rng(n).integers(0, 30, (HEIGHT, WIDTH, 3))
        seen = np.clip(60 + noise + 120 * POLYP[..., np.newaxis], 0, 255).astype(np.uint8)
        exif = Image.Exif()
        exif[274] = tag
        Image.fromarray(seen[::-1, ::-1] if tag == 3 else seen).save(folder / "scans" / f"p{n}.png", exif=exif)
    for name, mask in masks.items():
        Image.fromarray(mask).save(folder / "masks" / f"{name}.png")


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


@pytest.mark.parametrize("lies", ["seen", "stored"])
def test_masks_lie_on_turned_pictures_as_chosen_and_so_do_the_results(lies: str, dinoaugseg: Any, tmp_path: Path):
    given = np.where(POLYP, 255, 0).astype(np.uint8)
    given = given if lies == "seen" else np.ascontiguousarray(given[::-1, ::-1])
    write(tmp_path, tag=3, masks={"p0": given, "p1": given})
    chosen = () if lies == "seen" else ("--mask-orientation", "stored")
    outcome = dinoaugseg("segment", "scans", "--labels", "masks", "--out", "out", *chosen, *QUICK, "--json")
    assert outcome.json["slices"] == {"total": 3, "labelled": 2, "predicted": 1}
    other = "stored" if lies == "seen" else "seen"
    assert f"--mask-orientation {other} takes the other" in outcome.errors
    for name in ("p0", "p1"):
        assert np.array_equal(pixels(tmp_path / "out" / f"{name}.png"), given)
    found = pixels(tmp_path / "out" / "p2.png") > 0
    assert 2 * (found & (given > 0)).sum() > 0.6 * (found.sum() + (given > 0).sum())


def test_unknown_pixels_stay_so_and_are_not_counted(dinoaugseg: Any, tmp_path: Path):
    mask = mask_with_unknown()
    write(tmp_path, tag=1, masks={f"p{n}": mask for n in range(3)})
    rest = ("--labels", "masks", "--out", "out", "--slices", "0,1", *QUICK, "--json")
    outcome = dinoaugseg("segment", "scans", *rest)
    assert outcome.json["slices"] == {"total": 3, "labelled": 2, "predicted": 1}
    assert "Note: 255 beside other labels (1) is taken as unknown" in outcome.errors
    for name in ("p0", "p1"):
        assert np.array_equal(pixels(tmp_path / "out" / f"{name}.png"), mask)
    assert set(np.unique(pixels(tmp_path / "out" / "p2.png"))) <= {0, 1}
    spoilt = mask.copy()
    spoilt[OUTSIDE] = 1  # where the truth says nothing
    Image.fromarray(spoilt).save(tmp_path / "out" / "p0.png")
    compared = dinoaugseg("evaluate", "out", "masks", "--slices", "0,1", "--json")
    assert compared.json["classes"]["1"]["dice"] == 1.0
    assert "masks: 255 beside other labels (1) is taken as unknown" in compared.errors
    as_class = dinoaugseg("evaluate", "out", "masks", "--slices", "0,1", "--ignore", "none", "--json").json
    assert set(as_class["classes"]) == {"1", "255"}
    assert as_class["classes"]["1"]["dice"] < 1


def test_a_simulation_learns_and_counts_nothing_where_the_truth_is_unknown(dinoaugseg: Any, tmp_path: Path):
    write(tmp_path, tag=1, masks={f"p{n}": mask_with_unknown() for n in range(3)})
    rounds = ("--rounds", 1, "--slices-per-round", "2")
    outcome = dinoaugseg("simulate", "scans", "--truth", "masks", *rounds, *QUICK, "--json")
    assert set(outcome.json["rounds"][0]["dice"]) == {"1"}
    assert "taken as unknown" in outcome.errors


def test_masks_with_orientations_of_their_own_are_compared_as_they_are_seen(dinoaugseg: Any, tmp_path: Path):
    mask = np.where(POLYP, 255, 0).astype(np.uint8)
    for folder, turned in (("a", False), ("b", True)):
        (tmp_path / folder).mkdir()
        exif = Image.Exif()
        exif[274] = 3 if turned else 1
        Image.fromarray(mask[::-1, ::-1] if turned else mask).save(tmp_path / folder / "x.png", exif=exif)
    assert dinoaugseg("evaluate", "a", "b", "--json").json["mean"]["dice"] == 1.0
    stored = dinoaugseg("evaluate", "a", "b", "--mask-orientation", "stored", "--json").json
    assert stored["mean"]["dice"] < 0.5


def test_colours_and_names_of_a_table_become_classes(tmp_path: Path):
    from napari_dinoaugseg.case import open_case
    from napari_dinoaugseg.session.session import Session

    mask = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    mask[POLYP] = (200, 40, 0)
    write(tmp_path, tag=1, masks={"p0": mask})
    (tmp_path / "masks" / "labelmap.txt").write_text("background:0,0,0::\npolyp:200,40,0::\n")
    said: list[str] = []
    session = Session(open_case(tmp_path / "scans"), notify=said.append)
    assert session.load_labels(tmp_path / "masks") == [0]
    assert [(one.number, one.name, one.colour) for one in session.labels.classes] == [(1, "polyp", "#c82800")]
    assert said == ["Note: colours are explained by labelmap.txt: 1 polyp"]


def test_unknown_pixels_reach_the_label_book(tmp_path: Path):
    from napari_dinoaugseg.case import open_case
    from napari_dinoaugseg.session.session import Session

    write(tmp_path, tag=1, masks={"p0": mask_with_unknown()})
    session = Session(open_case(tmp_path / "scans"))
    session.load_labels(tmp_path / "masks")
    assert [one.number for one in session.labels.classes] == [1]
    assert np.array_equal(session.labels.truth(0) == UNKNOWN, OUTSIDE & ~POLYP)
    assert 0 in session.labels.open_slices


@pytest.mark.parametrize("option", [("--mask-orientation", "seen"), ("--ignore", "255")])
def test_options_about_pictures_are_refused_for_volumes(option: tuple[str, str], refused: Any, case: Path):
    rest = ("--labels", "labels.nii.gz", "--out", "mask.nii.gz", *option)
    refused("segment", "image.nii.gz", *rest, says="are for masks of pictures", names="image")
    refused(
        "evaluate", "truth.nii.gz", "labels.nii.gz", *option, says="are for folders with masks of pictures", names=None
    )
