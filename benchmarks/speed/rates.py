"""(d), (e) Slices a second for encoding and prediction, against the plain loop and as a volume grows."""

from __future__ import annotations

import time

from benchmarks.speed import plain
from benchmarks.speed.alone import Figures, alone, peak_bytes
from benchmarks.speed.made import encoder_for_time, made_example, made_volume, result_of, store_for
from napari_dinoaugseg.learning.features import FeatureStore
from napari_dinoaugseg.learning.predict import predict
from napari_dinoaugseg.learning.settings import Settings
from napari_dinoaugseg.learning.train import fit
from napari_dinoaugseg.model.decoder import Decoder

_ENCODER, _SIZE = "efficientnet-lite0", 256
COUNTS = (50, 300, 1000)


def measure_rates(slices: int = 100, device: str = "cpu") -> list[Figures]:
    """Ours against the plain loop, which encodes each time that it predicts."""
    ours, theirs = alone(our_rates, slices, device), alone(plain_rates, slices, device)
    return [
        {
            "what": f"512 x 512 x {slices}, {_ENCODER} at {_SIZE}",
            "encode_per_s": ours["encode_per_s"],
            "predict_per_s": ours["predict_per_s"],
            "plain_encode_per_s": theirs["encode_per_s"],
            "plain_predict_per_s": theirs["predict_per_s"],
            "again_times_faster": round(ours["predict_per_s"] / theirs["predict_per_s"], 2),
        }
    ]


def measure_growth(device: str = "cpu") -> list[Figures]:
    """The same for larger and larger volumes, with the memory after encoding and at most."""
    rows = []
    for slices in COUNTS:
        found = alone(our_rates, slices, device)
        rows.append({"what": f"512 x 512 x {slices}", **found})
    return rows


def our_rates(slices: int, device: str = "cpu") -> Figures:
    """Slices a second, first encoded, then predicted by a decoder of the preset `balanced`."""
    store, decoder = _trained(slices, device)
    started = time.perf_counter()
    for _ in store.prepare([(index, None) for index in range(slices)]):
        pass
    encoded = time.perf_counter()
    count = sum(1 for _ in predict(store, decoder, range(slices)))
    predicted = time.perf_counter()
    return {
        "encode_per_s": round(slices / (encoded - started), 2),
        "predict_per_s": round(count / (predicted - encoded), 2),
        "features_gb": round(store.memory_used / 1e9, 3),
        "resident_gb": round(peak_bytes() / 1e9, 3),
    }


def plain_rates(slices: int, device: str = "cpu") -> Figures:
    """The plain loop: encoding alone, and prediction, in which it encodes again."""
    store, decoder = _trained(slices, device)
    started = time.perf_counter()
    for index in range(slices):
        store.encoder.encode(store.image(index)[None])[-1].cpu()
    encoded = time.perf_counter()
    for _ in plain.predict(store, decoder, range(slices)):
        pass
    return {
        "encode_per_s": round(slices / (encoded - started), 2),
        "predict_per_s": round(slices / (time.perf_counter() - encoded), 2),
    }


def _trained(slices: int, device: str) -> tuple[FeatureStore, Decoder]:
    store = store_for(made_volume(slices), encoder_for_time(_ENCODER, device), _SIZE)
    settings = Settings.of_preset("balanced", steps=2, views=0)
    return store, result_of(fit(store, [made_example(slices // 2)], settings, n_classes=2)).decoder
