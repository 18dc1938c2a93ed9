from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.samples import SETS, Sample, load_set
from napari_dinoaugseg.errors import CaseError
from tests.benchmarks.sets import WRITERS, write_clinicdb, write_lung_ct


def write(name: str, root: Path) -> None:
    for seed in (1, 2):
        WRITERS[name](root / name / "train", seed)
    WRITERS[name](root / name / "test", 3)


def test_every_set_in_a_folder_has_a_layout_to_test() -> None:
    assert WRITERS.keys() == {name for name in SETS if not SETS[name].installed}


def test_the_sample_of_the_program_needs_no_folder(tmp_path: Path) -> None:
    pytest.importorskip("nilearn")
    (sample,) = load_set(tmp_path / "nowhere", "brain_sample")
    assert (sample.n_slices, sample.spacing) == (140, pytest.approx((1, 1, 1)))
    assert {int(value) for value in np.unique(sample.truth[70])} == {0, 1, 2}
    assert sample.images[70][sample.truth[70] == 2].mean() > sample.images[70][sample.truth[70] == 1].mean()  # T1


@pytest.mark.parametrize("name", WRITERS)
def test_the_truth_lies_on_the_image_that_it_belongs_to(name: str, tmp_path: Path) -> None:
    write(name, tmp_path)
    for sample in load_set(tmp_path, name):
        for image, truth in zip(sample.images, sample.truth, strict=True):
            values = image if image.ndim == 2 else image[..., 0]
            expected = np.minimum(values // 100, 2)
            if name == "acdc":  # whose third class has the value of the second
                expected[truth == 3] = 3
                assert truth[0, 0] in (0, 3)
                values[0, 0], expected[0, 0] = 0, truth[0, 0]
            np.testing.assert_array_equal(truth, expected)


@pytest.mark.parametrize("name", WRITERS)
def test_splits_are_kept_apart_and_no_split_means_all(name: str, tmp_path: Path) -> None:
    write(name, tmp_path)
    train, test, both = (load_set(tmp_path, name, split) for split in ("train", "test", None))
    assert (len(train), len(test)) == (2, 1)
    assert sorted(sample.name for sample in both) == sorted(sample.name for sample in [*train, *test])
    assert len({sample.name for sample in both}) == 3
    assert all((sample.n_slices == 1) == (SETS[name].kind == "pictures") for sample in both)


def test_spacing_comes_from_where_the_set_has_it(tmp_path: Path) -> None:
    for name in ("hc18", "msd_hippocampus", "msd_spleen_sample", "sunnybrook_dicom", "acdc", "cvc_clinicdb"):
        write(name, tmp_path)
    found = {name: load_set(tmp_path, name, "test")[0].spacing for name in ("hc18", "acdc", "cvc_clinicdb")}
    assert found == {"hc18": (0.35, 0.35), "acdc": None, "cvc_clinicdb": None}
    for name, expected in {
        "msd_hippocampus": (1.2, 1.0, 1.0),
        "msd_spleen_sample": (5.0, 0.8, 0.8),
        "sunnybrook_dicom": (10.0, 0.8, 0.5),
    }.items():
        assert load_set(tmp_path, name, "test")[0].spacing == pytest.approx(expected)


def test_copies_in_the_first_format_are_no_cases(tmp_path: Path) -> None:
    write_lung_ct(tmp_path / "lung_ct" / "train", 1)
    write_lung_ct(tmp_path / "lung_ct" / "original_tif", 1)
    assert len(load_set(tmp_path, "lung_ct")) == 1


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(CaseError, match="no set 'lungs'"):
        load_set(tmp_path, "lungs")
    with pytest.raises(CaseError, match="no such folder"):
        load_set(tmp_path, "ph2", "train")
    (tmp_path / "ph2" / "train").mkdir(parents=True)
    with pytest.raises(CaseError, match="no case of ph2"):
        load_set(tmp_path, "ph2", "train")
    write_clinicdb(tmp_path / "cvc_clinicdb", 1)
    (tmp_path / "cvc_clinicdb" / "masks" / "1.png").unlink()
    with pytest.raises(CaseError, match=r"the mask of 1\.png is missing"):
        load_set(tmp_path, "cvc_clinicdb")


def test_a_truth_of_another_size_is_refused() -> None:
    with pytest.raises(CaseError, match="not of the size"):
        Sample("x", (np.zeros((4, 5), np.uint8),), (np.zeros((5, 4), np.uint8),), None)


@pytest.mark.data
@pytest.mark.parametrize("name", SETS)
def test_the_public_sets_have_their_classes(name: str, shared_data: Path) -> None:
    split = "train" if (shared_data / name / "train").is_dir() else None
    samples = load_set(shared_data, name, split)
    found = {int(value) for sample in samples for truth in sample.truth for value in np.unique(truth)}
    assert found == set(range(len(SETS[name].classes) + 1))
