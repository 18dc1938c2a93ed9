"""Ctrl+Z brings back what was there, whatever was done between."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest

from napari_dinoaugseg.session.labels import BACKGROUND, UNDO_LIMIT, UNKNOWN, Status


@pytest.fixture
def controller(windowless):
    """Nothing has to be drawn here."""
    return windowless


@pytest.fixture
def layers(controller, case):
    controller.session.labels.add_class(number=3)
    return controller.layers


@pytest.fixture
def book(controller, case):
    return controller.session.labels


def put(layers, index: int, rows: slice, number: int) -> None:
    """A stroke on a slice, by a script."""
    inside = np.zeros(layers.manual.data.shape, bool)
    inside[index, rows, 5:9] = True
    layers.manual.data_setitem(np.nonzero(inside), number)


def predict(book, index: int, number: int = 1, confidence: float = 0.9) -> np.ndarray:
    labels = np.zeros(book.canvas(index).shape, np.uint16)
    labels[10:20, 10:20] = number
    book.set_prediction(index, labels, confidence)
    return labels


def test_what_changed_nothing_is_no_step(controller, layers, book):
    put(layers, 4, slice(2, 5), 1)
    predict(book, 6)
    controller.labels.reject(6)
    controller.labels.clear(8)  # nothing was there
    layers.undo()
    assert book.status(6) is Status.PREDICTED
    assert book.labelled == [4]
    layers.redo()
    assert book.status(6) is Status.EMPTY


def test_correcting_an_accepted_slice_without_a_stroke_is_taken_back(controller, layers, book):
    put(layers, 4, slice(2, 5), 1)
    predict(book, 6)
    controller.labels.accept(6)
    controller.labels.copy_to_manual(6)
    assert book.status(6) is Status.MANUAL
    layers.undo()
    assert book.status(6) is Status.ACCEPTED
    assert book.status(4) is Status.MANUAL


def test_scribbles_come_back_as_scribbles_when_the_mode_is_off(controller, layers, book):
    controller.labels.set_scribbles(True)
    put(layers, 4, slice(2, 5), 1)
    controller.labels.clear(4)
    controller.labels.set_scribbles(False)
    layers.undo()
    assert (book.manual(4) == UNKNOWN).any()


def test_a_whole_slice_comes_back_whole_when_scribbles_are_on(controller, layers, book):
    put(layers, 4, slice(2, 5), 1)
    controller.labels.clear(4)
    controller.labels.set_scribbles(True)
    layers.undo()
    assert not (book.manual(4) == UNKNOWN).any()


def test_open_pixels_that_a_prediction_filled_are_open_again(controller, layers, book):
    controller.labels.set_scribbles(True)
    put(layers, 4, slice(2, 5), 1)
    predict(book, 4)
    controller.labels.copy_to_manual(4)
    assert not (book.manual(4) == UNKNOWN).any()
    layers.undo()
    assert (book.manual(4) == UNKNOWN).any()
    layers.redo()
    assert not (book.manual(4) == UNKNOWN).any()


def test_a_scribbled_slice_stays_one_when_it_was_painted_over_and_over(controller, layers, book):
    controller.labels.set_scribbles(True)
    height, width = book.canvas(4).shape
    layers.manual.data_setitem(np.nonzero(np.ones((1, height, width), bool)), 1)  # slice 0, all of it
    controller.flush()
    assert not (book.manual(0) == UNKNOWN).any()
    put(layers, 0, slice(2, 5), 0)
    controller.flush()
    assert (book.manual(0)[2:5, 5:9] == UNKNOWN).all()


def test_strokes_that_followed_too_quickly_to_be_read_are_taken_back_one_by_one(controller, layers, book):
    controller.labels.set_scribbles(True)
    put(layers, 4, slice(2, 5), 1)
    put(layers, 4, slice(6, 9), 3)
    put(layers, 4, slice(11, 14), BACKGROUND)
    controller.labels.set_scribbles(False)
    layers.undo()
    assert set(np.unique(book.manual(4))) == {1, 3, UNKNOWN}
    layers.undo()
    assert set(np.unique(book.manual(4))) == {1, UNKNOWN}
    layers.undo()
    assert book.manual(4) is None


def test_a_slice_that_was_read_after_a_stroke_on_another_stays_scribbled(controller, layers, book):
    controller.labels.set_scribbles(True)
    height, width = book.canvas(0).shape
    put(layers, 0, slice(2, 5), 1)
    layers.manual.data_setitem(np.nonzero(np.ones((1, height, width), bool)), 1)  # slice 0, all of it
    put(layers, 4, slice(2, 5), 1)
    layers.undo()
    assert not (book.manual(0) == UNKNOWN).any()
    layers.undo()
    assert set(np.unique(book.manual(0))) == {1, UNKNOWN}


def test_removing_a_class_leaves_accepted_slices_accepted_and_comes_back_with_them(controller, layers, book):
    labels = predict(book, 6, 3)
    labels[0, 0] = 1
    book.set_prediction(6, labels, 0.9)
    controller.labels.rename_class(3, "vessel")
    controller.labels.accept(6)
    controller.labels.remove_class(3, erase=True)
    assert book.status(6) is Status.ACCEPTED
    assert set(np.unique(book.truth(6))) == {0, 1}
    layers.undo()
    assert book.status(6) is Status.ACCEPTED
    assert np.array_equal(book.truth(6), labels)
    assert [entry.name for entry in book.classes if entry.number == 3] == ["vessel"]


def test_removing_a_class_without_paint_is_taken_back_with_its_predictions(controller, layers, book):
    labels = predict(book, 6, 3)
    controller.labels.remove_class(3)
    assert not book.predicted(6).any()
    layers.undo()
    assert [entry.number for entry in book.classes] == [1, 3]
    assert np.array_equal(book.predicted(6), labels)
    assert np.array_equal(layers.prediction.data[6], labels)
    layers.redo()
    assert [entry.number for entry in book.classes] == [1]
    assert not book.predicted(6).any()


def test_a_removed_class_comes_back_under_its_name_though_its_number_was_given_anew(controller, layers, book):
    controller.labels.rename_class(3, "vessel")
    controller.labels.remove_class(3)
    book.add_class("nerve", 3)
    names = []
    for step in (layers.undo, layers.undo, layers.redo, layers.redo):
        step()
        names.append([entry.name for entry in book.classes if entry.number == 3])
    assert names == [[], ["vessel"], [], ["nerve"]]


def test_a_rejection_taken_back_leaves_a_newer_prediction(controller, layers, book):
    predict(book, 6, 1)
    controller.labels.reject(6)
    newer = predict(book, 6, 3, 0.4)
    layers.undo()
    assert np.array_equal(book.predicted(6), newer)
    assert book.confidence[6] == 0.4
    layers.redo()
    assert book.predicted(6) is None
    layers.undo()
    assert np.array_equal(book.predicted(6), newer)


def test_rejecting_an_accepted_slice_is_taken_back_as_accepted(controller, layers, book):
    labels = predict(book, 6)
    controller.labels.accept(6)
    controller.labels.reject(6)
    assert book.status(6) is Status.EMPTY
    layers.undo()
    assert np.array_equal(book.truth(6), labels)
    assert book.status(6) is Status.ACCEPTED


def test_an_array_that_somebody_put_into_the_layer_is_taken_back(controller, layers, book):
    put(layers, 4, slice(2, 5), 1)  # not taken over yet
    before = layers.manual.data.copy()
    layers.manual.data = np.full(before.shape, 3, np.int64)
    controller.flush()
    assert (book.manual(9) == 3).all()
    put(layers, 9, slice(2, 5), 1)
    layers.undo()
    layers.undo()
    assert np.array_equal(layers.manual.data, before)
    assert book.labelled == [4]
    layers.redo()
    assert (book.manual(9) == 3).all()
    layers.undo()
    layers.undo()
    assert book.labelled == []


def test_an_array_that_cannot_be_painted_into_is_copied(controller, layers, book):
    fixed = np.zeros(layers.manual.data.shape, np.uint16)
    fixed.setflags(write=False)
    layers.manual.data = fixed
    put(layers, 4, slice(2, 5), 1)
    controller.flush()
    assert book.labelled == [4]


def test_an_array_that_napari_could_not_draw_is_followed_all_the_same(controller, layers, book):
    layers.manual.selected_label = 300
    with contextlib.suppress(OverflowError):  # napari's colours of a brush with 300 do not fit uint8
        layers.manual.data = np.zeros(layers.manual.data.shape, np.uint8)
    controller.flush()
    assert layers.manual.data.dtype == np.uint16
    put(layers, 4, slice(2, 5), 300)
    controller.flush()
    assert (book.manual(4) == 300).any()


def test_a_script_that_takes_a_stroke_back_stays_in_step_with_the_key(controller, layers, book):
    put(layers, 4, slice(2, 5), 1)
    controller.labels.mark_empty(8)
    layers.manual.undo()
    assert book.labelled == [4]
    layers.undo()
    assert book.labelled == []
    layers.manual.redo()
    layers.redo()
    assert book.labelled == [4, 8]


def test_napari_keeps_no_history_of_its_own_and_ours_needs_none(controller, layers, book):
    put(layers, 4, slice(2, 5), 1)
    assert not layers.manual._undo_history
    layers.manual.editable = False  # napari forgets its history then
    layers.manual.editable = True
    put(layers, 5, slice(2, 5), 1)
    layers.undo()
    layers.undo()
    assert book.labelled == []
    layers.redo()
    assert book.labelled == [4]
    assert not layers.manual._undo_history
    assert not layers.manual._redo_history


def test_more_steps_than_are_kept(controller, layers, book):
    after = [layers.manual.data.copy()]  # each step
    for number in range(UNDO_LIMIT + 5):
        put(layers, number % 16, slice(number // 16, number // 16 + 1), 1)
        after.append(layers.manual.data.copy())
    for _ in range(UNDO_LIMIT + 5):
        layers.undo()
    assert np.array_equal(layers.manual.data, after[-1 - UNDO_LIMIT])
    assert book.labelled == [index for index in range(16) if after[-1 - UNDO_LIMIT][index].any()]
    for _ in range(UNDO_LIMIT + 5):
        layers.redo()
    assert np.array_equal(layers.manual.data, after[-1])


def test_the_view_goes_to_the_slice_that_is_undone(controller, layers, book, qtbot):
    put(layers, 4, slice(2, 5), 1)
    controller.view.go_to(12)
    layers.undo()
    assert controller.current_slice == 4
    controller.view.go_to(12)
    layers.redo()
    assert controller.current_slice == 4


def test_of_many_slices_the_nearest_is_shown_unless_one_is_in_view(controller, layers, book):
    for index in (2, 5, 8):
        predict(book, index)
    controller.labels.accept_above(0.5)
    controller.view.go_to(7)
    layers.undo()
    assert controller.current_slice == 8
    controller.view.go_to(2)
    layers.redo()
    assert controller.current_slice == 2


def test_the_keys_undo_on_every_layer_of_the_case(controller, layers, book):
    put(layers, 4, slice(2, 5), 1)
    for layer in (layers.manual, layers.prediction, layers.image):
        for keys, labelled in (("Ctrl+Z", []), ("Ctrl+Y", [4]), ("Ctrl+Z", []), ("Ctrl+Shift+Z", [4])):
            next(action for bound, action in layer.keymap.items() if str(bound) == keys)(layer)
            assert book.labelled == labelled, (layer.name, keys)


def test_names_colours_and_new_classes_are_undone_too(controller, layers, book):
    controller.labels.rename_class(3, "vessel")
    controller.labels.recolour_class(3, "#123456")
    controller.labels.add_class("nerve")
    assert controller.labels.selected_class == 2
    layers.undo()
    assert [entry.number for entry in book.classes] == [1, 3]
    assert controller.labels.selected_class == 1  # the brush never holds a class that is gone
    layers.undo()
    layers.undo()
    assert [entry.name for entry in book.classes] == ["class 1", "class 3"]


def test_the_history_outlives_the_layer(controller, layers, book):
    put(layers, 4, slice(2, 5), 1)
    put(layers, 5, slice(2, 5), BACKGROUND)
    before = layers.manual.data.copy()
    controller.viewer.layers.remove(layers.manual)
    controller.view.restore_layers()
    assert np.array_equal(layers.manual.data, before)
    layers.undo()
    layers.undo()
    assert book.labelled == []
    assert not layers.manual.data.any()


def test_a_stroke_that_is_looked_at_while_it_is_drawn_is_undone_as_one(controller, layers, book):
    layers.painting._drawing = True  # as between the press and the release of a mouse button
    with layers.manual.block_history():
        for column in (3, 8, 13):
            layers.manual.paint((4, 10, column), 1)
            controller.flush()
    layers.painting._drawing = False
    assert (book.manual(4) == 1).any()
    layers.undo()
    assert book.labelled == []


def test_a_layer_that_is_not_ours_any_more_has_naparis_own_undo(controller, layers, book):
    old = layers.manual
    old.data = np.zeros((2, 3, 4), np.uint16)
    controller.view.restore_layers()
    put(layers, 4, slice(2, 5), 1)
    controller.flush()
    old.undo()
    for keys in old.keymap:
        assert "Z" not in str(keys)
    assert book.labelled == [4]


def test_a_new_class_is_selected_even_when_its_number_is_not_the_largest(controller, layers, book):
    controller.labels.add_class("between")
    assert [entry.number for entry in book.classes] == [1, 2, 3]
    assert controller.labels.selected_class == 2


def test_paint_beside_a_small_picture_says_nothing_of_it(controller, tmp_path):
    from skimage.io import imsave

    from napari_dinoaugseg.case import open_case

    rng = np.random.default_rng(0)
    for name, shape in (("a.png", (20, 30)), ("b.png", (12, 14))):
        imsave(tmp_path / name, rng.integers(0, 255, shape).astype(np.uint8), check_contrast=False)
    controller.cases.begin(open_case(tmp_path))
    book = controller.session.labels
    predict(book, 1, 1)
    controller.labels.accept(1)
    controller.layers.manual.data_setitem((np.array([1]), np.array([18]), np.array([25])), 1)
    controller.flush()
    assert book.status(1) is Status.ACCEPTED


def test_what_was_written_into_the_array_at_once_after_opening_is_seen(controller, layers, book, qtbot):
    layers.manual.data[4, 3, 3] = 1
    layers.manual.refresh()
    qtbot.waitUntil(lambda: book.labelled == [4], timeout=10_000)
