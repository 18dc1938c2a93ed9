import copy
from collections import Counter

import numpy as np
import pytest
import torch

from napari_dinoaugseg.errors import TrainingError
from napari_dinoaugseg.learning import predict as predicting
from napari_dinoaugseg.learning import train as steps
from napari_dinoaugseg.learning.events import Cancel, Notice, Progress, nearest_first
from napari_dinoaugseg.learning.fallback import NoRoomError
from napari_dinoaugseg.learning.features import FeatureStore, GpuFeatureCache
from napari_dinoaugseg.learning.metrics import dice
from napari_dinoaugseg.learning.postprocessing import UNKNOWN_TARGET
from napari_dinoaugseg.learning.predict import predict
from napari_dinoaugseg.learning.settings import Settings
from napari_dinoaugseg.learning.train import Example, _Run, fit
from tests.blobs import LEFT_OUT


@pytest.fixture
def quick(quick):
    """With the narrowest decoder, which learns the blobs in fewer steps."""
    return quick.with_changes(steps=60, width=16)


def run(work):
    """Events and result of a generator."""
    events = []
    while True:
        try:
            events.append(next(work))
        except StopIteration as stop:
            return events, stop.value


def masks(store, decoder, indices=LEFT_OUT):
    found = {item.index: item for item in predict(store, decoder, indices)}
    return np.stack([found[index].classes for index in indices])


def mean_dice(found, truth):
    return np.mean([dice(found == number, truth == number) for number in (1, 2)])


def test_three_labelled_slices_teach_the_others(make_store, examples, truth, quick):
    store = make_store()
    _, trained = run(fit(store, examples, quick, n_classes=3))
    assert mean_dice(masks(store, trained.decoder), truth[list(LEFT_OUT)]) > 0.85
    assert trained.steps == quick.planned_steps(3, len(examples), warm=False)
    assert not trained.decoder.training


def test_the_papers_recipe_builds_the_papers_decoder_and_lowers_the_loss(make_store, examples, encoder):
    paper = Settings.of_preset("paper", input_size=64, steps=12, learning_rate=1e-3)
    events, trained = run(fit(make_store(), examples, paper, n_classes=3))
    losses = [event.loss for event in events if event.stage == "train"]
    assert losses[-1] < losses[0]
    arguments = trained.decoder.arguments
    assert arguments["channels"] == list(encoder.channels)
    assert (arguments["width"], arguments["norm"], arguments["rope"]) == (None, "batch", "1d")
    assert events[0].total == len(examples)


def test_wide_decoders_learn_in_bfloat16_where_the_processor_is_made_for_it(make_store, examples, monkeypatch):
    settings = Settings.of_preset("paper", input_size=64, steps=12, learning_rate=1e-3, precision="auto")
    losses = {}
    for able in (True, False):
        monkeypatch.setattr(steps, "_bfloat16_is_fast", lambda able=able: able)
        assert steps.mixed_precision(torch.device("cpu"), settings) is able
        assert not steps.mixed_precision(torch.device("cpu"), settings.with_changes(width=48))
        _, trained = run(fit(make_store(), examples, settings, n_classes=3))
        losses[able] = trained.final_loss
    assert losses[True] != losses[False]
    assert losses[True] == pytest.approx(losses[False], rel=0.05)


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(make_store, examples, quick):
    short = quick.with_changes(steps=6)
    weights = [
        run(fit(make_store(), examples, short.with_changes(seed=seed), n_classes=3))[1].decoder.state_dict()
        for seed in (1, 1, 2)
    ]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert any(not torch.equal(weights[0][name], weights[2][name]) for name in weights[0])


def test_the_callers_random_state_is_left_alone_and_does_not_matter(make_store, examples, quick):
    short = quick.with_changes(steps=4)
    torch.manual_seed(99)
    expected = torch.rand(3)
    torch.manual_seed(99)
    _, first = run(fit(make_store(), examples, short, n_classes=3))
    assert torch.equal(torch.rand(3), expected)

    def disturbed():
        work = fit(make_store(), examples, short, n_classes=3)
        while True:
            torch.rand(7)
            try:
                yield next(work)
            except StopIteration as stop:
                return stop.value

    _, second = run(disturbed())
    state = first.decoder.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in second.decoder.state_dict().items())


