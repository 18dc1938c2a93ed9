"""Each write, flush, rename and new folder is refused once: a clear message, nothing lost, the old file intact."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from PIL import Image

from napari_dinoaugseg.case import open_case
from napari_dinoaugseg.errors import OutputError
from napari_dinoaugseg.learning.cache import FeatureCache
from napari_dinoaugseg.model.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from napari_dinoaugseg.model.decoder import Decoder
from napari_dinoaugseg.session.export import export_masks, write_report
from napari_dinoaugseg.session.session import Session
from napari_dinoaugseg.session.store import SessionStore
from tests.case.builders import numbers, write_dicom
from tests.faults.layer import faulty

Contents = dict[str, bytes]


def contents(folder: Path) -> Contents:
    """Every file below a folder; hidden parts too, since none may be left."""
    return {path.relative_to(folder).as_posix(): _content(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def _content(path: Path) -> bytes:
    """The bytes of a file, without what differs each time it is written: a DICOM object's identifiers, a date."""
    if path.suffix == ".dcm":
        return pydicom.dcmread(path).pixel_array.tobytes()
    return re.sub(rb'"created": "[^"]*"', b"", path.read_bytes())


def refuse_each(folder: Path, before: Callable[[], None], write: Callable[[], None]) -> list[tuple[str, bool]]:
    """Run `write` on what `before` prepared, once with each of its operations refused.

    After each refusal the folder holds what it held before, or (only the last steps are left then) what it should hold
    at the end; never anything else. Returns the operations, and whether the old state stayed.
    """
    prepared = folder.with_name("prepared")
    folder.mkdir()
    before()
    shutil.copytree(folder, prepared)
    old = contents(folder)
    with faulty(folder) as counting:
        write()
    new = contents(folder)
    assert new != old
    seen = []
    for number, operation in enumerate(counting.operations):
        shutil.rmtree(folder)
        shutil.copytree(prepared, folder)
        with faulty(folder, refused=number) as faults, pytest.raises(OutputError) as caught:
            write()
        assert faults.operations[: number + 1] == counting.operations[: number + 1]
        assert "No space left on device" in str(caught.value)
        assert "\n" not in str(caught.value)
        after = contents(folder)
        assert after in (old, new), f"{operation} refused: {sorted(set(after) ^ set(old))}"
        seen.append((operation, after == old))
    return seen


def kinds(seen: list[tuple[str, bool]]) -> set[str]:
    return {operation.split()[0] for operation, _ in seen}


@pytest.fixture(scope="module")
def volume(tmp_path_factory):
    folder = tmp_path_factory.mktemp("volume")
    voxels = np.random.default_rng(0).integers(0, 500, (12, 14, 6)).astype(np.int16)
    image = nib.Nifti1Image(voxels, np.diag([1.0, 1.0, 3.0, 1.0]))
    nib.save(image, folder / "image.nii.gz")
    return folder / "image.nii.gz"


@pytest.fixture
def session(volume):
    made = Session(open_case(volume, plane="axial"))
    made.labels.add_class("one")
    made.labels.add_class("two")
    for index in range(4):
        made.paint(index, np.random.default_rng(index).integers(0, 3, made.case.slice_shape(index)))
    made.labels.set_prediction(5, np.ones(made.case.slice_shape(5), np.uint16), 0.5)
    return made


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "outputs"


# --- exports --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mask.nii.gz", "mask.nii", "mask.nrrd"])
@pytest.mark.parametrize("existing", [False, True])
def test_a_mask_is_exported_whole_or_the_old_one_stays(session, folder, name, existing):
    target = folder / name

    def before() -> None:
        if existing:
            export_masks(session, target, ())

    seen = refuse_each(folder, before, lambda: export_masks(session, target))

    assert {"write", "fsync", "rename"} <= kinds(seen)
    assert all(stayed for operation, stayed in seen if operation.split()[1] != "outputs")


def test_a_dicom_seg_is_exported_whole_or_the_old_one_stays(tmp_path, folder):
    series = tmp_path / "series"
    write_dicom(series, numbers((4, 8, 7)))
    session = Session(open_case(series))
    session.labels.add_class("one")
    session.labels.set_manual(1, np.eye(*session.case.slice_shape(1), dtype=np.uint16))
    target = folder / "mask.dcm"

    seen = refuse_each(folder, lambda: export_masks(session, target, ()), lambda: export_masks(session, target))

    assert {"write", "fsync", "rename"} <= kinds(seen)


