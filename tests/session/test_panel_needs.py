"""What a session offers to a window that paints while it learns."""

import numpy as np
import pytest

from napari_dinoaugseg.errors import LabelError
from napari_dinoaugseg.session.compute import ComputeConfig
from napari_dinoaugseg.session.labels import UNDO_LIMIT, LabelBook
from napari_dinoaugseg.session.store import SessionStore
from tests.session.test_session import drain


@pytest.fixture
def book():
    book = LabelBook([(2, 3)] * 4, 4)
    book.add_class("liver")
    return book


ONES = np.ones((2, 3), np.uint16)


def test_classes_are_renamed_and_recoloured_undoably(book):
    book.rename_class(1, " spleen ")
    book.recolour_class(1, "#112233")
    assert (book.classes[0].name, book.classes[0].colour) == ("spleen", "#112233")
    book.undo()
    book.undo()
    assert book.classes[0].name == "liver"
    with pytest.raises(LabelError, match="needs a name"):
        book.rename_class(1, "  ")
    with pytest.raises(LabelError, match="Class number 7 does not exist"):
        book.recolour_class(7, "#000000")


@pytest.mark.parametrize("colour", ["red", "#12345", "#11223344", "#000000; background: url(x)", ""])
def test_what_is_no_colour_is_refused_and_nothing_changes(book, colour):
    before = book.classes
    with pytest.raises(LabelError, match="#rrggbb"):
        book.recolour_class(1, colour)
    assert book.classes == before


def test_the_slices_that_hold_a_class(book):
    book.set_manual(2, ONES)
    assert book.holds_paint(1) == [2]
    assert book.holds_paint(2) == []


def test_the_history_is_bounded(book):
    for number in range(UNDO_LIMIT + 50):
        book.set_manual(0, ONES * (number % 2))
    undone = 0
    while book.undo():
        undone += 1
    assert undone == UNDO_LIMIT


def test_a_training_learns_from_what_was_labelled_when_it_was_asked_for(new_session, blob_files, quick):
    session = new_session(settings=quick.with_changes(steps=6, shows=0))
    session.load_labels(blob_files[1], [4, 8])
    work = session.train()
    session.labels.mark_empty(0)
    done = drain(work)
    assert done.labelled == (4, 8)


def test_predictions_are_handed_out_and_kept_by_whoever_owns_the_book(new_session, blob_files):
    session = new_session()
    session.load_labels(blob_files[1], [4, 8])
    drain(session.train())
    items = list(session.predictions(8))
    assert session.labels.confidence == {}
    session.labels.remove_class(3, erase=True)
    for item in items:
        session.store_prediction(item)
    assert sorted(session.labels.confidence) == session.labels.open_slices
    assert not any((session.labels.predicted(i) == 3).any() for i in session.labels.open_slices)


@pytest.fixture
def trained(copy_of_trained):
    """A trained session and its mask of slice 6."""
    session = copy_of_trained(4, 8)
    return session, session.labels.result(6)


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"steps": 3}, []),
        ({"width": 48}, ["width"]),
        ({"window": "0,500"}, ["window"]),
        ({"input_size": 96, "blocks": "conv"}, ["input_size", "blocks"]),
    ],
)
def test_changed_settings_keep_the_model_until_the_next_training(trained, quick, changes, names):
    session, before = trained
    model, changed = session.model, quick.with_changes(**{"steps": 6, "shows": 0, **changes})
    session.configure(changed, ComputeConfig("cpu"))
    assert session.is_trained
    assert session.model is model
    assert session.model_settings == quick
    assert session.changes_since_training() == names
    session.labels.reject(6)
    list(session.predict())
    assert np.array_equal(session.labels.result(6), before)
    second = drain(session.train())
    assert session.changes_since_training() == []
    assert session.model_settings == session.settings
    assert second.steps == changed.planned_steps(3, 2, warm=not names)


def test_settings_that_are_set_back_continue_the_model(trained, quick):
    session, _ = trained
    session.configure(quick.with_changes(window="0,500", width=48), ComputeConfig("cpu"))
    session.configure(quick, ComputeConfig("cpu"))
    assert session.changes_since_training() == []
    assert drain(session.train()).steps < session.history[0].steps


def test_a_training_from_scratch_that_learns_nothing_keeps_the_model(trained, quick):
    session, before = trained
    session.configure(quick.with_changes(width=48), ComputeConfig("cpu"))
    work = session.train()
    next(work)
    work.close()
    assert session.changes_since_training() == ["width"]
    session.labels.reject(6)
    list(session.predict())
    assert np.array_equal(session.labels.result(6), before)


def test_a_kept_model_survives_saving_with_the_settings_it_was_trained_with(trained, new_session, quick, tmp_path):
    session, before = trained
    session.configure(quick.with_changes(window="0,500", width=48), ComputeConfig("cpu"))
    store = SessionStore(tmp_path / "saved", session.case)
    store.save(session.snapshot())
    store.close()
    store = SessionStore(tmp_path / "saved", session.case)
    snapshot, problems = store.load()
    store.close()
    assert problems == []
    later = new_session()
    later.resume(snapshot)
    assert later.settings == session.settings
    assert later.changes_since_training() == ["window", "width"]
    later.labels.reject(6)
    list(later.predict())
    assert np.array_equal(later.labels.result(6), before)


def test_a_saved_model_brings_the_window_that_it_saw(trained, new_session, quick, tmp_path):
    session, _ = trained
    session.configure(quick.with_changes(window="0,500", steps=6, shows=0), ComputeConfig("cpu"))
    drain(session.train())
    session.save_model(tmp_path / "model.safetensors")
    session.configure(quick.with_changes(window="100,200"), ComputeConfig("cpu"))
    later = new_session()
    later.load_model(tmp_path / "model.safetensors")
    assert later.settings.window == "0,500"
    later.load_model(tmp_path / "model.safetensors", window="auto")
    assert later.settings.window == "auto"
