"""The same with a limit that is real: the system refuses the memory, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

# Lower limits are tried until memory runs out, in steps smaller than what a rung of the ladder saves.
CHILD = """
import json, resource, sys
import numpy as np, torch
from napari_dinoaugseg.learning import fallback
from napari_dinoaugseg.learning.events import Notice
from napari_dinoaugseg.learning.features import FeatureStore
from napari_dinoaugseg.learning.predict import predict
from napari_dinoaugseg.learning.settings import Settings
from napari_dinoaugseg.learning.train import Example, fit
from napari_dinoaugseg.model.encoder import load_encoder
from napari_dinoaugseg.case import case_from_array
from napari_dinoaugseg.case.intensity import choose_window

fallback._WAIT = 0.0
torch.set_num_threads(1)
voxels = np.random.default_rng(0).integers(0, 100, (8, 300, 400)).astype(np.int16)
voxels[:, 50:150, 100:200] += 300
target = np.zeros((300, 400), np.int16)
target[50:150, 100:200] = 1
case, encoder = case_from_array(voxels), load_encoder("efficientnet-lite0")
examples = [Example(index, target) for index in range(4)]
# So that a smaller batch saves more than a step of the limit.
heavy = {"width": 48, "head": None, "blocks": "conv", "fuse_from": 4}
settings = Settings.of_preset("fast", shows=0, input_size=384, steps=1, views=0, class_steps=0.0, **heavy)


def store(size=384):
    return FeatureStore(case, encoder, input_size=size, window=choose_window(case), batch_size=8)


def follow(work, told):
    found = []
    while True:
        try:
            event = next(work)
        except StopIteration as stop:
            return stop.value, found
        (told if isinstance(event, Notice) else found).append(event.text if isinstance(event, Notice) else event)


def encode(told):
    made = store()
    follow(made.prepare([(index, None) for index in range(8)]), told)
    return made.encoded == 8


def train(told):
    trained, _ = follow(fit(store(), examples, settings, n_classes=2), told)
    return trained.steps == 1


def predicting(told):
    def report(event):
        if isinstance(event, Notice):
            told.append(event.text)

    return len(list(predict(store(), decoder, range(8), batch_size=8, report=report))) == 8


def used():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


small = settings.with_changes(input_size=64, steps=1)
decoder = follow(fit(store(64), examples, small, n_classes=2), [])[0].decoder
results = {}
for name, work in (("encode", encode), ("predict", predicting), ("train", train)):
    for megabytes in range(300, 60, -20):
        resource.setrlimit(resource.RLIMIT_AS, (used() + megabytes * 2**20, resource.RLIM_INFINITY))
        told = []
        whole = work(told)
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        if told:
            break
    results[name] = {"whole": whole, "told": told, "megabytes": megabytes}
print(json.dumps(results))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the memory of a process in this way")
def test_memory_that_the_system_refuses_ends_in_a_result():
    # Large pieces of memory are given back to the system at once, so that a limit means what is in use.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "262144", "MALLOC_TRIM_THRESHOLD_": "262144"}
    command = [sys.executable, "-c", CHILD]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    assert list(results) == ["encode", "predict", "train"]
    for stage, result in results.items():
        assert result["whole"], (stage, result)
        assert result["told"], (stage, result)
        assert all("Memory ran out" in text for text in result["told"]), (stage, result)