def test_events_tell_encoding_then_every_step(make_store, examples, quick):
    events, _ = run(fit(make_store(), examples, quick.with_changes(steps=5, class_steps=0.0), n_classes=3))
    stages = [event.stage for event in events]
    assert stages == ["encode"] * stages.count("encode") + ["train"] * 5
    assert 6 <= events[0].total <= 9  # three slices in three views, each of which some step shows
    steps = [event for event in events if event.stage == "train"]
    assert [event.done for event in steps] == [1, 2, 3, 4, 5]
    assert all(event.loss > 0 and event.learning_rate > 0 for event in steps)


def test_stopping_answers_within_one_step_and_keeps_what_was_learnt(make_store, examples, quick):
    cancel, seen = Cancel(), []
    work = fit(make_store(), examples, quick, n_classes=3, cancel=cancel)
    while True:
        try:
            event = next(work)
        except StopIteration as stop:
            trained = stop.value
            break
        if isinstance(event, Progress) and event.stage == "train":
            seen.append(event.done)
            if event.done == 7:
                cancel.set()
    assert seen[-1] == 7
    assert trained.steps == 7


def test_stopping_before_anything_was_learnt_says_so(make_store, examples, quick):
    cancel = Cancel()
    cancel.set()
    with pytest.raises(TrainingError, match="stopped before"):
        run(fit(make_store(), examples, quick, n_classes=3, cancel=cancel))


def test_a_warm_start_takes_fewer_steps_and_leaves_its_model_as_it_was(make_store, examples, truth, quick):
    store = make_store()
    _, first = run(fit(store, examples, quick, n_classes=3))
    before = {name: value.clone() for name, value in first.decoder.state_dict().items()}
    _, second = run(fit(store, examples, quick, n_classes=3, warm_start=first.decoder))
    assert second.steps == quick.planned_steps(3, len(examples), warm=True) < first.steps
    assert all(torch.equal(value, before[name]) for name, value in first.decoder.state_dict().items())
    left_out = truth[list(LEFT_OUT)]
    assert mean_dice(masks(store, second.decoder), left_out) > mean_dice(masks(store, first.decoder), left_out) - 0.03


def test_what_a_continued_model_has_not_seen_is_shown_as_often_as_all_the_rest(
    make_store, examples, quick, monkeypatch
):
    shown = Counter()
    batch = GpuFeatureCache.batch

    def counted(self, wanted):
        shown.update(index for index, _ in wanted)
        return batch(self, wanted)

    monkeypatch.setattr(GpuFeatureCache, "batch", counted)
    store, newest = make_store(), examples[0].index
    _, first = run(fit(store, examples, quick, n_classes=3, newest=[newest]))
    assert max(shown.values()) - min(shown.values()) <= 1  # all are new to a new model
    shown.clear()
    run(fit(store, examples, quick, n_classes=3, warm_start=first.decoder, newest=[newest]))
    assert shown[newest] / shown.total() == pytest.approx(0.5, abs=0.05)


def test_scribbles_are_enough(make_store, examples, truth, quick):
    """Where the person left a pixel open, nothing is learnt from it: half of each slice is enough to learn."""
    open_half = []
    for example in examples:
        target = example.target.copy()
        target[::2] = UNKNOWN_TARGET
        open_half.append(Example(example.index, target))
    store = make_store()
    _, trained = run(fit(store, open_half, quick, n_classes=3))
    assert mean_dice(masks(store, trained.decoder), truth[list(LEFT_OUT)]) > 0.75


def test_nothing_labelled_is_refused(make_store, quick):
    with pytest.raises(TrainingError, match="No slice is labelled"):
        run(fit(make_store(), [], quick, n_classes=2))