@pytest.mark.parametrize("existing", [False, True])
def test_masks_of_pictures_are_exported_together_or_not_at_all(tmp_path, folder, existing):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(3):
        Image.fromarray(np.full((9, 11, 3), 60 * number, np.uint8)).save(pictures / f"{number}.png")
    session = Session(open_case(pictures))
    session.labels.add_class("one")
    for index in range(3):
        session.labels.set_manual(index, np.eye(9, 11, index, dtype=np.uint16))
    target = folder / "masks"

    def before() -> None:
        if existing:
            export_masks(session, target, ())
            (target / "2.png").unlink()
            (target / "notes.txt").write_text("somebody else's")

    seen = refuse_each(folder, before, lambda: export_masks(session, target))

    assert {"write", "rename", "mkdir"} <= kinds(seen)
    assert all(stayed for _, stayed in seen)


def test_a_report_is_written_whole_or_the_old_one_stays(session, folder):
    target = folder / "report.json"

    seen = refuse_each(folder, lambda: target.write_text("old"), lambda: write_report(target, session, ()))

    assert {"write", "fsync", "rename"} <= kinds(seen)


def test_a_model_is_written_whole_or_the_old_one_stays(folder):
    target = folder / "model.safetensors"

    def model(n_classes: int) -> Checkpoint:
        decoder = Decoder((24, 40, 112, 320), n_classes=n_classes, width=16)
        return Checkpoint(decoder.state_dict(), decoder.arguments, {}, [], {"name": "x", "fingerprint": "y"}, {})

    old, new = model(2), model(3)
    seen = refuse_each(folder, lambda: save_checkpoint(target, old), lambda: save_checkpoint(target, new))

    assert {"write", "fsync", "rename"} <= kinds(seen)
    assert load_checkpoint(target).decoder["n_classes"] in (2, 3)


# --- the session and the cache --------------------------------------------------------------------------------------


def test_a_session_keeps_the_last_state_whatever_is_refused_and_saves_the_next_time(session, folder):
    case = session.case
    first = session.snapshot()
    session.paint(1, np.full(case.slice_shape(1), 2))
    session.labels.clear(2)
    session.labels.mark_empty(4)
    second = session.snapshot()
    with_counting = _save_second(folder, case, first, second, None)
    assert {"write", "fsync", "rename"} <= {operation.split()[0] for operation in with_counting}
    for number in range(len(with_counting)):
        _save_second(folder, case, first, second, number)


def _save_second(folder, case, first, second, refused):
    """Save one state, then another with an operation refused; then again without. Returns the operations."""
    shutil.rmtree(folder, ignore_errors=True)
    store = SessionStore(folder, case)
    store.save(first)
    with faulty(folder, refused) as faults:
        if refused is None:
            store.save(second)
        else:
            with pytest.raises(OutputError, match=r"your labels could not be saved \(No space left on device\)"):
                store.save(second)
    if refused is not None:
        looked = _load_beside(folder, case)
        assert _is(looked, first) or (faults.operations[-1].startswith("fsync") and _is(looked, second))
        store.save(second)
    assert _is(_load_beside(folder, case), second)
    store.close()
    assert not [path for path in folder.rglob("*") if ".part" in path.name]
    return faults.operations


def _load_beside(folder, case):
    other = SessionStore(folder, case)
    snapshot, problems = other.load()
    assert problems == []
    return snapshot


def _is(one, other) -> bool:
    return one.book.classes == other.book.classes and all(
        one.book.layers[layer].keys() == other.book.layers[layer].keys()
        and all(np.array_equal(labels, other.book.layers[layer][i]) for i, labels in one.book.layers[layer].items())
        for layer in other.book.layers
    )


def test_the_feature_cache_goes_without_the_disk_whatever_is_refused(folder):
    import torch

    folder.mkdir()
    maps = [torch.rand(2, 4, 4).half()]
    with faulty(folder) as counting:
        FeatureCache(folder).write("a" * 40, maps)
    assert {"write", "rename", "mkdir"} <= {operation.split()[0] for operation in counting.operations}
    for number in range(len(counting.operations)):
        shutil.rmtree(folder)
        folder.mkdir()
        cache = FeatureCache(folder)
        with faulty(folder, number):
            cache.write("a" * 40, maps)
        assert cache.problem is not None
        assert "No space left on device" in cache.problem
        assert cache.read("a" * 40) is None
        assert contents(folder) == {}
