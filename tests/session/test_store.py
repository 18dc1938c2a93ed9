"""A session on disk: whole at any moment, and a damaged part costs only that part."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from napari_dinoaugseg.case.array import case_from_array
from napari_dinoaugseg.errors import SessionError
from napari_dinoaugseg.learning.settings import Settings
from napari_dinoaugseg.session.autosave import Autosave
from napari_dinoaugseg.session.index import (
    INDEX_NAME,
    SCHEMA,
    DamagedIndexError,
    Round,
    Snapshot,
    read_index,
    write_slice,
)
from napari_dinoaugseg.session.labels import UNKNOWN, BookContent, LabelBook, new_class
from napari_dinoaugseg.session.session import Session
from napari_dinoaugseg.session.store import SessionStore, new_session_folder, saved_sessions

SHAPE = (6, 9, 7)
GOLDEN = Path(__file__).parent / "saved"


def make_case():
    voxels = np.random.default_rng(0).integers(0, 200, SHAPE).astype(np.int16)
    return case_from_array(voxels, spacing=(3.0, 1.0, 1.0), name="Mrs. Secret")


@pytest.fixture(scope="module")
def case():
    return make_case()


@pytest.fixture
def folder(tmp_path, case) -> Path:
    return new_session_folder(case.fingerprint, tmp_path)


def labels_of(seed: int, values=(0, 1, 4, UNKNOWN)) -> np.ndarray:
    return np.random.default_rng(seed).choice(values, SHAPE[1:]).astype(np.uint16)


def snapshot_of(case, *, seed: int = 0, view=None) -> Snapshot:
    session = Session(case, Settings.of_preset("fast", seed=3))
    book = session.labels
    book.add_class("tumour", 1)
    book.add_class("Herz – links", 4)
    book.set_manual(0, labels_of(seed))
    book.mark_empty(3)
    for index in (0, 1, 2):
        book.set_prediction(index, labels_of(seed + index + 10, (0, 1, 4)), 0.25 * index)
    book.see(1)
    book.accept(2)
    session.history.append(Round((0, 3), 90, 0.21, {"encode": 1.0, "train": 2.0, "predict": 0.5}, 0.75))
    return session.snapshot(view if view is not None else {"slice": 4})


def same(one: Snapshot, other: Snapshot) -> bool:
    assert one.book.classes == other.book.classes
    assert one.book.confidence == other.book.confidence
    assert one.book.unseen == other.book.unseen
    for layer in ("manual", "accepted", "predicted"):
        assert set(one.book.layers[layer]) == set(other.book.layers[layer])
        for index, labels in one.book.layers[layer].items():
            np.testing.assert_array_equal(labels, other.book.layers[layer][index])
    return (one.settings, one.history, one.view) == (other.settings, other.history, other.view)


def reopened(folder: Path, case) -> tuple[Snapshot, list[str]]:
    store = SessionStore(folder, case)
    try:
        return store.load()
    finally:
        store.close()


def saved(folder: Path, case, snapshot: Snapshot) -> None:
    store = SessionStore(folder, case)
    store.save(snapshot)
    store.close()


def slice_file(folder: Path, start: str) -> Path:
    (found,) = (folder / "slices").glob(f"{start}*.png")
    return found


# --- what is saved is what comes back -------------------------------------------------------------------------------


def test_everything_comes_back_as_it_was(folder, case):
    snapshot = snapshot_of(case)
    saved(folder, case, snapshot)

    back, problems = reopened(folder, case)

    assert problems == []
    assert same(snapshot, back)


_LABELS = st.lists(st.sampled_from([0, 1, 2, UNKNOWN]), min_size=63, max_size=63).map(
    lambda values: np.array(values, np.uint16).reshape(SHAPE[1:])
)
_DEEDS = st.lists(
    st.tuples(st.sampled_from(["paint", "predict", "accept", "clear", "reject", "undo", "save"]), st.integers(0, 5)),
    max_size=12,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(deeds=_DEEDS, data=st.data())
def test_after_any_deeds_the_last_save_comes_back(case, tmp_path, deeds, data):
    folder = new_session_folder(case.fingerprint, tmp_path)
    session = Session(case)
    session.resume(Snapshot(BookContent((new_class(1), new_class(2))), session.settings))
    store = SessionStore(folder, case)
    last = session.snapshot()
    store.save(last)
    for deed, index in deeds:
        book = session.labels
        if deed == "paint":
            book.set_manual(index, data.draw(_LABELS))
        elif deed == "predict":
            book.set_prediction(index, data.draw(_LABELS) % UNKNOWN, 0.5)
        elif deed == "accept" and index in book.confidence:
            book.accept(index)
        elif deed == "clear":
            book.clear(index)
        elif deed == "reject":
            book.reject(index)
        elif deed == "undo":
            book.undo()
        elif deed == "save":
            last = session.snapshot()
            store.save(last)
    store.close()

    back, problems = reopened(folder, case)

    assert problems == []
    assert same(last, back)
    needed = sum(len(slices) for slices in last.book.layers.values())
    assert len(list((folder / "slices").iterdir())) == needed  # and nothing else is left


def test_a_session_goes_on_from_what_was_saved(folder, case):
    saved(folder, case, snapshot_of(case))
    back, _ = reopened(folder, case)
    session = Session(case)

    session.resume(back)

    assert session.labels.labelled == [0, 2, 3]
    assert session.labels.confidence == {0: 0.0, 1: 0.25, 2: 0.5}
    assert session.settings.preset == "fast"
    assert session.history[0].agreement == 0.75
    assert not session.labels.undo()  # what was done before is not undone


def test_only_slices_that_changed_are_written(folder, case):
    session = Session(case)
    session.resume(snapshot_of(case))
    store = SessionStore(folder, case)
    store.save(session.snapshot())
    before = {path: path.stat().st_mtime_ns for path in (folder / "slices").iterdir()}

    session.labels.set_manual(5, labels_of(77))
    store.save(session.snapshot())

    after = {path: path.stat().st_mtime_ns for path in (folder / "slices").iterdir()}
    new = set(after) - set(before)
    assert [path.name[:12] for path in new] == ["00005_manual"]
    assert all(after[path] == before[path] for path in before)
    store.close()


def test_what_was_loaded_is_not_written_again(folder, case, monkeypatch):
    saved(folder, case, snapshot_of(case))
    store = SessionStore(folder, case)
    session = Session(case)
    session.resume(store.load()[0])
    written: list[object] = []
    monkeypatch.setattr("napari_dinoaugseg.session.store.write_slice", lambda *args: written.append(args))

    store.save(session.snapshot())

    assert written == []
    store.close()


def test_a_file_that_somebody_deleted_is_written_again(folder, case):
    snapshot = snapshot_of(case)
    store = SessionStore(folder, case)
    store.save(snapshot)
    slice_file(folder, "00000_manual").unlink()

    store.save(snapshot)
    store.close()

    back, problems = reopened(folder, case)
    assert problems == []
    assert same(snapshot, back)


def test_labels_are_pictures_that_any_program_reads(folder, case):
    saved(folder, case, snapshot_of(case))

    with Image.open(slice_file(folder, "00000_manual")) as image:
        np.testing.assert_array_equal(np.array(image).astype(np.uint16), labels_of(0))


def test_neither_names_nor_files_tell_whose_case_it_is(folder, case, tmp_path):
    saved(folder, case, snapshot_of(case))

    for path in tmp_path.rglob("*"):
        assert "Secret" not in path.name
        if path.is_file():
            assert b"Secret" not in path.read_bytes()
            assert str(case.path).encode() not in path.read_bytes() or str(case.path) in (".", "")


# --- damage ---------------------------------------------------------------------------------------------------------


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x40
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("damage", [flip, lambda p: p.write_bytes(p.read_bytes()[:20]), lambda p: p.unlink()])
def test_a_damaged_slice_costs_only_that_slice(folder, case, damage: Callable[[Path], object]):
    snapshot = snapshot_of(case)
    saved(folder, case, snapshot)
    damage(slice_file(folder, "00000_manual"))

    back, problems = reopened(folder, case)

    assert len(problems) == 1
    assert problems[0].startswith("Slice 0: the manual labels are ")
    assert set(back.book.layers["manual"]) == {3}
    np.testing.assert_array_equal(back.book.layers["accepted"][2], snapshot.book.layers["accepted"][2])


def test_a_damaged_slice_file_is_kept_for_an_expert(folder, case):
    saved(folder, case, snapshot_of(case))
    path = slice_file(folder, "00000_manual")
    flip(path)
    damaged = path.read_bytes()

    store = SessionStore(folder, case)
    store.save(store.load()[0])
    store.close()

    assert path.with_name(path.name + ".damaged").read_bytes() == damaged


def test_labels_of_another_size_are_refused_before_they_are_decoded(folder, case):
    saved(folder, case, snapshot_of(case))
    path = slice_file(folder, "00000_manual")
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(path)
    honest = json.loads((folder / INDEX_NAME).read_text())
    name = f"00000_manual_{hashlib.blake2b(path.read_bytes(), digest_size=8).hexdigest()}.png"
    path.rename(path.with_name(name))
    honest["slices"]["0"]["manual"] = name
    (folder / INDEX_NAME).write_text(json.dumps(honest))

    back, problems = reopened(folder, case)

    assert 0 not in back.book.layers["manual"]
    assert any("labels of another size" in problem for problem in problems)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\x00" * 50, b'{"schema": 1}', b"[" * 100_000])
def test_without_an_index_the_labels_are_found_by_their_files(folder, case, content):
    snapshot = snapshot_of(case)
    saved(folder, case, snapshot)
    (folder / INDEX_NAME).write_bytes(content)

    back, problems = reopened(folder, case)

    assert "table of contents is lost" in problems[0]
    for layer in ("manual", "accepted", "predicted"):
        assert set(back.book.layers[layer]) == set(snapshot.book.layers[layer])
        for index, labels in snapshot.book.layers[layer].items():
            np.testing.assert_array_equal(labels, back.book.layers[layer][index])
    assert [entry.number for entry in back.book.classes] == [1, 4]


ROUND = {"labelled": [0], "steps": 9, "final_loss": 0.2, "seconds": {"train": 2.0}, "agreement": None}


@pytest.mark.parametrize(
    ("part", "value", "sentence"),
    [
        (
            "classes",
            [{"number": 1, "name": "x", "colour": "#ff0000"}] * 2,
            "Names and colours of the classes are damaged.",
        ),
        ("classes", [{"number": 0}], "Names and colours of the classes are damaged."),
        ("classes", [{"number": 1, "name": "x", "colour": "red; background: url(x)"}], "Names and colours"),
        ("settings", {"steps": -1}, "The settings are damaged."),
        ("rounds", [{"labelled": "x"}], "The records of past trainings are damaged."),
        ("rounds", [{**ROUND, "seconds": {"train": float("nan")}}], "The records of past trainings are damaged."),
        ("confidence", {"0": "high"}, "The confidences of predictions are damaged."),
        ("confidence", {"0": float("nan")}, "The confidences of predictions are damaged."),
        ("unseen", {"predicted": "all"}, "The entries of unseen labels are damaged."),
        ("unseen", {"../predicted": [1]}, "The entries of unseen labels are damaged."),
        ("slices", {"0": {"manual": "../../../etc/passwd"}}, "The entries of the slices are damaged."),
        ("slices", {"0": {"manual": "00001_manual_0123456789abcdef.png"}}, "The entries of the slices are damaged."),
        ("model", "../model_0123456789abcdef.safetensors", "The entry of the trained model are damaged."),
        ("view", 7, "The entries of the view are damaged."),
    ],
)
def test_a_damaged_part_of_the_index_costs_only_that_part(folder, case, part, value, sentence):
    snapshot = snapshot_of(case)
    saved(folder, case, snapshot)
    index = json.loads((folder / INDEX_NAME).read_text())
    index[part] = value
    (folder / INDEX_NAME).write_text(json.dumps(index))

    back, problems = reopened(folder, case)

    assert any(problem.startswith(sentence) for problem in problems)
    assert any("was altered" in problem for problem in problems)
    np.testing.assert_array_equal(back.book.layers["manual"][0], snapshot.book.layers["manual"][0])
    if part != "rounds":
        assert back.history == snapshot.history
    if part != "settings":
        assert back.settings == snapshot.settings


def test_a_loss_that_is_no_number_is_left_out(folder, case):
    snapshot = snapshot_of(case)
    history = tuple(replace(entry, final_loss=float("nan")) for entry in snapshot.history)
    assert history
    saved(folder, case, replace(snapshot, history=history))
    back, problems = reopened(folder, case)
    assert problems == []
    assert back.history == tuple(replace(entry, final_loss=None) for entry in history)


def test_a_damaged_model_costs_only_the_model(folder, case):
    saved(folder, case, snapshot_of(case))
    index = json.loads((folder / INDEX_NAME).read_text())
    index["model"] = "model_0123456789abcdef.safetensors"
    (folder / INDEX_NAME).write_text(json.dumps(index))
    (folder / index["model"]).write_bytes(b"no model")

    back, problems = reopened(folder, case)

    assert back.model is None
    assert "The trained model is damaged; train again." in problems
    assert 0 in back.book.layers["manual"]


def test_what_was_on_disk_when_the_first_save_was_killed_is_found_without_alarm(folder, case, monkeypatch):
    snapshot = snapshot_of(case)
    written: list[tuple[str, int]] = []

    def killed(slices: Path, layer: str, index: int, labels: np.ndarray) -> str:
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append((layer, index))
        return write_slice(slices, layer, index, labels)

    monkeypatch.setattr("napari_dinoaugseg.session.store.write_slice", killed)
    with pytest.raises(KeyboardInterrupt):
        saved(folder, case, snapshot)

    (offered,) = saved_sessions(case.fingerprint, folder.parents[1])
    assert offered.n_manual + offered.n_accepted + offered.n_predicted == 2
    back, problems = reopened(folder, case)
    assert problems == []
    assert back.book.classes == snapshot.book.classes
    assert {(layer, index) for layer, found in back.book.layers.items() for index in found} == set(written)
    for layer, index in written:
        np.testing.assert_array_equal(back.book.layers[layer][index], snapshot.book.layers[layer][index])


def test_what_a_killed_program_left_is_swept_away(folder, case):
    saved(folder, case, snapshot_of(case))
    left = [folder / ".session.json.0a1b.part", folder / "slices" / ".x.0a1b.part"]
    left.append(folder / "slices" / "00009_manual_0123456789abcdef.png")
    for path in left:
        path.write_bytes(b"half")

    saved(folder, case, reopened(folder, case)[0])

    assert not any(path.exists() for path in left)


# --- versions and strangers -----------------------------------------------------------------------------------------


def test_a_newer_version_is_refused_and_left_as_it_is(folder, case):
    saved(folder, case, snapshot_of(case))
    index = json.loads((folder / INDEX_NAME).read_text())
    index["schema"] = SCHEMA + 1
    (folder / INDEX_NAME).write_text(json.dumps(index))
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    with pytest.raises(SessionError, match="newer version of napari-dinoaugseg"):
        reopened(folder, case)

    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("version", [path.name for path in sorted(GOLDEN.glob("version_*"))])
def test_sessions_of_every_version_so_far_are_read(case, tmp_path, version):
    shutil.copytree(GOLDEN / version, tmp_path / version)

    back, problems = reopened(tmp_path / version, case)

    assert problems == []
    written = json.loads((GOLDEN / version / INDEX_NAME).read_text())["settings"]  # the presets may change meanwhile
    book = replace(snapshot_of(case).book, unseen=None)  # it was not recorded, so nothing of the model counts as seen
    assert same(replace(snapshot_of(case), book=book, settings=Settings.checked(written)), back)


def test_there_is_a_saved_session_of_the_version_that_is_written_now():
    assert (GOLDEN / f"version_{SCHEMA}" / INDEX_NAME).exists()


def test_a_session_of_another_case_is_refused(folder, case):
    saved(folder, case, snapshot_of(case))
    other = case_from_array(np.ones(SHAPE, np.int16) * np.arange(7, dtype=np.int16), spacing=None, name="other")

    with pytest.raises(SessionError, match="belongs to another case"):
        reopened(folder, other)


@pytest.mark.parametrize("name", ["slices", "lock"])
def test_a_session_behind_a_link_is_refused(tmp_path, case, name):
    folder, elsewhere = tmp_path / "session", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.mkdir()
    (folder / name).symlink_to(elsewhere)

    with pytest.raises(SessionError, match="not written through a link"):
        SessionStore(folder, case)


def test_an_index_that_is_a_device_or_a_link_is_not_read(folder, case):
    (folder / INDEX_NAME).symlink_to("/dev/zero")

    with pytest.raises(DamagedIndexError):
        read_index(folder)


# --- two windows ----------------------------------------------------------------------------------------------------


def test_the_second_window_reads_only_and_says_so(folder, case):
    snapshot = snapshot_of(case)
    first = SessionStore(folder, case)
    first.save(snapshot)
    second = SessionStore(folder, case)

    assert not second.is_writable
    assert "another window" in second.reason
    assert same(snapshot, second.load()[0])
    with pytest.raises(SessionError, match="another window"):
        second.save(snapshot)

    first.close()
    third = SessionStore(folder, case)
    assert third.is_writable
    third.close()


def test_a_folder_whose_lock_cannot_be_made_is_only_looked_at(folder, case, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    saved(folder, case, snapshot_of(case))
    monkeypatch.setattr("napari_dinoaugseg.session.store.FileLock.acquire", refuse)
    store = SessionStore(folder, case)
    assert not store.is_writable
    assert store.reason.endswith("cannot be written (Permission denied): it can only be looked at.")


def test_any_thread_of_the_window_may_save(folder, case):
    snapshot = snapshot_of(case)
    store = SessionStore(folder, case)
    told: list[object] = []
    autosave = Autosave(store, told.append)
    autosave.request(snapshot)

    assert autosave.close(10)
    assert told == [None]
    assert same(snapshot, reopened(folder, case)[0])


def test_a_session_whose_folder_was_deleted_is_made_again_with_its_lock(folder, case):
    snapshot = snapshot_of(case)
    first = SessionStore(folder, case)
    first.save(snapshot)
    shutil.rmtree(folder)
    first.save(snapshot)
    second = SessionStore(folder, case)
    assert not second.is_writable
    assert same(second.load()[0], snapshot)
    first.close()


def test_a_deleted_session_that_another_window_took_over_is_left_to_it(folder, case):
    first = SessionStore(folder, case)
    first.save(snapshot_of(case))
    shutil.rmtree(folder)
    second = SessionStore(folder, case)
    second.save(snapshot_of(case, seed=1))
    with pytest.raises(SessionError, match="another window"):
        first.save(snapshot_of(case, seed=2))
    assert same(second.load()[0], snapshot_of(case, seed=1))
    assert not SessionStore(folder, case).is_writable
    second.close()


def test_a_program_that_was_killed_holds_no_lock(folder, case):
    code = (
        "import sys, time\n"
        "from filelock import FileLock\n"
        f"lock = FileLock({str(folder / 'lock')!r}); lock.acquire()\n"
        "print('held', flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert not SessionStore(folder, case).is_writable
        holder.kill()
        holder.wait()

    store = SessionStore(folder, case)
    assert store.is_writable
    store.close()


# --- where ----------------------------------------------------------------------------------------------------------


def test_the_sessions_of_a_case_are_listed_newest_first(tmp_path, case):
    empty = new_session_folder(case.fingerprint, tmp_path)
    first = new_session_folder(case.fingerprint, tmp_path)
    second = new_session_folder(case.fingerprint, tmp_path)
    assert len({empty, first, second}) == 3
    saved(first, case, snapshot_of(case))
    saved(second, case, snapshot_of(case, seed=5))

    found = saved_sessions(case.fingerprint, tmp_path)

    assert [entry.folder for entry in found] == [second, first]
    assert (found[0].n_manual, found[0].n_accepted, found[0].n_predicted, found[0].rounds) == (2, 1, 3, 1)
    assert found[0].plane == case.plane.value
    assert saved_sessions("0" * 32, tmp_path) == []


def test_a_session_with_a_damaged_index_is_listed_by_its_files(tmp_path, case):
    folder = new_session_folder(case.fingerprint, tmp_path)
    saved(folder, case, snapshot_of(case))
    (folder / INDEX_NAME).write_text("{")

    (found,) = saved_sessions(case.fingerprint, tmp_path)

    assert (found.n_manual, found.plane) == (2, None)


def test_a_book_keeps_what_it_had_when_the_content_does_not_fit(case):
    book = LabelBook(case.slice_shape, case.n_slices)
    book.add_class()
    book.set_manual(1, labels_of(1, (0, 1)))
    before = book.content()
    foreign = snapshot_of(case).book
    wrong = type(foreign)(foreign.classes[:1], foreign.layers, foreign.confidence)

    with pytest.raises(Exception, match="which is not a class"):
        book.take_content(wrong)

    assert book.content() == before