def test_out_of_memory_steps_down_the_ladder_and_says_so(make_store, examples, quick, monkeypatch):
    step = _Run._step

    def hungry(self, batch, optimiser):
        if len(batch) > 1 or self.store.input_size > 128:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return step(self, batch, optimiser)

    monkeypatch.setattr(_Run, "_step", hungry)
    work = fit(make_store(input_size=192), examples, quick.with_changes(steps=3, class_steps=0.0), n_classes=3)
    events, trained = run(work)
    notices = [event.text for event in events if isinstance(event, Notice)]
    rungs = [text.partition("going on ")[2] for text in notices]
    assert [text for text in rungs if "features" not in text] == [
        "with 2 slices a step.",
        "with 1 slices a step.",
        "at 128 x 128 pixels.",
    ]
    assert (trained.steps, trained.input_size) == (3, 128)


def test_a_slice_that_cannot_be_encoded_makes_the_input_smaller(make_store, examples, quick, monkeypatch):
    features = FeatureStore.features

    def hungry(store, *arguments):
        if store.input_size > 128:
            raise NoRoomError("There is not enough memory to encode one slice.")
        return features(store, *arguments)

    monkeypatch.setattr(FeatureStore, "features", hungry)
    work = fit(make_store(input_size=192), examples, quick.with_changes(steps=2, class_steps=0.0), n_classes=3)
    events, trained = run(work)
    said = [event.text for event in events if isinstance(event, Notice)]
    assert said == ["Memory ran out in training; going on at 128 x 128 pixels."]
    assert (trained.input_size, trained.steps) == (128, 2)


def test_no_memory_at_all_ends_in_a_sentence(make_store, examples, quick, monkeypatch):
    def hungry(*_):
        raise MemoryError

    monkeypatch.setattr(_Run, "_step", hungry)
    with pytest.raises(TrainingError, match="Not enough memory"):
        run(fit(make_store(), examples, quick, n_classes=3))


def test_other_errors_are_not_taken_for_a_lack_of_memory(make_store, examples, quick, monkeypatch):
    def broken(*_):
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(_Run, "_step", broken)
    with pytest.raises(RuntimeError, match="shapes"):
        run(fit(make_store(), examples, quick, n_classes=3))


@pytest.fixture(scope="module")
def decoders():
    """Those that were trained already, by context."""
    return {}


@pytest.fixture(params=[0, 1], ids=["alone", "with neighbours"])
def trained(make_store, examples, quick, request, decoders):
    """A store of its own, and a copy of a decoder that is trained once."""
    context = request.param
    if context not in decoders:
        short = quick.with_changes(steps=20)
        decoders[context] = run(fit(make_store(context=context), examples, short, n_classes=3))[1].decoder
    return make_store(context=context), copy.deepcopy(decoders[context])


def test_predictions_come_nearest_first_at_the_slices_own_size(trained, case):
    store, decoder = trained
    order = nearest_first(range(16), 9)
    assert order[:5] == [9, 8, 10, 7, 11]
    found = list(predict(store, decoder, order))
    assert [item.index for item in found] == order
    for item in found:
        assert item.classes.shape == item.pixel_confidence.shape == case.slice_shape(item.index)
        assert 1 / 3 <= item.pixel_confidence.min() <= item.pixel_confidence.max() <= 1
        assert 0 <= item.confidence <= 1


def test_predicting_can_be_stopped_between_batches(trained):
    store, decoder = trained
    cancel, found = Cancel(), []
    for item in predict(store, decoder, range(16), cancel=cancel):
        found.append(item)
        cancel.set()
    assert 3 <= len(found) <= 4  # a neighbour may be lacking


def test_prediction_does_not_depend_on_what_else_is_in_the_batch(trained):
    store, decoder = trained
    together = masks(store, decoder, tuple(range(4)))
    alone = np.stack([masks(store, decoder, (index,))[0] for index in range(4)])
    assert np.mean(together != alone) < 1e-3


def test_prediction_survives_out_of_memory(trained, monkeypatch):
    store, decoder = trained
    batch = store.batch

    def small_only(wanted, device):
        if len(wanted) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return batch(wanted, device)

    monkeypatch.setattr(store, "batch", small_only)
    events = []
    assert len(list(predict(store, decoder, range(6), report=events.append))) == 6
    assert len([event for event in events if isinstance(event, Notice)]) == 2


