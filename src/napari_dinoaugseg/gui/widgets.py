"""Widgets, dialogs and questions that the sections of the panel share."""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any, Literal

import platformdirs
import pyqtgraph
from qtpy.compat import isalive
from qtpy.QtCore import QEvent, QObject, QSettings, Qt, QTimer, Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import (
    QAbstractItemView,
    QAbstractSpinBox,
    QComboBox,
    QDialog,
    QDialogButtonBox,
    QDoubleSpinBox,
    QFileDialog,
    QFormLayout,
    QGraphicsView,
    QHBoxLayout,
    QInputDialog,
    QLabel,
    QLayout,
    QMessageBox,
    QPushButton,
    QSizePolicy,
    QSlider,
    QTableWidget,
    QTableWidgetItem,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from napari_dinoaugseg.case import CT_WINDOWS
from napari_dinoaugseg.errors import SeriesInfo
from napari_dinoaugseg.learning.events import Cancel

_log = logging.getLogger(__name__)

# --- theme, timers and threads --------------------------------------------------------------------------------------


def text_colour(viewer: Any) -> str:
    """The colour of text in the viewer's theme, ``#rrggbb``."""
    return _colour(viewer, "text")


def background_colour(viewer: Any) -> str:
    """The colour behind the text, ``#rrggbb``."""
    return _colour(viewer, "background")


def follow_theme(viewer: Any, widget: QWidget, show: Callable[[], None]) -> None:
    """Call ``show`` now, and at each change of the viewer's theme as long as the widget exists."""

    def changed(*_: object) -> None:
        show()

    known = weakref.ref(viewer)  # one that Python removes together with the widget is torn already

    def disconnect(*_: object) -> None:
        shown = known()
        if shown is not None:
            shown.events.theme.disconnect(changed)

    viewer.events.theme.connect(changed)
    widget.destroyed.connect(disconnect)
    show()


def _brightness(colour: str) -> float:
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return 0.299 * red + 0.587 * green + 0.114 * blue


def _colour(viewer: Any, name: str) -> str:
    from napari.utils.theme import get_theme

    return str(getattr(get_theme(viewer.theme), name).as_hex(format="long"))


BREATH = 15
"""Milliseconds between two pieces of long work on the GUI thread, in which the window draws and answers."""


def single_shot(action: Callable[[], Any], parent: QObject | None = None) -> QTimer:
    """A timer that calls an action once each time it is started."""
    timer = QTimer(parent)
    timer.setSingleShot(True)
    timer.timeout.connect(action)
    return timer


def stop(timer: QTimer) -> None:
    """Stop a timer, which Qt may already have deleted when the program exits."""
    if isalive(timer):  # type: ignore[no-untyped-call]
        timer.stop()


Pieces = Generator[None, None, None]
"""Work that yields after each of its pieces."""


class Turns:
    """Long work on the GUI thread, done in pieces between which the window draws and answers.

    Args:
        guarded: calls a piece in a turn of its own, and shows its error.
    """

    def __init__(self, guarded: Callable[[Callable[[], None]], object]) -> None:
        self._work: deque[Pieces] = deque()
        self._timer = single_shot(lambda: guarded(self._go_on))
        self._is_within = False  # a piece may end the work itself

    @property
    def busy(self) -> bool:
        """Whether something is left to do."""
        return bool(self._work)

    def add(self, work: Pieces) -> None:
        """Do something after what was added before: the first piece now if that is done."""
        self._work.append(work)
        if len(self._work) == 1:
            self._go_on()

    def finish(self) -> None:
        """Do all that is left now."""
        stop(self._timer)
        while self._work:
            self._step()

    def drop(self) -> None:
        """Leave undone what is left, but for the `finally` of the work that was begun."""
        stop(self._timer)
        left, self._work = self._work, deque()
        for work in left:
            if not (self._is_within and work is left[0]):
                work.close()

    def _go_on(self) -> None:
        try:
            self._step()
        finally:
            if self._work:
                self._timer.start(BREATH)

    def _step(self) -> None:
        work, self._is_within = self._work[0], True
        is_over: object = True
        try:
            is_over = next(work, True)
        finally:
            self._is_within = False
            if is_over and self._work and self._work[0] is work:
                self._work.popleft()


_AT_EXIT = 60.0  # seconds that the exiting program waits for its threads
_working: dict[threading.Thread, Cancel | None] = {}


def in_background(work: Callable[[], None], name: str, cancel: Cancel | None = None) -> None:
    """Run a function in a thread of its own; the program waits for its end when it exits.

    Python stops threads that are left as it exits; one that computes in native code, as PyTorch's, then aborts the
    whole process.

    Args:
        work: reports its errors itself.
        name: of the thread.
        cancel: is set when the program exits, so that the work ends early; None = it is short.
    """

    def run() -> None:
        try:
            work()
        finally:
            _working.pop(thread, None)

    thread = threading.Thread(target=run, name=name, daemon=True)
    _working[thread] = cancel
    thread.start()


@atexit.register
def _end_background() -> None:
    running = {thread: cancel for thread, cancel in list(_working.items()) if thread.is_alive()}
    for cancel in running.values():
        if cancel is not None:
            cancel.set()
    until = time.monotonic() + _AT_EXIT
    for thread in running:
        thread.join(max(0.0, until - time.monotonic()))


class Inbox(QObject):
    """Passes what a thread sends to a function on the GUI thread, in the order in which it was sent.

    Args:
        receive: called with the items of each :meth:`send`.
        parent: a widget that reads it, with which it is deleted.
    """

    _sent = Signal(tuple)

    def __init__(self, receive: Callable[..., object], parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._receive = receive
        self._sent.connect(self._on_sent)

    def send(self, *items: object) -> None:
        """Send from any thread; nothing arrives once the widget, or the window as the program exits, is deleted."""
        try:
            self._sent.emit(items)
        except RuntimeError:  # the Qt object is deleted
            _log.debug("a thread ended after its window")

    def _on_sent(self, items: tuple[object, ...]) -> None:
        self._receive(*items)


FRAME = "#{name} {{ border: 2px solid #e69f00; border-radius: 4px; }}"
"""The frame of a question in the panel, without a background, so that it is readable in both themes."""


# --- widgets --------------------------------------------------------------------------------------------------------


class Collapsible(QWidget):
    """A title that folds and unfolds the content below it."""

    def __init__(self, title: str, content: QWidget, *, opened: bool = True, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.content = content
        self.title = QToolButton()
        self.title.setText(title)
        self.title.setCheckable(True)
        self.title.setChecked(opened)
        self.title.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.title.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        font = self.title.font()
        font.setBold(True)
        self.title.setFont(font)
        self.title.toggled.connect(self._fold)
        column(self, self.title, content, margins=(0, 0, 0, 0), spacing=2)
        self._fold(opened)

    def set_open(self, opened: bool) -> None:
        """Fold or unfold."""
        self.title.setChecked(opened)

    def _fold(self, opened: bool) -> None:
        self.title.setArrowType(Qt.ArrowType.DownArrow if opened else Qt.ArrowType.RightArrow)
        self.content.setVisible(opened)


def button(text: str, tip: str, action: Callable[[], Any]) -> QPushButton:
    """A button with a tooltip."""
    made = QPushButton(text)
    made.setToolTip(tip)
    made.clicked.connect(lambda *_: action())
    return made


def choice(items: list[str], tip: str) -> QComboBox:
    """A drop-down list with a tooltip."""
    made = QComboBox()
    made.addItems(items)
    made.setToolTip(tip)
    # Long items must not set the width of the panel.
    made.setMinimumContentsLength(8)
    made.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    return made


class WheelScrolls(QObject):
    """Leaves the wheel to the scroll area around the fields and plots inside of a widget.

    Otherwise whoever scrolls changes the list, number or slider that comes under the mouse, such as what the model sees
    or what is exported, and stops at a plot.
    """

    def __init__(self, inside: QWidget) -> None:
        super().__init__(inside)
        for kind in (QComboBox, QAbstractSpinBox, QSlider):
            for field in inside.findChildren(kind):
                field.installEventFilter(self)
        for plot in inside.findChildren(QGraphicsView):
            viewport = plot.viewport()
            if viewport is not None:
                viewport.installEventFilter(self)

    def eventFilter(self, _field: QObject | None, event: QEvent | None) -> bool:  # noqa: N802 - Qt's name
        """Keep the wheel from the field; ignored, it goes on to what is around it."""
        if event is None or event.type() != QEvent.Type.Wheel:
            return False
        event.ignore()
        return True


def row(*widgets: QWidget, stretch: int | None = None) -> QHBoxLayout:
    """Widgets side by side; the one numbered ``stretch`` takes the spare width."""
    layout = QHBoxLayout()
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setSpacing(4)
    for widget in widgets:
        layout.addWidget(widget)
    if stretch is not None:
        layout.setStretch(stretch, 1)
    return layout


def column(
    parent: QWidget,
    *parts: QWidget | QLayout,
    margins: tuple[int, int, int, int] = (6, 2, 6, 4),
    spacing: int | None = 4,
) -> QVBoxLayout:
    """Lay out widgets and layouts of a parent below each other; ``spacing`` None = the style's own."""
    layout = QVBoxLayout(parent)
    layout.setContentsMargins(*margins)
    if spacing is not None:
        layout.setSpacing(spacing)
    for part in parts:
        if isinstance(part, QLayout):
            layout.addLayout(part)
        else:
            layout.addWidget(part)
    return layout


def sentence(text: str = "", *, rich: bool = False) -> QLabel:
    """A label that wraps its text, plain or rich."""
    label = QLabel(text)
    label.setWordWrap(True)
    label.setTextFormat(Qt.TextFormat.RichText if rich else Qt.TextFormat.PlainText)
    # Otherwise a wrapping label requests the width of its longest line, and the panel would grow.
    label.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Minimum)
    return label


class Elided(QLabel):
    """One line of plain text, elided in the middle where it does not fit; the tooltip is the whole text.

    Attributes:
        whole: the text as it was set.
    """

    def __init__(self) -> None:
        super().__init__()
        self.whole = ""
        self.setTextFormat(Qt.TextFormat.PlainText)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)

    def show_text(self, text: str) -> None:
        """Set the text."""
        self.whole = text
        self.setToolTip(text)
        self._fit()

    def resizeEvent(self, event: Any) -> None:  # noqa: N802 - Qt's name
        """Elide for the new width."""
        super().resizeEvent(event)
        self._fit()

    def _fit(self) -> None:
        self.setText(self.fontMetrics().elidedText(self.whole, Qt.TextElideMode.ElideMiddle, self.width()))


class Chart(pyqtgraph.PlotWidget):  # type: ignore[misc]
    """A small line chart in the colours of the viewer's theme, which the mouse does not move.

    Args:
        viewer: its theme is followed.
        height: pixels.
        colours: of the line, on a dark and on a light background.
        line: options of pyqtgraph for the line, as its symbol.
    """

    def __init__(self, viewer: Any, height: int, colours: tuple[str, str], **line: Any) -> None:
        super().__init__(background=None)
        self._viewer = viewer
        self._line_colours = colours
        self.setFixedHeight(height)
        self.setMenuEnabled(False)
        self.setMouseEnabled(x=False, y=False)
        self.hideButtons()
        self.line = self.plot(**line)
        follow_theme(viewer, self, self._show_colours)

    def _show_colours(self) -> None:
        text, ground = text_colour(self._viewer), background_colour(self._viewer)
        colour = self._line_colours[0 if _brightness(text) > _brightness(ground) else 1]
        self.setBackground(ground)  # without one, a plot keeps the background of the theme it was created in
        for side in ("left", "bottom"):
            axis = self.getAxis(side)
            axis.setPen(text)
            axis.setTextPen(text)
        self.line.setPen(pyqtgraph.mkPen(colour, width=2))
        self.line.setSymbolPen(colour)
        self.line.setSymbolBrush(colour)


_FRAMES = 300  # proposed for a long video


def quietly(widget: QWidget, change: Callable[[], Any]) -> None:
    """Change a widget while its signals are blocked."""
    blocked = widget.blockSignals(True)
    try:
        change()
    finally:
        widget.blockSignals(blocked)


def as_sentence(text: str) -> str:
    """A notice of the engine with a capital and a full stop, which it may lack."""
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."


# --- file dialogs: each opens in the folder last used for the same purpose, also after a restart --------------------


Purpose = Literal["case", "labels", "predictions", "export", "report", "model", "weights", "project"]
"""What a dialog is for; each purpose remembers its own folder."""


def ask_for_file(
    parent: QWidget, purpose: Purpose, title: str, filters: str, *, beside: Path | None = None
) -> Path | None:
    """Ask for an existing file.

    Args:
        parent: the widget below the dialog.
        purpose: what the file is for.
        title: of the dialog.
        filters: in Qt's format: ``Model (*.safetensors);;All files (*)``.
        beside: the folder to open while none is remembered for this purpose; None = the home folder.

    Returns:
        The file; None if cancelled.
    """
    name, _ = QFileDialog.getOpenFileName(parent, title, str(_start(purpose, beside)), filters)
    return _remember(purpose, name, is_inside=True)


def ask_for_files(
    parent: QWidget, purpose: Purpose, title: str, filters: str, *, beside: Path | None = None
) -> list[Path]:
    """Ask for existing files; arguments as for :func:`ask_for_file`. Returns none if cancelled."""
    names, _ = QFileDialog.getOpenFileNames(parent, title, str(_start(purpose, beside)), filters)
    if names:
        _remember(purpose, names[0], is_inside=True)
    return [Path(name) for name in names]


def ask_for_folder(parent: QWidget, purpose: Purpose, title: str, *, beside: Path | None = None) -> Path | None:
    """Ask for an existing folder; arguments as for :func:`ask_for_file`. Returns None if cancelled."""
    name = QFileDialog.getExistingDirectory(parent, title, str(_start(purpose, beside)))
    # The next case is usually beside the last one, whereas exports go into the same folder.
    return _remember(purpose, name, is_inside=purpose != "export")


def ask_where_to_save(
    parent: QWidget, purpose: Purpose, title: str, name: str, filters: str, *, beside: Path | None = None
) -> tuple[Path, str] | None:
    """Ask for the name of a file to write. The caller asks before replacing files, once for all of them.

    Arguments as for :func:`ask_for_file`; ``name`` is the proposed name.

    Returns:
        The file and the chosen filter; None if cancelled.
    """
    options = QFileDialog.Option.DontConfirmOverwrite
    proposed = str(_start(purpose, beside) / name)
    picked, chosen = QFileDialog.getSaveFileName(parent, title, proposed, filters, options=options)
    path = _remember(purpose, picked, is_inside=True)
    return None if path is None else (path, chosen)


def _start(purpose: Purpose, beside: Path | None) -> Path:
    known = cache_settings().value(purpose)
    for folder in (Path(known) if isinstance(known, str) else None, beside):
        if folder is not None and folder.is_dir():
            return folder
    return Path.home()


def _remember(purpose: Purpose, name: str, *, is_inside: bool) -> Path | None:
    """The path that a dialog returned; the next dialog of this purpose opens in its folder."""
    if not name:
        return None
    path = Path(name)
    cache_settings().setValue(purpose, str(path.parent if is_inside else path))
    return path


def cache_settings() -> QSettings:
    """The remembered folders by purpose, and what was open last; a cache that can be cleared."""
    return QSettings(str(cache_folder() / "dialogs.ini"), QSettings.Format.IniFormat)


def cache_folder() -> Path:
    """The environment variable DINOAUGSEG_CACHE, else the user's cache folder."""
    named = os.environ.get("DINOAUGSEG_CACHE")
    return Path(named) if named else Path(platformdirs.user_cache_dir("napari-dinoaugseg", appauthor=False))


# --- questions: the default answer is the safe one, so a stray Enter changes nothing --------------------------------


def confirmed(parent: QWidget | None, title: str, text: str) -> bool:
    """Ask a yes-or-no question and wait for the answer; "No" is the default."""
    button = QMessageBox.StandardButton
    buttons: Any = button.Yes | button.No  # PyQt5's stubs call this a number
    return bool(QMessageBox.question(parent, title, text, buttons, button.No) == button.Yes)


def chosen(parent: QWidget | None, title: str, text: str, answers: Sequence[str]) -> int | None:
    """Ask for one of several answers; returns its number. Cancel, the default, returns None."""
    box = QMessageBox(QMessageBox.Icon.Question, title, text, parent=parent)
    buttons = [box.addButton(answer, QMessageBox.ButtonRole.AcceptRole) for answer in answers]
    cancel = box.addButton(QMessageBox.StandardButton.Cancel)
    box.setDefaultButton(cancel)
    box.setEscapeButton(cancel)
    box.exec()
    clicked = box.clickedButton()
    return next((number for number, button in enumerate(buttons) if button is clicked), None)


def ask_for_series(parent: QWidget, series: Sequence[SeriesInfo]) -> str | None:
    """Ask for a DICOM series; returns its UID, or None if cancelled."""
    dialog = SeriesDialog(series, parent)
    return dialog.uid if dialog.exec() else None


class SeriesDialog(QDialog):
    """The series of a DICOM folder: description, number of slices, spacing."""

    def __init__(self, series: Sequence[SeriesInfo], parent: QWidget) -> None:
        super().__init__(parent)
        self.setWindowTitle("Choose a series")
        self._series = sorted(series, key=lambda entry: -entry.slices)
        self.table = QTableWidget(len(self._series), 3)
        self.table.setHorizontalHeaderLabels(["Description", "Slices", "Spacing"])
        self.table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        for line, entry in enumerate(self._series):
            for column, text in enumerate((entry.description or "(none)", str(entry.slices), _spacing(entry))):
                self.table.setItem(line, column, QTableWidgetItem(text))
        self.table.selectRow(0)
        self.table.resizeColumnsToContents()
        self.table.doubleClicked.connect(lambda *_: self.accept())
        layout = QVBoxLayout(self)
        for widget in (QLabel("This folder holds several DICOM series."), self.table, ok_and_cancel(self)):
            layout.addWidget(widget)
        self.resize(560, 300)

    @property
    def uid(self) -> str:
        """The UID of the selected series."""
        return self._series[max(0, self.table.currentRow())].uid


def ask_for_volume(parent: QWidget, count: int, names: Sequence[str] = ()) -> int | None:
    """Ask for a time point or channel of a file, or of those with these names.

    Returns:
        Its number from 0; None if cancelled.
    """
    which = "This file holds" if len(names) < 2 else f"{names[0]} and {len(names) - 1} more hold"
    number, chosen = QInputDialog.getInt(
        parent,
        "Choose a volume",
        f"{which} {count} volumes (time points or channels).\nWhich one, from 0 to {count - 1}?",
        0,
        0,
        count - 1,
    )
    return number if chosen else None


def ask_for_frames(parent: QWidget, count: int, names: Sequence[str] = ()) -> int | None:
    """Ask which frames of a video, or of those with these names, to take.

    Returns:
        n, to take every n-th frame; None if cancelled.
    """
    which = "This video has" if len(names) < 2 else f"{names[0]} and {len(names) - 1} more have"
    text = f"{which} {count} frames.\nTake one frame in how many? (30 frames are about a second.)"
    number, chosen = QInputDialog.getInt(parent, "Choose frames", text, max(1, round(count / _FRAMES)), 1, count)
    return number if chosen else None


def ask_for_window(parent: QWidget, low: float, high: float) -> str | None:
    """Ask for the darkest and the brightest grey value; returns "low,high", or None if cancelled."""
    dialog = QDialog(parent)
    dialog.setWindowTitle("Intensity window")
    fields = []
    form = QFormLayout(dialog)
    for name, value in (("Black from", low), ("White from", high)):
        field = QDoubleSpinBox()
        field.setRange(-1e9, 1e9)
        field.setDecimals(2)
        field.setValue(value)
        form.addRow(name, field)
        fields.append(field)
    form.addRow(ok_and_cancel(dialog))
    if not dialog.exec():
        return None
    return f"{fields[0].value():g},{fields[1].value():g}"


def ok_and_cancel(dialog: QDialog) -> QDialogButtonBox:
    """The buttons that accept and reject a dialog."""
    both: Any = QDialogButtonBox.StandardButton.Ok | QDialogButtonBox.StandardButton.Cancel  # PyQt5: a number
    buttons = QDialogButtonBox(both)
    buttons.accepted.connect(dialog.accept)
    buttons.rejected.connect(dialog.reject)
    return buttons


def _spacing(entry: SeriesInfo) -> str:
    between, row, column = entry.spacing
    parts = []
    if row is not None and column is not None:
        parts.append(f"{column:.3g} × {row:.3g} mm")
    if between is not None:
        parts.append(f"slices {between:.3g} mm")
    return ", ".join(parts) or "unknown"


# --- intensity windows: of the view (Case section) and of the model (Train section) ---------------------------------


WINDOWS = ("auto", "percentiles", *CT_WINDOWS)


def show_window(choice: QComboBox, window: str) -> None:
    """Select a window in a list of WINDOWS and one last item for other values ("own values…").

    A window given as values is inserted before that item, in place of the previous one. Emits no signals.
    """

    def change() -> None:
        for index in reversed(range(len(WINDOWS), choice.count() - 1)):
            choice.removeItem(index)
        if window not in WINDOWS:
            choice.insertItem(choice.count() - 1, window)
        choice.setCurrentText(window)

    quietly(choice, change)
