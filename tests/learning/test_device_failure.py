"""A graphics card that fails cannot be used again in the process: the CPU takes over, and nothing is lost."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_dinoaugseg.case.intensity import choose_window
from napari_dinoaugseg.errors import DeviceError
from napari_dinoaugseg.learning import fallback as devices
from napari_dinoaugseg.learning import train
from napari_dinoaugseg.learning.events import Notice, Progress
from napari_dinoaugseg.learning.fallback import CPU, choose_device, classify_error, free_memory, usable
from napari_dinoaugseg.learning.features import FeatureStore
from napari_dinoaugseg.learning.predict import predict
from napari_dinoaugseg.learning.settings import Adaptation
from napari_dinoaugseg.learning.train import fit
from napari_dinoaugseg.model import hub
from napari_dinoaugseg.model.encoder import ENCODERS, Encoder
from napari_dinoaugseg.model.weights import fit_weights
from tests.learning.fake_device import CARD, FakeCard, OnCard
from tests.learning.test_trainer import run

FAILURES = {
    "assert": "CUDA error: device-side assert triggered\nCUDA kernel errors might be asynchronously reported",
    "launch": "CUDA error: unspecified launch failure",
    "address": "CUDA error: an illegal memory access was encountered",
    "cuBLAS": "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm(...)`",
    "cuDNN": "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED",
    "driver": "CUDA driver error: unknown error",
    "ROCm": "HIP error: invalid device function",
    "MPS": "MPS: command buffer exited with error status",
}
BROKEN = RuntimeError(FAILURES["assert"])
STEPS = 4


@pytest.fixture(autouse=True)
def card(monkeypatch):
    """The card is there, and has not failed yet."""
    monkeypatch.setattr(devices, "_failed", set())
    monkeypatch.setattr(torch.mps, "empty_cache", lambda: None)
    monkeypatch.setattr(train, "_SAVE_EVERY", 2)
    before = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)  # else a moved parameter would stay on the CPU
    yield CARD
    torch.__future__.set_overwrite_module_params_on_conversion(before)


@pytest.fixture
def store_on(case):
    """A store whose encoder is on the device; call it while the card is active."""

    packaged = hub.in_package(ENCODERS["efficientnet-lite0"])
    weights = fit_weights(packaged)[1]

    def make(device, context=0):
        encoder = Encoder(ENCODERS["efficientnet-lite0"], weights, device)
        options = {"window": choose_window(case), "context": context, "memory_budget": 2**24}
        return FeatureStore(case, encoder, input_size=64, **options)

    return make


@pytest.fixture
def settings(quick):
    return quick.with_changes(steps=STEPS, class_steps=0.0, views=0, width=16)


def texts(events):
    return [event.text for event in events if isinstance(event, Notice)]


@pytest.mark.parametrize("text", FAILURES.values(), ids=FAILURES)
def test_failures_of_devices_are_known(text):
    assert classify_error(RuntimeError(text)).kind == "device"


def test_an_operation_that_apple_does_not_offer_is_left_to_the_cpu():
    text = "The operator 'aten::grid_sampler_3d' is not currently implemented for the MPS device."
    assert classify_error(NotImplementedError(text)).kind == "device"


def test_a_mistake_of_ours_is_not_taken_for_a_failure():
    text = "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu!"
    assert classify_error(RuntimeError(text)) is None


def test_the_card_does_the_work_while_it_is_sound(store_on, examples, settings):
    with FakeCard() as card:
        store = store_on(CARD)
        assert store.encoder.device == CARD
        events, trained = run(fit(store, examples, settings, n_classes=3))
        before = card.operations
        list(predict(store, trained.decoder, range(2)))
        assert card.operations > before > 1000
    assert texts(events) == []
    assert trained.device == CARD
    assert not any(isinstance(value, OnCard) for value in trained.decoder.state_dict().values())


@pytest.mark.parametrize("adaptation", [None, Adaptation(after=0.5)], ids=["frozen", "adapted"])
def test_a_training_outlives_the_card(store_on, examples, settings, adaptation):
    settings = settings.with_changes(adaptation=adaptation)
    with FakeCard():  # what the first training of a process does once more than the others is not to be counted
        run(fit(store_on(CARD), examples, settings.with_changes(steps=1), n_classes=3))
    with FakeCard() as counting:
        store = store_on(CARD)
        first = counting.operations + 1
        run(fit(store, examples, settings, n_classes=3))
    for at in (first + 300, (first + counting.operations) // 2, counting.operations):
        devices._failed.clear()
        with FakeCard(BROKEN, at, None) as card:
            store = store_on(CARD)
            events, trained = run(fit(store, examples, settings, n_classes=3))
            once = settings.with_changes(steps=1)
            again, second = run(fit(store, examples, once, n_classes=3, warm_start=trained.decoder, device=CARD))
            items = []
            masks = list(predict(store, trained.decoder, range(2), device=CARD, report=items.append))
            assert store.encoder.device == CPU
        assert card.failures == 1, "something of the card was touched after it had failed"
        assert (trained.steps, trained.device, second.device) == (STEPS, CPU, CPU)
        weights = [*trained.decoder.state_dict().values(), *trained.encoder_changes.values()]
        assert all(value.isfinite().all() and not isinstance(value, OnCard) for value in weights)
        assert len(texts(events)) == 1
        assert "failed (CUDA error: device-side assert triggered); going on with the" in texts(events)[0]
        assert texts(again) == texts(items) == []
        assert len(masks) == 2


def test_what_was_learnt_before_the_failure_is_kept(store_on, examples, settings, monkeypatch):
    step, calls = train._Run._step, []

    def breaking(self, *arguments):
        calls.append(self.size.device)
        if len(calls) == 4:
            raise BROKEN
        return step(self, *arguments)

    monkeypatch.setattr(train._Run, "_step", breaking)
    with FakeCard():
        events, _ = run(fit(store_on(CARD), examples, settings, n_classes=3))
    done = [event.done for event in events if isinstance(event, Progress) and event.stage == "train"]
    assert done == [1, 2, 3, 3, 4]  # held after 2 steps
    assert calls == [CARD] * 4 + [CPU] * 2


@pytest.mark.parametrize(("context", "moments"), [(0, (0, 0.5, 1)), (1, (0.5,))])
def test_a_prediction_outlives_the_card_and_the_masks_are_the_same(store_on, examples, settings, context, moments):
    trained = run(fit(store_on(CPU), examples, settings, n_classes=3))[1]
    expected = list(predict(store_on(CPU, context), trained.decoder, range(6)))
    with FakeCard() as counting:
        store = store_on(CARD, context)
        first = counting.operations + 1
        list(predict(store, trained.decoder, range(6)))
    for at in (first + int(moment * (counting.operations - first)) for moment in moments):
        devices._failed.clear()
        with FakeCard(BROKEN, at, None) as card:
            items = []
            found = list(predict(store_on(CARD, context), trained.decoder, range(6), report=items.append))
        assert card.failures == 1
        assert [item.index for item in found] == list(range(6))
        assert np.mean([np.mean(a.classes != b.classes) for a, b in zip(found, expected, strict=True)]) < 1e-3
        assert len(texts(items)) == 1


def test_a_full_card_encodes_with_less_before_the_cpu_takes_over(store_on):
    full, wanted = torch.OutOfMemoryError("CUDA out of memory"), [(index, None) for index in range(4)]
    for times, device, words in (
        (2, CARD, ["2 slices at a time", "1 slices at a time"]),
        (3, CPU, ["2 slices at a time", "1 slices at a time", "the encoder on the CPU"]),
    ):
        with FakeCard() as counting:
            store = store_on(CARD)
        with FakeCard(full, counting.operations + 1, times):
            store = store_on(CARD)
            told = texts(store.prepare(wanted))
            assert store.encoder.device == device
        assert [text.partition("with ")[2].strip(".") for text in told] == words
        assert store.encoded == 4
        assert usable(CARD) == CARD


def test_a_full_card_trains_with_less_before_the_cpu_takes_over(make_store, examples, settings):
    full = torch.OutOfMemoryError("CUDA out of memory")
    for times, device in ((1, CARD), (2, CARD), (3, CPU)):
        with FakeCard(full, 1, times):
            events, trained = run(fit(make_store(), examples, settings, n_classes=3, device=CARD))
        assert len(texts(events)) == times
        assert (trained.steps, trained.device) == (STEPS, device)


def test_after_a_failure_the_cpu_is_chosen_until_the_program_ends(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device("auto") == choose_device("mps") == CARD
    devices.give_up(CARD)
    assert choose_device("auto") == CPU
    with pytest.raises(DeviceError, match=r"failed before. Use cpu, or start the program again"):
        choose_device("mps")


def test_cards_are_chosen_by_number_and_the_first_by_itself(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("auto") == torch.device("cuda")
    assert choose_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(DeviceError, match=r"Found: cpu, cuda:0, cuda:1\. Use auto"):
        choose_device("cuda:2")


def test_what_pytorch_holds_in_reserve_is_given_back_by_sound_devices_only(monkeypatch):
    asked = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: asked.append("cuda"))
    monkeypatch.setattr(torch.mps, "empty_cache", lambda: asked.append("mps"))
    for device in (CPU, torch.device("cuda"), CARD):
        free_memory(device)
    devices.give_up(CARD)
    free_memory(CARD)
    assert asked == ["cuda", "mps"]


def test_a_failure_that_reaches_the_cpu_says_to_start_again(make_store, examples, settings, monkeypatch):
    def broken(*_):
        raise BROKEN

    monkeypatch.setattr(train._Run, "_step", broken)
    with pytest.raises(DeviceError, match=r"device-side assert triggered.*Save your work, start the program again"):
        run(fit(make_store(), examples, settings, n_classes=3))


def test_an_optimiser_on_the_cpu_asks_nothing_of_a_failed_card(make_store, examples, settings, monkeypatch):
    """PyTorch's optimisers ask the accelerator at each step whether it records a graph."""

    class Stream:
        def is_capturing(self):
            raise BROKEN

    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available=False: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "current_stream", Stream)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", Stream().is_capturing)
    with pytest.raises(RuntimeError, match=r"device-side assert"):
        torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))]).step()
    assert run(fit(make_store(), examples, settings, n_classes=3))[1].steps == STEPS