def test_prediction_without_room_for_one_slice_gives_way_step_by_step_and_says_what_to_do(trained, monkeypatch):
    store, decoder = trained
    list(store.prepare([(index, None) for index in range(6)]))

    def refuse(*_):
        raise MemoryError

    monkeypatch.setattr(predicting._Work, "_logits", refuse)
    events = []
    with pytest.raises(NoRoomError, match="Not enough memory to predict one slice"):
        list(predict(store, decoder, range(6), report=events.append))
    said = [event.text.partition("; ")[2] for event in events]
    smaller = ["going on with 2 slices at a time.", "going on with 1 slices at a time."]
    assert said[:3] == [*smaller, "going on with fewer features in memory."]
    assert set(said[3:]) == {"going on with fewer features in memory.", "trying once more."}
    assert said[-1] == "trying once more."


def test_a_card_without_room_for_one_slice_leaves_prediction_to_the_cpu(trained, monkeypatch):
    store, decoder = trained
    on_any = predicting._Work.predict

    def not_on_the_card(work, *arguments):
        if work.device.type != "cpu":
            raise torch.OutOfMemoryError("CUDA out of memory")
        return on_any(work, *arguments)

    monkeypatch.setattr(predicting._Work, "predict", not_on_the_card)
    monkeypatch.setattr(torch.mps, "empty_cache", lambda: None)
    events = []
    found = list(predict(store, decoder, range(6), device=torch.device("mps"), batch_size=1, report=events.append))
    said = [event.text for event in events if isinstance(event, Notice)]
    assert said == ["Memory ran out in prediction; going on with the CPU."]
    assert len(found) == 6


def test_stopping_while_slices_are_encoded_leaves_their_prediction(trained, monkeypatch):
    store, decoder = trained
    cancel, prepare = Cancel(), store.prepare

    def stop(*arguments):
        yield from prepare(*arguments)
        cancel.set()

    monkeypatch.setattr(store, "prepare", stop)
    assert not list(predict(store, decoder, range(6), cancel=cancel))


def test_slices_with_islands_come_again_without_them(make_store, trained, examples):
    labelled = {example.index: example.target for example in examples}
    decoder, order = trained[1], [index for index in range(16) if index not in labelled]
    store = make_store(context=1)
    plain = list(predict(store, decoder, order))
    found = list(predict(store, decoder, order, labelled=labelled))
    assert [item.index for item in found[: len(order)]] == order
    again = found[len(order) :]
    assert again
    before = {item.index: item.classes for item in plain}
    for item in again:
        gone = item.classes != before[item.index]
        assert gone.any()
        assert not item.classes[gone].any()


def test_stopping_leaves_out_slices_that_would_come_again(make_store, trained, examples):
    labelled = {example.index: example.target for example in examples}
    decoder, order = trained[1], [index for index in range(16) if index not in labelled]
    cancel, found = Cancel(), []
    for item in predict(make_store(context=1), decoder, order, labelled=labelled, cancel=cancel):
        found.append(item.index)
        if len(found) == len(order):
            cancel.set()
    assert found == order


@pytest.mark.parametrize("room", [0, 2**20])
def test_slices_that_come_again_are_the_same_whether_their_logits_were_kept(
    room, make_store, trained, examples, monkeypatch
):
    labelled = {example.index: example.target for example in examples}
    decoder, order = trained[1], [index for index in range(16) if index not in labelled]
    store, decoded = make_store(context=1), []
    expected = list(predict(store, decoder, order, labelled=labelled))
    monkeypatch.setattr("napari_dinoaugseg.learning.predict._KEPT", room)
    batch = store.batch
    monkeypatch.setattr(store, "batch", lambda wanted, device: decoded.extend(wanted) or batch(wanted, device))
    found = list(predict(store, decoder, order, labelled=labelled))
    again = len(found) - len(order)
    assert again
    assert len(decoded) >= len(found) if room == 0 else len(decoded) <= 16
    assert [item.index for item in found] == [item.index for item in expected]
    for one, other in zip(found, expected, strict=True):
        assert np.mean(one.classes != other.classes) < 1e-3


def test_views_that_no_step_shows_are_not_encoded(make_store, examples, quick):
    store, settings = make_store(), quick.with_changes(steps=2, class_steps=0.0, views=30)
    run(fit(store, examples, settings, n_classes=3))
    assert store.encoded <= 2 * settings.batch_size
