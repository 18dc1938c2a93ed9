"""Every public layout is found, read and split as the paper does; what is broken is refused by name."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest

from benchmarks.paper.cases import Pictures, VolumeCases
from benchmarks.paper.draws import Draw
from benchmarks.paper.pictures import load_isic2018, load_kvasir, load_tn3k
from benchmarks.paper.protocols import PROTOCOLS
from benchmarks.paper.published import authors_test
from benchmarks.paper.sources import DataSet, PictureSource, VolumeSource
from benchmarks.paper.volumes import BTCV_TO_SYNAPSE, SYNAPSE_ORGANS, load_acdc, load_la2018, load_synapse
from napari_dinoaugseg.errors import CaseError, LabelError
from tests.benchmarks.paper_files import (
    acdc_released,
    colour,
    disc,
    grey,
    kvasir,
    labels,
    write_h5,
    write_nifti,
    write_npz,
    write_nrrd,
    write_picture,
)


def names(sources: list) -> list[str]:
    return [source.name for source in sources]


def truth(source: VolumeSource) -> np.ndarray:
    return np.stack(source.read().truth)


def test_acdc_as_released_is_split_as_the_authors_did(tmp_path: Path):
    acdc_released(tmp_path, [38, 1, 99, 7, 101])
    data = load_acdc(tmp_path)
    # 1 and 7 are test patients, 101 is none of the 100 that the authors chose from.
    assert names(data.pool) == [f"patient{p}_frame{f}" for p in ("038", "099") for f in ("01", "12")]
    assert names(data.test) == [f"patient{p}_frame{f}" for p in ("001", "007") for f in ("01", "12")]
    assert {source.group for source in data.pool} == {"patient038", "patient099"}
    sample = data.pool[1].read()
    np.testing.assert_allclose(np.stack(sample.images), grey(38 + 12) * 300, rtol=1e-6)
    np.testing.assert_array_equal(np.stack(sample.truth), labels(38 + 12, 3))
    assert data.notices == []
    assert data.papers_split


def test_nifti_volumes_are_cut_as_the_authors_cut_them(tmp_path: Path):
    acdc_released(tmp_path, [99])
    sample = load_acdc(tmp_path).pool[0].read()
    stem = tmp_path / "training" / "patient099" / "patient099_frame01"
    image, mask = (nibabel.load(f"{stem}{ending}.nii.gz").get_fdata() for ending in ("", "_gt"))
    for i in range(image.shape[-1]):
        np.testing.assert_allclose(sample.images[i], image[:, :, i])
        np.testing.assert_array_equal(sample.truth[i], mask[:, :, i])


def test_every_volume_is_a_case_of_its_own_with_the_values_of_its_file(tmp_path: Path):
    for patient in (2, 1):  # a training and a test patient of the authors
        write_h5(tmp_path / f"patient{patient:03d}_frame01.h5", grey(patient) * 900, labels(patient, 3))
    data = load_acdc(tmp_path)
    collection = VolumeCases(data).of(Draw("1", 0, data.pool, data.test))
    ((shot, marks),) = collection.labelled()
    ((test, (scored,)),) = collection.tested()
    for case, patient, found in ((shot, 2, np.stack(list(marks.values()))), (test, 1, scored.truth)):
        np.testing.assert_allclose(np.stack([case.slice(i) for i in range(case.n_slices)]), grey(patient) * 900)
        np.testing.assert_array_equal(found, labels(patient, 3))
    assert list(marks) == list(scored.slices) == list(range(shot.n_slices))


def test_acdc_volumes_without_labels_are_left_out_and_told(tmp_path: Path):
    acdc_released(tmp_path, [1, 99])
    (tmp_path / "training" / "patient099" / "patient099_frame12_gt.nii.gz").unlink()
    data = load_acdc(tmp_path)
    assert names(data.pool) == ["patient099_frame01"]
    assert data.notices == ["left out, for lack of a _gt file: patient099_frame12"]


def test_the_authors_own_copy_of_acdc_is_read(tmp_path: Path):
    write_nifti(tmp_path / "trainval_data" / "patient099_frame01_mr.nii.gz", grey(1))
    write_nifti(tmp_path / "trainval_data" / "patient099_frame01_gt.nii.gz", labels(1, 3))
    data = load_acdc(tmp_path)
    assert names(data.pool) == ["patient099_frame01"]
    np.testing.assert_array_equal(truth(data.pool[0]), labels(1, 3))


def test_acdc_volumes_of_semi_supervised_work_are_preferred_to_their_slices(tmp_path: Path):
    write_h5(tmp_path / "ACDC_training_volumes" / "patient038_frame01.h5", grey(1), labels(1, 3))
    write_h5(tmp_path / "ACDC_training_slices" / "patient038_frame01_slice_1.h5", grey(2)[0], labels(2, 3)[0])
    data = load_acdc(tmp_path)
    assert names(data.pool) == ["patient038_frame01"]
    np.testing.assert_array_equal(truth(data.pool[0]), labels(1, 3))


def test_acdc_slices_are_stacked_in_the_order_of_their_numbers(tmp_path: Path):
    images, masks = grey(1, (12, 8, 9)), labels(1, 3, (12, 8, 9))
    for number in (10, 2, 12, 1, 11, 3, 4, 5, 9, 7, 8, 6):
        path = tmp_path / "ACDC_training_slices" / f"patient038_frame02_slice_{number}.h5"
        write_h5(path, images[number - 1], masks[number - 1])
    (source,) = load_acdc(tmp_path).pool
    np.testing.assert_array_equal(truth(source), masks)
    np.testing.assert_array_equal(np.stack(source.read().images), images)


def test_a_folder_that_is_split_already_stays_so(tmp_path: Path):
    write_h5(tmp_path / "train" / "patient001_frame01.h5", grey(1), labels(1, 3))
    write_h5(tmp_path / "test" / "patient099_frame01.h5", grey(2), labels(2, 3))
    data = load_acdc(tmp_path)
    assert (names(data.pool), names(data.test)) == (["patient001_frame01"], ["patient099_frame01"])
    assert not data.papers_split


def test_la2018_is_cut_along_its_last_axis(tmp_path: Path):
    test_scan = min(authors_test("la2018"))
    for scan, seed in (("06SR5RBREL16DQ6M8LWS", 1), (test_scan, 2)):
        write_h5(tmp_path / scan / "mri_norm2.h5", grey(seed, (9, 8, 5)) - 0.5, labels(seed, 1, (9, 8, 5)))
    data = load_la2018(tmp_path)
    assert (names(data.pool), names(data.test)) == (["06SR5RBREL16DQ6M8LWS"], [test_scan])
    assert truth(data.pool[0]).shape == (5, 9, 8)
    np.testing.assert_array_equal(truth(data.pool[0])[3], labels(1, 1, (9, 8, 5))[:, :, 3])


def test_la2018_of_the_challenge_has_masks_of_0_and_255(tmp_path: Path):
    write_nrrd(tmp_path / "Training Set" / "SCAN1" / "lgemri.nrrd", (grey(1) * 255).astype(np.uint8))
    write_nrrd(tmp_path / "Training Set" / "SCAN1" / "laendo.nrrd", labels(1, 1) * 255)
    write_nrrd(tmp_path / "Training Set" / "SCAN2" / "lgemri.nrrd", (grey(2) * 255).astype(np.uint8))
    data = load_la2018(tmp_path)
    assert names(data.pool) == ["SCAN1"]
    np.testing.assert_array_equal(truth(data.pool[0]), labels(1, 1))
    assert data.notices == ["left out, for lack of laendo.nrrd: SCAN2"]
    assert "not cropped" in data.layout


def synapse_files(root: Path, highest: int = 8) -> None:
    for number in (0, 1, 10, 2):
        write_npz(root / "train_npz" / f"case0005_slice{number:03d}.npz", grey(number)[0], labels(number, 8)[0])
    write_h5(root / "test_vol_h5" / "case0001.npy.h5", grey(5), labels(5, highest))


def test_synapse_of_transunet_is_stacked_from_its_slices(tmp_path: Path):
    synapse_files(tmp_path / "Synapse")
    data = load_synapse(tmp_path)
    assert (names(data.pool), names(data.test)) == (["case0005"], ["case0001"])
    np.testing.assert_array_equal(truth(data.pool[0]), [labels(number, 8)[0] for number in (0, 1, 2, 10)])
    np.testing.assert_array_equal(truth(data.test[0]), labels(5, 8))


def test_synapse_volumes_with_13_organs_are_refused(tmp_path: Path):
    synapse_files(tmp_path, highest=13)
    with pytest.raises(LabelError, match=r"case0001: it has the label 9, but this data set has 0 to 8"):
        load_synapse(tmp_path).test[0].read()


def test_btcv_keeps_8_of_its_13_organs(tmp_path: Path):
    for number in (1, 5, 6, 61):
        write_nifti(tmp_path / "img" / f"img{number:04d}.nii.gz", (grey(number) * 2000 - 1000).astype(np.int16))
    for number in (1, 5):
        write_nifti(tmp_path / "label" / f"label{number:04d}.nii.gz", labels(number, 13))
    data = load_synapse(tmp_path)
    assert (names(data.pool), names(data.test)) == (["case0005"], ["case0001"])
    np.testing.assert_array_equal(truth(data.pool[0]), BTCV_TO_SYNAPSE[labels(5, 13)])
    sample = data.pool[0].read()
    assert data.window == "-125,275"
    # Clipped already, for slices that are scaled one by one.
    assert (np.stack(sample.images).min(), np.stack(sample.images).max()) == (-125.0, 275.0)
    assert data.notices == ["left out, for lack of a label file: case0006, case0061"]


def test_organs_of_btcv_get_the_numbers_of_their_names():
    btcv = [
        *("spleen", "right kidney", "left kidney", "gallbladder", "esophagus", "liver", "stomach", "aorta"),
        *("inferior vena cava", "portal and splenic vein", "pancreas", "right adrenal gland", "left adrenal gland"),
    ]
    for number, name in enumerate(btcv, start=1):
        expected = SYNAPSE_ORGANS.index(name) + 1 if name in SYNAPSE_ORGANS else 0
        assert BTCV_TO_SYNAPSE[number] == expected, name


def case_of(root: Path, data: DataSet, shots: int) -> Pictures:
    return Pictures(root, data.pool[:shots], data.test or data.pool[shots:])


def test_tn3k_keeps_pictures_of_one_name_apart(tmp_path: Path):
    for part, radius in (("trainval", 8.0), ("test", 16.0)):
        for name in ("0000", "0001"):
            mask = disc(radius=radius)
            write_picture(tmp_path / f"{part}-image" / f"{name}.jpg", colour(1, mask))
            write_picture(tmp_path / f"{part}-mask" / f"{name}.jpg", mask, quality=60)
    data = load_tn3k(tmp_path)
    assert names(data.pool) == names(data.test) == ["0000", "0001"]
    collection = case_of(tmp_path, data, 2)
    assert collection.case.n_slices == 4
    ((_, small),), ((_, large),) = collection.labelled(), collection.tested()
    for mask in small.values():
        assert abs(int(mask.sum()) - int((disc(radius=8.0) > 0).sum())) < 20
    for sample in large:
        assert abs(int(sample.truth.sum()) - int((disc(radius=16.0) > 0).sum())) < 20


def test_kvasir_is_tested_on_the_names_of_its_official_split(tmp_path: Path):
    kvasir(tmp_path, 3, tested=2)
    data = load_kvasir(tmp_path)
    assert names(data.pool) == ["cju0", "cju1", "cju2"]
    assert names(data.test) == sorted(authors_test("kvasir"))[:2]
    assert data.papers_split


@pytest.mark.parametrize(("values", "mask"), [((0, 125, 126, 255), (0, 0, 1, 1)), ((0, 0, 1, 1), (0, 0, 1, 1))])
def test_masks_of_pictures_are_cut_where_the_authors_cut_them(tmp_path: Path, values: tuple, mask: tuple):
    write_picture(tmp_path / "picture.png", np.zeros((1, 4, 3), np.uint8))
    for pixels in (np.array([values], np.uint8), np.repeat(np.array([values], np.uint8)[..., np.newaxis], 3, axis=2)):
        write_picture(tmp_path / "mask.png", pixels)
        shots = [PictureSource(tmp_path / "picture.png", tmp_path / "mask.png")]
        ((_, marks),) = Pictures(tmp_path, shots, []).labelled()
        (found,) = marks.values()
        assert found.tolist() == [list(mask)]


def test_pictures_without_a_mask_are_left_out_and_told(tmp_path: Path):
    kvasir(tmp_path, 5, tested=0)
    for number in (1, 3):
        (tmp_path / "masks" / f"cju{number}.jpg").unlink()
    data = load_kvasir(tmp_path)
    assert names(data.pool) == ["cju0", "cju2", "cju4"]
    assert data.notices == ["left out, for lack of a mask: cju1.jpg, cju3.jpg"]


def isic(root: Path, part: str, ids: list[int]) -> None:
    for number in ids:
        stem = f"ISIC_{number:07d}"
        mask = disc()
        write_picture(root / f"ISIC2018_Task1-2_{part}_Input" / f"{stem}.jpg", colour(number, mask))
        write_picture(root / f"ISIC2018_Task1-2_{part}_Input" / f"{stem}_superpixels.png", colour(number, mask))
        write_picture(root / f"ISIC2018_Task1_{part}_GroundTruth" / f"{stem}_segmentation.png", mask)
    (root / f"ISIC2018_Task1-2_{part}_Input" / "LICENSE.txt").write_text("CC-0", encoding="utf-8")


def test_isic2018_takes_no_superpixels_for_pictures_and_tests_on_the_test_part(tmp_path: Path):
    isic(tmp_path, "Training", [1, 2, 3])
    isic(tmp_path, "Validation", [4])
    assert names(load_isic2018(tmp_path).test) == ["ISIC_0000004"]
    isic(tmp_path, "Test", [5, 6])
    data = load_isic2018(tmp_path)
    assert names(data.pool) == ["ISIC_0000001", "ISIC_0000002", "ISIC_0000003"]
    assert names(data.test) == ["ISIC_0000005", "ISIC_0000006"]
    assert data.notices == []
    ((_, samples),) = case_of(tmp_path, data, 3).tested()
    assert [sample.truth.max() for sample in samples] == [1, 1]


def test_isic2018_without_other_parts_is_tested_on_what_a_draw_leaves(tmp_path: Path):
    isic(tmp_path, "Training", [1, 2, 3])
    assert load_isic2018(tmp_path).test == []


def test_a_mask_of_another_size_is_refused_by_name(tmp_path: Path):
    kvasir(tmp_path, 3)
    write_picture(tmp_path / "masks" / "cju1.jpg", disc(size=40))
    with pytest.raises(LabelError, match=r"cju1\.jpg: the mask is 40 x 40 pixels, but its picture is 48 x 48"):
        case_of(tmp_path, load_kvasir(tmp_path), 3).labelled()


@pytest.mark.parametrize("name", ["patient038_frame01.h5", "patient038_frame01.nii.gz"])
def test_a_damaged_volume_is_refused_by_name(tmp_path: Path, name: str):
    (tmp_path / name).write_bytes(b"\x89HDF and nothing more")
    if name.endswith(".nii.gz"):
        write_nifti(tmp_path / "patient038_frame01_gt.nii.gz", labels(1, 3))
    (source,) = load_acdc(tmp_path).pool
    with pytest.raises(CaseError, match=rf"{name}: it cannot be read .* Download it again"):
        source.read()


@pytest.mark.parametrize("dataset", list(PROTOCOLS))
def test_where_there_is_nothing_the_source_and_the_layout_are_told(dataset: str, tmp_path: Path):
    (tmp_path / "holiday.txt").write_text("nothing of ours", encoding="utf-8")
    protocol = PROTOCOLS[dataset]
    for root in (tmp_path, tmp_path / "missing"):
        with pytest.raises(CaseError) as refused:
            protocol.find(root)
        assert str(refused.value).startswith(f"{root}: ")
        assert protocol.home in str(refused.value)
        assert protocol.layout in str(refused.value)


def test_training_volumes_without_test_volumes_are_refused(tmp_path: Path):
    acdc_released(tmp_path, [99])
    with pytest.raises(CaseError, match="no volume to test on lies here; they are the authors' test patients"):
        PROTOCOLS["acdc"].find(tmp_path)


@pytest.mark.data
@pytest.mark.parametrize(("dataset", "folder", "pool", "test"), [("acdc", "acdc", 8, 12), ("la2018", "la2018", 3, 3)])
def test_real_volumes_are_found(shared_data: Path, dataset: str, folder: str, pool: int, test: int):
    protocol = PROTOCOLS[dataset]
    data = protocol.find(shared_data / folder)
    assert (len(data.pool), len(data.test)) == (pool, test)
    sample = data.pool[0].read()
    assert set(np.unique(np.stack(sample.truth))) == {0, *protocol.classes}
