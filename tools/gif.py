"""Takes the moving picture of README and tutorial: strokes, an outline, Enter, and masks on the next slices.

    make gif        # or: python tools/gif.py [--out FILE]

The window is driven with a mouse and keys on the sample case, as a person would. Needs a display (make gives a virtual
one) and the extras offline and demo.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING
from unittest.mock import patch

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from screenshots import Stage

if TYPE_CHECKING:
    from qtpy.QtCore import QPoint

FIRST = 80  # the slice that is labelled first
LEARNED = 72  # steps of Live before the person goes on
WIDTH = 960  # pixels of the picture
COLOURS = 96
MEGABYTES = 3.0

Points = Sequence[tuple[float, float]]

# Row and column on the slices of the sample: along both lateral ventricles, and around them.
RIGHT: Points = [(118, 60), (106, 68), (97, 74), (86, 74), (76, 74), (69, 71)]
LEFT: Points = [(row, 159 - column) for row, column in RIGHT]
AROUND: Points = [
    *((52, 52), (60, 78), (52, 107), (78, 99), (95, 96), (108, 108), (133, 116)),
    *((133, 98), (112, 80), (133, 61), (133, 43), (108, 51), (95, 63), (78, 60), (52, 52)),
]


class Film:
    """Frames of the window, with the mouse and a caption drawn on them."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._frames: list[Image.Image] = []
        self._seconds: list[float] = []
        self.caption = ""
        self.mouse: QPoint | None = None  # in the canvas

    def shoot(self, seconds: float) -> None:
        """Take a frame that is shown for so long."""
        window = self._stage.window
        grabbed = window.grab().toImage()
        grabbed = grabbed.convertToFormat(grabbed.Format.Format_RGB888)
        pixels = np.frombuffer(bytes(_bytes_of(grabbed)), np.uint8)
        pixels = pixels.reshape(grabbed.height(), grabbed.bytesPerLine())[:, : 3 * grabbed.width()]
        frame = Image.fromarray(pixels.reshape(grabbed.height(), grabbed.width(), 3))
        draw = ImageDraw.Draw(frame)
        if self.mouse is not None:
            place = self._stage.canvas.mapTo(window, self.mouse)
            draw.ellipse([place.x() - 7, place.y() - 7, place.x() + 7, place.y() + 7], outline="white", width=3)
        height = round(frame.height * WIDTH / frame.width)
        frame = frame.resize((WIDTH, height), Image.Resampling.LANCZOS)
        if self.caption:
            self._write(frame)
        self._frames.append(frame)
        self._seconds.append(seconds)

    def _write(self, frame: Image.Image) -> None:
        draw, font = ImageDraw.Draw(frame), ImageFont.load_default(size=22)
        left, top, right, bottom = draw.textbbox((0, 0), self.caption, font=font)
        x, y = 24, frame.height - 64
        draw.rectangle([x - 12, y - 10, x + right - left + 12, y + bottom - top + 14], fill=(20, 24, 32))
        draw.text((x, y), self.caption, font=font, fill="white")

    def save(self, path: Path) -> None:
        """Write the frames, with one palette for all of them."""
        widest = Image.new(
            "RGB", (WIDTH, sum(frame.height for frame in self._frames[:: max(1, len(self._frames) // 6)]))
        )
        top = 0
        for frame in self._frames[:: max(1, len(self._frames) // 6)]:
            widest.paste(frame, (0, top))
            top += frame.height
        palette = widest.quantize(COLOURS)
        first, *others = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in self._frames]
        first.save(
            path,
            save_all=True,
            append_images=others,
            duration=[round(1000 * seconds) for seconds in self._seconds],
            loop=0,
            optimize=True,
        )


def _bytes_of(image: object) -> bytes:
    bits = image.constBits()  # type: ignore[attr-defined]
    if hasattr(bits, "setsize"):
        bits.setsize(image.sizeInBytes())  # type: ignore[attr-defined]
    return bytes(bits)


class Hand:
    """The mouse and the keyboard."""

    def __init__(self, stage: Stage, film: Film) -> None:
        self._stage, self._film = stage, film

    def stroke(self, points: Points) -> None:
        """Draw along points of the slice in view, and film it."""
        from qtpy.QtCore import Qt
        from qtpy.QtTest import QTest

        canvas, button, plain = self._stage.canvas, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
        to = self._look()
        along = [to(*point) for point in _dense(points)]
        QTest.mouseMove(canvas, along[0])
        QTest.mousePress(canvas, button, plain, along[0])
        for number, place in enumerate(along):
            QTest.mouseMove(canvas, place)
            QTest.qWait(12)  # napari takes one movement in 5 ms
            if number % 6 == 0:
                self._film.mouse = place
                self._film.shoot(0.08)
        QTest.mouseRelease(canvas, button, plain, along[-1])
        self._film.mouse = along[-1]

    def press(self, key: str) -> None:
        """Press a key: ``S``, ``Return``."""
        from qtpy.QtCore import Qt
        from qtpy.QtTest import QTest

        QTest.keyClick(self._stage.canvas, getattr(Qt.Key, f"Key_{key}"))

    def _look(self) -> Callable[[float, float], QPoint]:
        """Where a row and column of the slice lie in the canvas, found by moving the mouse to three places."""
        from qtpy.QtCore import QPoint
        from qtpy.QtTest import QTest

        layers, canvas = self._stage.panel.controller.layers, self._stage.canvas
        middle = QPoint(canvas.width() // 2, canvas.height() // 2)
        places = [middle + QPoint(*offset) for offset in ((-40, -40), (40, -40), (-40, 40))]
        seen = []
        for place in (middle, *places):
            QTest.mouseMove(canvas, place)
            QTest.qWait(60)
            seen.append(np.delete(layers.manual.world_to_data(self._stage.viewer.cursor.position), layers.axis))
        known = np.column_stack([np.array(seen[1:]), np.ones(3)])
        matrix = np.linalg.solve(known, [(place.x(), place.y()) for place in places])
        return lambda row, column: QPoint(*(round(float(x)) for x in np.array([row, column, 1]) @ matrix))


def _dense(points: Points) -> list[tuple[float, float]]:
    """Points about two pixels apart along a line."""
    found: list[tuple[float, float]] = []
    for (row, column), (row_after, column_after) in pairwise(points):
        steps = max(2, round(np.hypot(row_after - row, column_after - column) / 2))
        for part in np.arange(steps) / steps:
            found.append((row + part * (row_after - row), column + part * (column_after - column)))
    return [*found, (float(points[-1][0]), float(points[-1][1]))]


def film(out: Path) -> None:
    """Play the scene and write the picture."""
    with tempfile.TemporaryDirectory() as folder:
        stage = Stage(Path(folder), "dark")
        frames = Film(stage)
        _play(stage, frames, Hand(stage, frames), Path(folder))
        stage.viewer.close()
    frames.save(out)
    size = out.stat().st_size / 2**20
    print(f"{out}: {size:.2f} MiB")
    if size > MEGABYTES:
        msg = f"{out} is larger than {MEGABYTES} MiB: use fewer colours or frames."
        raise SystemExit(msg)


def _play(stage: Stage, frames: Film, hand: Hand, folder: Path) -> None:
    controller = stage.panel.controller
    controller.setup.use_preset("fast")
    controller.setup.change(encoder="efficientnet-lite0")
    controller.cases.open_sample()
    stage.spin(60, lambda: controller.session is not None and not controller.jobs.busy)
    session, layers = controller.session, controller.layers
    if session is None or layers is None:
        msg = "the sample case did not open"
        raise RuntimeError(msg)
    for entry in session.labels.classes[1:]:
        controller.labels.remove_class(entry.number)
    controller.labels.rename_class(1, "ventricles")
    controller.view.go_to(FIRST)
    layers.manual.brush_size = 4
    stage.spin(6)  # napari's own notices fade, and the encoder is loaded
    stage.close_toasts()
    frames.caption = "A case is open: no label, no model yet"
    frames.shoot(1.5)
    hand.press("S")
    stage.spin(0.4)
    frames.caption = "Smart scribble (S): strokes inside …"
    hand.stroke(RIGHT)
    hand.stroke(LEFT)
    hand.press("D")
    stage.spin(0.2)
    frames.caption = "… and one around, of the background (D)"
    hand.stroke(AROUND)
    stage.spin(5, lambda: layers.proposal is not None and bool(layers.proposal.data[FIRST].any()))
    stage.spin(0.3)
    frames.caption = "The outline completes them"
    frames.shoot(1.8)
    hand.press("Return")
    stage.spin(0.4)
    frames.caption = "Enter takes it"
    frames.shoot(1.0)
    taken = time.monotonic()
    stage.spin(120, lambda: controller.live.progress is not None and controller.live.progress.done >= LEARNED)
    waited = time.monotonic() - taken
    for step in (2, 4, 6, 8):
        controller.view.go_to(FIRST + step)
        stage.spin(2)
        frames.caption = f"{waited:.0f} s later the model has masks on the next slices"
        frames.shoot(0.8)
    stage.spin(60, lambda: controller.live.progress is None or not controller.live.learns)
    stage.spin(10, lambda: not session.labels.open_slices or len(session.labels.confidence) > 100)
    hand.press("A")
    stage.spin(0.6)
    frames.caption = "A accepts a mask and goes on"
    frames.shoot(1.0)
    stage.show_section("Export")
    with (
        patch("qtpy.QtWidgets.QFileDialog.getSaveFileName", return_value=(str(folder / "mask.nii.gz"), "")),
        patch("napari_dinoaugseg.gui.export_section.chosen", lambda *_: 0),
        patch("napari_dinoaugseg.gui.export_section.confirmed", lambda *_: True),
    ):
        stage.panel.export.mask_button.click()
        stage.spin(20, lambda: (folder / "mask.nii.gz").exists() and not controller.jobs.busy)
    stage.spin(0.5)
    frames.caption = "Export: NIfTI in the geometry of the image"
    frames.shoot(2.0)


def main() -> None:
    """Run with the arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/screenshots/strokes.gif"))
    film(parser.parse_args().out)


if __name__ == "__main__":
    main()
