from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.cases import SampleCases, engine_with
from benchmarks.samples import SETS, Sample, load_set
from napari_dinoaugseg.case import choose_window, open_case
from napari_dinoaugseg.errors import CaseError, LabelError
from napari_dinoaugseg.learning.features import FeatureStore
from napari_dinoaugseg.learning.settings import Settings
from napari_dinoaugseg.model.encoder import Encoder, load_encoder
from napari_dinoaugseg.session.compute import ComputeConfig
from tests.benchmarks.sets import WRITERS, write_clinicdb, write_hippocampus, write_lung_ct


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return load_encoder("efficientnet-lite0")


def hippocampi(folder: Path) -> list[Sample]:
    for seed in (1, 2):
        write_hippocampus(folder / "msd_hippocampus", seed)
    return load_set(folder, "msd_hippocampus")


@pytest.mark.parametrize("name", WRITERS)
def test_the_files_of_samples_hold_their_images(name: str, tmp_path: Path) -> None:
    for seed in (1, 2):
        WRITERS[name](tmp_path / name / "train", seed)
    samples = load_set(tmp_path, name)
    cases = SampleCases(samples)
    for sample, path, case in zip(samples, cases.paths, cases.cases, strict=True):
        assert path.is_file()
        assert case.kind == SETS[name].kind
        assert case.n_slices == sample.n_slices
        for i, image in enumerate(sample.images):
            np.testing.assert_array_equal(case.slice(i), image)
            assert case.slice(i).dtype == image.dtype
        if sample.n_slices > 1 and sample.spacing is not None:
            assert (case.slice_distance, *case.slice_spacing(0)) == pytest.approx(sample.spacing)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("msd_spleen_sample", "sub-spleen1_ct.nii.gz"),
        ("cvc_clinicdb", "images/1.png"),
        ("lung_ct", "2d_images/ID_0001_Z_0064.tif"),
    ],
)
def test_a_slice_is_seen_as_in_the_file_of_the_set(name: str, file: str, tmp_path: Path, encoder: Encoder) -> None:
    WRITERS[name](tmp_path / name, 1)
    WRITERS[name](tmp_path / name, 2)  # another range of values beside it
    own = open_case(tmp_path / name / file)
    cases = SampleCases(sorted(load_set(tmp_path, name), key=lambda sample: sample.name, reverse=True))
    alone = FeatureStore(own, encoder, input_size=64, window=choose_window(own))
    joined = cases.store(encoder, 64, None).with_context(0)
    for i, index in enumerate(cases.indices(cases.samples[1])):
        np.testing.assert_array_equal(joined.image(index), alone.image(i))


def test_each_sample_keeps_its_own_window(tmp_path: Path, encoder: Encoder) -> None:
    one, two = hippocampi(tmp_path)
    brighter = Sample("brighter", tuple(4.0 * image.astype(np.float32) for image in one.images), one.truth, None)
    both, alone = (SampleCases(samples).store(encoder, 64, None) for samples in ([one, brighter, two], [one]))
    for i in range(one.n_slices):
        np.testing.assert_allclose(both.image(i), alone.image(i), atol=1e-6)
        np.testing.assert_allclose(both.image(one.n_slices + i), alone.image(i), atol=1e-6)


def test_features_are_found_again_in_another_collection_and_in_a_session(tmp_path: Path, encoder: Encoder) -> None:
    one, two = hippocampi(tmp_path)
    cache = tmp_path / "cache"
    first = SampleCases([one, two]).store(encoder, 64, cache)
    list(first.prepare([(i, None) for i in range(first.case.n_slices)]))
    opened = SampleCases([two])
    second = opened.store(encoder, 64, cache)
    list(second.prepare([(i, None) for i in range(two.n_slices)]))
    config, settings = ComputeConfig("cpu"), Settings(encoder="efficientnet-lite0", input_size=64)
    third = engine_with(cache)(opened.cases[0], settings, config, encoder=encoder, notify=lambda _: None).store
    list(third.prepare([(i, None) for i in range(two.n_slices)]))
    assert (first.encoded, second.encoded, third.encoded) == (one.n_slices + two.n_slices, 0, 0)


def test_a_collection_knows_whose_slice_is_whose(tmp_path: Path) -> None:
    one, two = hippocampi(tmp_path)
    cases = SampleCases([two, one])
    assert list(cases.indices(one)) == list(range(two.n_slices, two.n_slices + one.n_slices))
    for i in cases.indices(one):
        assert cases.place(i) == (1, i - two.n_slices)
        np.testing.assert_array_equal(cases.example(i).target, one.truth[i - two.n_slices])
        np.testing.assert_array_equal(cases.slices.slice(i), one.images[i - two.n_slices])


def test_the_labelled_cases_decide_how_far_neighbours_are(tmp_path: Path) -> None:
    one, _ = hippocampi(tmp_path)
    image = np.random.default_rng(0).normal(100, 20, (24, 20)).astype(np.float32)
    alike = Sample("alike", tuple(image + i for i in range(5)), one.truth, None)
    random = np.random.default_rng(1)
    noise = Sample(
        "noise", tuple(random.normal(100, 20, (24, 20)).astype(np.float32) for _ in range(5)), one.truth, None
    )
    cases = SampleCases([alike, noise])
    assert cases.context(range(5)) == 2
    assert cases.context([6]) == 0


def test_samples_that_cannot_be_learned_together_are_refused(tmp_path: Path) -> None:
    write_clinicdb(tmp_path / "cvc_clinicdb", 1)
    write_lung_ct(tmp_path / "lung_ct", 1)
    picture, volume = load_set(tmp_path, "cvc_clinicdb")[0], hippocampi(tmp_path)[0]
    with pytest.raises(LabelError, match="same name"):
        SampleCases([picture, picture])
    with pytest.raises(CaseError, match="cannot be learned together"):
        SampleCases([picture, volume])


def test_the_files_are_removed_with_the_collection(tmp_path: Path) -> None:
    cases = SampleCases(hippocampi(tmp_path))
    folder = cases.paths[0].parent
    assert folder.is_dir()
    del cases
    assert not folder.exists()
