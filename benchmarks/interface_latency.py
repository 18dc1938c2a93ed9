"""How smooth the window stays while the model encodes, trains and predicts the sample case, or learns live.

    python -m benchmarks.interface_latency [--preset balanced] [--json FILE]
    python -m benchmarks.interface_latency --live [--preset fast] [--seconds 20] [--json FILE]
    python -m benchmarks.interface_latency --deeds [--slices 200] [--side 512] [--json FILE]

A Qt timer of 10 ms runs in the interface's thread; a gap is the time between two of its ticks. "Own" is the longest gap
in processor time of that thread: what the interface itself computes, whatever else runs on the machine. A stroke is
twenty brush positions drawn through napari's Labels layer, with the canvas redrawn after each. With ``--live`` a slice
is labelled, and strokes on others and steps to the next slice go on while it learns. With ``--deeds`` a volume that is
made for it is opened, and what a person can do with it is done once: another plane, a drag of the window, three planes,
training, masks that come in, accepting them, 3-D, a class less, export, another case, which is a DICOM series, and the
export to DICOM SEG. "all" counts the gaps of all stages together. "first" is the time from the click until the first
slice was drawn. Needs a display (or xvfb-run).
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

LABELLED = (20, 46, 72, 98, 124)
TICK = 10  # milliseconds
LOOKING = 5  # seconds that a person looks for the file, in which PyTorch is loaded
LIMITS = {"longest": 150.0, "p99": 50.0}


class Gaps:
    """Gaps between the ticks of a timer, by what the engine does meanwhile, in milliseconds.

    Args:
        stage: returns what the engine does now.
        clock: returns seconds; `time.thread_time` counts only those in which the interface's thread computes.
    """

    def __init__(self, stage: Callable[[], str], clock: Callable[[], float] = time.perf_counter) -> None:
        from qtpy.QtCore import Qt, QTimer

        self.by_stage: dict[str, list[float]] = {}
        self._stage, self._clock = stage, clock
        self._last: float | None = None
        self._timer = QTimer()
        self._timer.setTimerType(Qt.TimerType.PreciseTimer)
        self._timer.timeout.connect(self._tick)
        self._timer.start(TICK)

    def pause(self) -> None:
        """Forget the last tick: the time that the benchmark itself takes does not count as a gap."""
        self._last = None

    def _tick(self) -> None:
        now = self._clock()
        if self._last is not None:
            self.by_stage.setdefault(self._stage(), []).append(1000 * (now - self._last))
        self._last = now


class Window:
    """A viewer with the panel, and the gaps since a case was opened.

    Args:
        preset: of the training.
        path: of the case; None opens the sample, with two classes.

    Attributes:
        stage: what the engine does now; gaps and strokes are counted for it.
        first: milliseconds from the click until the first slice was drawn.
        strokes: their milliseconds, by stage.
    """

    def __init__(self, preset: str, path: Path | None = None) -> None:
        import napari
        from qtpy.QtCore import QTimer

        from napari_dinoaugseg.case.array import brain_sample
        from napari_dinoaugseg.gui.panel import Panel

        self.viewer = napari.Viewer()
        self.panel = Panel(self.viewer)
        self.viewer.window.add_dock_widget(self.panel, name="DINO-AugSeg")
        controller = self.controller = self.panel.controller
        controller.live.switch(False)
        controller.setup.use_preset(preset)
        controller.setup.change(encoder="efficientnet-lite0")
        pump(LOOKING)
        self.stage = "opening"  # the case is read and drawn
        self.strokes: dict[str, list[float]] = {}
        self._gaps, self._own = Gaps(lambda: self.stage), Gaps(lambda: self.stage, time.thread_time)
        self._clicked, self.first = time.perf_counter(), float("nan")
        self._watch = QTimer()
        self._watch.timeout.connect(self._look)
        self._watch.start(5)
        if path is None:
            controller.cases.open_sample()
        else:
            controller.cases.open_path(path, plane="axial")
        wait(lambda: controller.session is not None)
        wait(lambda: not controller.jobs.busy)
        pump(5)
        self.pause()
        if path is not None:
            return
        self.truth = controller.session.case.to_slices(np.asarray(brain_sample().tissue.dataobj))
        controller.labels.add_class("white matter")

    def _look(self) -> None:
        """Note the time when the image of the case, in place of the voxels that wait for it, was drawn."""
        image = next(iter(self.viewer.layers), None)
        if image is None or min(image.data.shape) < 3:
            return
        self._watch.stop()
        canvas = self.viewer.window._qt_viewer.canvas.native
        canvas.frameSwapped.connect(self._drawn)

    def _drawn(self) -> None:
        if np.isnan(self.first):
            self.first = 1000 * (time.perf_counter() - self._clicked)

    def pause(self) -> None:
        """Do not count the time since the last tick."""
        self._gaps.pause()
        self._own.pause()

    def do(
        self, name: str, deed: Callable[[], object], until: Callable[[], bool] = lambda: True, seconds: float = 120
    ) -> None:
        """Do something, and let Qt work until it is done and shown, at most so long."""
        self.pause()
        self.stage = name
        pump(0.05)
        deed()
        wait(until, seconds)
        pump(1)
        self.pause()

    def close(self) -> dict[str, dict[str, float]]:
        """Close the viewer; returns the figures by stage."""
        found = {
            name: figures(values, self._own.by_stage[name], self.strokes.get(name, []))
            for name, values in self._gaps.by_stage.items()
        }
        every = [[gap for gaps in clock.by_stage.values() for gap in gaps] for clock in (self._gaps, self._own)]
        found["all"] = figures(*every, [stroke for strokes in self.strokes.values() for stroke in strokes])
        found["opening"]["first"] = self.first
        self.viewer.close()
        return found


def measure_live(preset: str, seconds: float) -> dict[str, dict[str, float]]:
    """Paint and walk in the sample for so long while it learns live, and return figures by stage in milliseconds."""
    window = Window(preset)
    controller = window.controller
    window.stage = "idle"  # Live is off
    paint_and_walk(window, seconds / 2)
    window.pause()
    while controller.session.labels.undo():
        pass
    controller.layers.show_labels(range(controller.session.case.n_slices))
    window.stage = "loading"  # the encoder, and the slices around the one in view
    window.pause()
    controller.live.switch(True)
    wait(lambda: controller.session.is_ready)
    pump(3)
    seen = follow_masks(window)
    window.pause()
    controller.layers.manual.data[72] = window.truth[72]
    controller.layers.manual.refresh()
    controller.flush()
    window.pause()
    window.stage = "learning"
    started = time.monotonic()
    controller.layers.go_to(74)
    paint_and_walk(window, seconds)
    if len(seen) > 1:
        print(f"masks of the slice in view: first after {seen[0] - started:.1f} s, then every", end=" ")
        print(f"{np.median(np.diff(seen)):.2f} s (median), 95th percentile {np.percentile(np.diff(seen), 95):.2f} s")
    window.stage = "going on"  # nobody paints: it learns to the end, and predicts all slices
    ended = time.monotonic() + seconds
    pump(seconds, lambda: not controller.live.learns)
    window.stage = "predicting"
    book = controller.session.labels
    pump(ended - time.monotonic(), lambda: len(book.confidence) >= len(book.open_slices))
    window.stage = "asleep"
    pump(3)
    return window.close()


def measure_deeds(folder: Path, slices: int, side: int) -> dict[str, dict[str, float]]:
    """Open a volume of so many slices, (side, side) pixels each, and do with it what a person can do."""
    from napari_dinoaugseg.case import Plane
    from napari_dinoaugseg.gui.core import Change

    series = write_series(folder / "series", slices, side)
    window = Window("fast", write_volume(folder / "case.nii.gz", slices, side))
    controller = window.controller
    image, book = controller.layers.image, controller.session.labels
    window.do("plane", lambda: controller.cases.change_plane(Plane.CORONAL))
    window.do("plane", lambda: controller.cases.change_plane(Plane.AXIAL))
    image, book = controller.layers.image, controller.session.labels

    def drag() -> None:
        for step in range(40):
            image.contrast_limits = (-160 + 2 * step, 240 + 4 * step)
            pump(0.02)

    window.do("window", drag)
    window.do(
        "3 planes",
        lambda: controller.planes.switch(True, in_turns=True),
        lambda: not controller.planes.is_opening,
    )
    for index in range(slices // 2, slices // 2 + 5):
        window.do("3 p. step", lambda index=index: controller.view.go_to(index))  # type: ignore[misc]
    window.do("3 p. end", lambda: controller.planes.switch(False, in_turns=True))
    controller.labels.add_class("second")
    mask = np.zeros((side, side), np.uint16)
    mask[side // 4 : side // 2, side // 4 : side // 2] = 1
    mask[side // 2 : 5 * side // 8, side // 2 : 5 * side // 8] = 2
    controller.layers.manual.data[slices // 2] = mask
    controller.layers.manual.refresh()
    window.do("paint", controller.flush)
    others = [index for index in range(10, slices - 10) if index != slices // 2]

    def write(path: Path) -> None:
        controller.jobs.run("Writing the mask", lambda: controller.session.export(path), lambda _: None)

    def predict() -> None:
        for index in others:
            book.set_prediction(index, np.roll(mask, index % 7, axis=0), 0.95)
            controller.layers.show_predictions([index])
            controller.touch(Change.PREDICTIONS)
            pump(0.005)

    window.do("train", controller.jobs.train, lambda: controller.jobs.last_stage == "predict", seconds=600)
    controller.jobs.stop()
    wait(lambda: not controller.jobs.busy)
    window.do("predictions", predict)
    window.do("accept", lambda: controller.labels.accept_above(0.9))
    window.do("3-D", lambda: controller.surfaces.switch(True, in_turns=True), lambda: not controller.surfaces.working)
    window.do(
        "3-D end", lambda: controller.surfaces.switch(False, in_turns=True), lambda: not controller.surfaces.is_on
    )
    window.do("undo", controller.layers.undo)
    window.do("redo", controller.layers.redo)
    window.do("class", lambda: controller.labels.remove_class(2, erase=True))
    window.do("export", lambda: write(folder / "mask.nii.gz"), lambda: not controller.jobs.busy)
    window.do("next case", lambda: controller.cases.open_path(series, plane="axial"), lambda: not controller.jobs.busy)
    controller.session.labels.label(dict.fromkeys(others, np.minimum(mask, 1)))
    window.do("DICOM SEG", lambda: write(folder / "mask.dcm"), lambda: not controller.jobs.busy)
    return window.close()


def write_volume(path: Path, slices: int, side: int) -> Path:
    """A CT of noise with a body in it."""
    import nibabel as nib

    nib.save(nib.Nifti1Image(np.moveaxis(body(slices, side), 0, 2), np.diag([-0.8, -0.8, 1.5, 1.0])), path)
    return path


def write_series(folder: Path, slices: int, side: int) -> Path:
    """The same as a DICOM series."""
    import pydicom
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    folder.mkdir()
    study, series, frame = generate_uid(), generate_uid(), generate_uid()
    for index, pixels in enumerate(body(slices, side)):
        meta = pydicom.dataset.FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, generate_uid()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        one = pydicom.Dataset()
        one.file_meta = meta
        one.SOPClassUID, one.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        one.StudyInstanceUID, one.SeriesInstanceUID, one.FrameOfReferenceUID = study, series, frame
        one.Modality, one.PatientName, one.PatientID, one.InstanceNumber = "CT", "Body", "B", index + 1
        one.ImagePositionPatient, one.ImageOrientationPatient = [0, 0, 1.5 * index], [1, 0, 0, 0, 1, 0]
        one.PixelSpacing, one.SliceThickness, one.RescaleSlope, one.RescaleIntercept = [0.8, 0.8], 1.5, 1, 0
        one.Rows, one.Columns, one.SamplesPerPixel, one.PhotometricInterpretation = side, side, 1, "MONOCHROME2"
        one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation = 16, 16, 15, 1
        one.PixelData = pixels.tobytes()
        one.save_as(folder / f"{index:04}.dcm", enforce_file_format=True)
    return folder


def body(slices: int, side: int) -> np.ndarray:
    """Noise with a body in it, (slices, side, side)."""
    voxels = np.random.default_rng(0).normal(-1000, 30, (slices, side, side)).astype(np.int16)
    voxels[:, side // 8 : -side // 8, side // 8 : -side // 8] += 1050
    return voxels


def paint_and_walk(window: Window, seconds: float) -> None:
    """A stroke twice a second, and a step to the next slice every two seconds."""
    started = time.monotonic()
    next_stroke, next_step, drawn = started + 0.5, started + 2, 0
    while time.monotonic() < started + seconds:
        pump(0.002)
        if time.monotonic() > next_stroke:
            draw_stroke(window.controller, window.strokes, window.stage, 76 + 2 * (drawn // 4))
            drawn, next_stroke = drawn + 1, time.monotonic() + 0.5
        if time.monotonic() > next_step:
            window.controller.layers.go_to(window.controller.current_slice + 1)
            next_step = time.monotonic() + 2


def follow_masks(window: Window) -> list[float]:
    """A list that fills with the times at which a mask of the slice in view comes."""
    seen: list[float] = []
    controller, store = window.controller, window.controller.session.store_prediction

    def follow(prediction: object) -> None:
        if prediction.index == controller.current_slice:  # type: ignore[attr-defined]
            seen.append(time.monotonic())
        store(prediction)

    controller.session.store_prediction = follow
    return seen


def measure(preset: str) -> dict[str, dict[str, float]]:
    """Open the sample, let it train and predict, and return figures by stage in milliseconds."""
    from qtpy.QtWidgets import QApplication

    window = Window(preset)
    controller = window.controller
    for index in LABELLED:
        controller.layers.manual.data[index] = window.truth[index]
    controller.layers.manual.refresh()
    controller.flush()
    pump(2)
    window.pause()
    window.stage = "idle"
    for _ in range(20):
        draw_stroke(controller, window.strokes, window.stage)
        pump(0.1)
    window.pause()

    def follow(event: object) -> None:
        window.stage = event.stage  # type: ignore[attr-defined]

    controller.progressed.connect(follow)
    window.stage = "starting"  # the encoder is loaded
    controller.jobs.train()
    next_stroke = time.monotonic() + 0.5
    while controller.jobs.busy or controller.jobs.last_stage != "predict":
        QApplication.processEvents()
        if time.monotonic() > next_stroke:
            draw_stroke(controller, window.strokes, window.stage)
            next_stroke = time.monotonic() + 0.5
        time.sleep(0.0005)
    return window.close()


def draw_stroke(controller: object, strokes: dict[str, list[float]], stage: str, index: int = 60) -> None:
    """Twenty brush positions on a slice, each followed by what Qt has to do."""
    layer = controller.layers.manual  # type: ignore[attr-defined]
    started = time.perf_counter()
    for step in range(20):
        layer.paint((index, 60 + step, 80), 1)
    layer.refresh()
    strokes.setdefault(stage, []).append(1000 * (time.perf_counter() - started))


def figures(gaps: list[float], own: list[float], strokes: list[float]) -> dict[str, float]:
    """Longest and 99th percentile of the gaps, median of the strokes."""
    return {
        "longest": max(gaps),
        "own": max(own),
        "p99": float(np.percentile(gaps, 99)),
        "median": float(np.median(gaps)),
        "ticks": len(gaps),
        "stroke": float(np.median(strokes)) if strokes else float("nan"),
    }


def wait(condition: Callable[[], bool], seconds: float = 120) -> None:
    """Let Qt work until a condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        pump(0.05, condition)
        if time.monotonic() > end:
            msg = "it was not done in time"
            raise TimeoutError(msg)


