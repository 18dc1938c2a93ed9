from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from benchmarks import completion, rows
from benchmarks.completion import METHODS, scribble, slices_of
from benchmarks.person_scribble import correction, drawn, first_strokes, structures
from napari_dinoaugseg.case.case import UNKNOWN
from napari_dinoaugseg.errors import SettingsError
from tests.benchmarks.sets import write_acdc, write_clinicdb

SHAPE = (80, 90)


def disc(centre: tuple[int, int], radius: float) -> np.ndarray:
    rows_, columns = np.indices(SHAPE)
    return np.hypot(rows_ - centre[0], columns - centre[1]) <= radius


@pytest.fixture
def heart() -> np.ndarray:
    """A disc of class 2 in a ring of class 1, and a speck of class 1 far from it."""
    truth = disc((40, 40), 20).astype(np.uint8) + disc((40, 40), 12)
    truth[5, 85] = 1
    return truth


@pytest.fixture
def image(heart: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, 0.03, SHAPE)
    return (0.2 + 0.3 * heart + noise).clip(0, 1).astype(np.float32)


def test_a_structure_is_a_component_that_is_no_speck(heart):
    assert [number for number, _ in structures(heart)] == [1, 2]
    heart[60:75, 70:85] = 2
    assert [number for number, _ in structures(heart)] == [1, 2, 2]


def test_the_first_strokes_are_one_inside_each_structure_and_a_loop_around(heart):
    strokes = first_strokes(heart)
    assert [stroke.number for stroke in strokes] == [1, 2, 0]
    for stroke in strokes:
        assert stroke.mask.any()
        assert (heart[stroke.mask] == stroke.number).all()
    ring, line, loop = (stroke.mask for stroke in strokes)
    assert ndimage.binary_fill_holes(ring)[40, 40]
    assert not ring[40, 40]
    assert line[40, 40]
    assert np.array_equal(ndimage.binary_fill_holes(loop) & (heart > 0), disc((40, 40), 20))


def test_a_loop_keeps_its_distance_and_wavers(heart):
    away = ndimage.distance_transform_edt(~disc((40, 40), 20))
    loops = {distance: first_strokes(heart, distance=distance)[-1].mask for distance in (0.1, 0.2)}
    near, far = (away[loops[distance]] for distance in (0.1, 0.2))
    assert near.min() >= 2
    assert near.max() < 9
    assert far.mean() > near.mean() + 2
    assert near.max() - near.min() > 2
    assert not np.array_equal(loops[0.1], first_strokes(heart, seed=1)[-1].mask)
    assert np.array_equal(loops[0.1], first_strokes(heart)[-1].mask)


def test_what_leaves_the_slice_is_lost():
    strokes = first_strokes(disc((40, 0), 20).astype(np.uint8))
    assert len(strokes) == 2
    assert not strokes[1].mask[35:45, :5].any()


def test_a_correction_mends_the_largest_wrong_region_and_spoils_nothing(heart):
    found = heart.copy()
    found[30:50, 50:62] = 0
    found[40, :20] = 1  # a pixel wide
    stroke = correction(found, heart)
    assert stroke is not None
    assert stroke.number in (1, 2)
    assert (heart[stroke.mask] == stroke.number).all()
    assert stroke.mask[30:50, 48:64].any()
    assert correction(heart, heart) is None
    thin = heart.copy()
    thin[40, :15] = 1
    assert correction(thin, heart).number == 0


def test_later_strokes_lie_on_top(heart):
    strokes = first_strokes(heart)
    labels = drawn([*strokes, type(strokes[0])(0, strokes[0].mask)], SHAPE)
    assert not (labels == 1).any()
    assert {0, 2, UNKNOWN} == set(np.unique(labels))


def test_more_strokes_are_drawn_until_there_are_enough_a_structure(heart, image):
    seen = []

    def nothing(image, strokes):
        seen.append(strokes)
        return np.where(strokes == UNKNOWN, 0, strokes)

    scores, seconds = scribble(image, heart, nothing, (2, 3), first_strokes(heart))
    assert len(seen) == len(seconds) == 5  # 3, 4 strokes; 4 again, 5 and 6
    painted = [np.count_nonzero(strokes != UNKNOWN) for strokes in seen]
    assert painted == sorted(painted)
    assert set(scores[0]) == {1, 2}
    assert scores[1][1] > scores[0][1]


@pytest.mark.parametrize("method", [name for name in METHODS if name != "nearest"])
def test_every_method_completes_an_easy_slice(method, heart, image):
    scores, _ = scribble(image, heart, METHODS[method], (2,), first_strokes(heart))
    assert min(scores[0].values()) > 0.85


def test_a_run_writes_rows_prints_a_table_and_goes_on(tmp_path: Path, capsys):
    for seed in (1, 2, 3):
        write_clinicdb(tmp_path / "data" / "cvc_clinicdb" / "test", seed, (48, 64))
    words = ["--data", str(tmp_path / "data"), "--out", str(tmp_path), "--sets", "cvc_clinicdb", "--slices", "2"]
    completion.command([*words, "--methods", "completion", "--strokes", "2,4"])
    row = json.loads((tmp_path / rows.FILE).read_text(encoding="utf-8"))
    assert row["slices"] == 2
    assert row["strokes"] == [2, 4]
    assert len(row["dice"]["polyp"]) == 2
    assert str(tmp_path) not in row["command"]
    assert "| cvc_clinicdb | polyp | completion |" in capsys.readouterr().out
    completion.command([*words, "--methods", "completion,nearest", "--strokes", "2,4"])
    assert "1 of 2 jobs" in capsys.readouterr().out


def test_slices_of_a_grey_volume_are_seen_in_its_window(tmp_path: Path):
    write_acdc(tmp_path / "acdc" / "test", 1)
    for entry in slices_of(tmp_path, "acdc", 2):
        assert entry.image.shape == entry.truth.shape
        assert 0 <= entry.image.min() < entry.image.max() <= 1


def test_nonsense_is_refused(tmp_path: Path):
    with pytest.raises(SettingsError, match="must be positive"):
        completion.command(["--data", str(tmp_path), "--out", str(tmp_path), "--distance", "0"])