def pump(seconds: float, until: Callable[[], bool] = lambda: False) -> None:
    """Let Qt work for a while, or until a condition holds."""
    from qtpy.QtWidgets import QApplication

    end = time.monotonic() + seconds
    while time.monotonic() < end and not until():
        QApplication.processEvents()
        time.sleep(0.001)


def main() -> None:
    """Print a table; write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="balanced")
    parser.add_argument("--live", action="store_true", help="paint with Live on instead of training")
    parser.add_argument("--seconds", type=float, default=20.0, help="of painting with --live")
    parser.add_argument("--deeds", action="store_true", help="do once what a person can do with a large volume")
    parser.add_argument("--slices", type=int, default=200, help="of the volume of --deeds")
    parser.add_argument("--side", type=int, default=512, help="pixels of a slice of the volume of --deeds")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as cache, tempfile.TemporaryDirectory() as sessions:
        os.environ["DINOAUGSEG_CACHE"] = cache  # everything has to be encoded
        os.environ["DINOAUGSEG_SESSIONS"] = sessions  # not the person's own
        os.environ["NAPARI_CONFIG"] = ""  # nor their preferences
        if arguments.deeds:
            with tempfile.TemporaryDirectory() as folder:
                result = measure_deeds(Path(folder), arguments.slices, arguments.side)
        elif arguments.live:
            result = measure_live(arguments.preset, arguments.seconds)
        else:
            result = measure(arguments.preset)
    columns = {"longest": "longest", "own": "own", "99th pct": "p99", "median": "median", "stroke": "stroke"}
    print(f"{'stage':<12}" + "".join(f"{name:>10}" for name in columns) + "     ticks   (milliseconds)")
    for name, row in result.items():
        missed = [key for key, limit in LIMITS.items() if row[key] > limit]
        print(
            f"{name:<12}" + "".join(f"{row[key]:>10.1f}" for key in columns.values()) + f"{row['ticks']:>10.0f}   "
            f"{'above the limit: ' + ', '.join(missed) if missed else ''}"
            + (f"   first slice after {row['first']:.0f}" if "first" in row else "")
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
