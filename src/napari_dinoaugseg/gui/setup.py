"""Settings, encoder and device of a viewer, and the plugin's page in napari's preferences."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_dinoaugseg import offline
from napari_dinoaugseg.cluster import compute_for
from napari_dinoaugseg.errors import CaseError
from napari_dinoaugseg.gui.core import Change, guarded
from napari_dinoaugseg.learning.settings import Settings
from napari_dinoaugseg.session.compute import ComputeConfig
from napari_dinoaugseg.session.session import Session

if TYPE_CHECKING:
    from napari_dinoaugseg.case import Case
    from napari_dinoaugseg.gui.controller import Controller
    from napari_dinoaugseg.model.encoder import Encoder

PLUGIN = "napari-dinoaugseg"
_forbidden_here = False  # whether the preference, not the environment, forbids downloads


@dataclass(frozen=True)
class Preferences:
    """The page "Computing" of the plugin's preferences, as declared in napari.yaml.

    Attributes:
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        encoder: ``auto`` or the name of an encoder.
        offline: never download weights, and contact no PACS.
        sessions: the folder where labels are saved; empty = the user's data folder.
        scheduler: the address of a Dask scheduler whose workers compute; empty = compute on this computer.
        live: learn while the person paints.
        outlines: draw predictions as outlines; filled otherwise.
    """

    device: str = "auto"
    encoder: str = "auto"
    offline: bool = False
    sessions: str = ""
    scheduler: str = ""
    live: bool = True
    outlines: bool = True


def preferences() -> Preferences:
    """The person's preferences; the defaults where this napari has none for plugins."""
    page = _page()
    if page is None:
        return Preferences()
    texts = {name: str(getattr(page, name)) for name in ("device", "encoder", "sessions", "scheduler")}
    return Preferences(offline=bool(page.offline), live=bool(page.live), outlines=bool(page.outlines), **texts)


def remember_live(on: bool) -> None:
    """Keep the choice to learn live for the next viewer; only in this one where napari has no preferences."""
    page = _page()
    if page is not None:
        page.live = on


def remember_outlines(on: bool) -> None:
    """Keep the choice to draw predictions as outlines for the next viewer, like :func:`remember_live`."""
    page = _page()
    if page is not None:
        page.outlines = on


def apply_offline(chosen: Preferences) -> None:
    """Allow or forbid downloads; a preference does not lift what the environment forbids."""
    global _forbidden_here
    if chosen.offline and not offline.is_offline():
        offline.go_offline()
        _forbidden_here = True
    elif not chosen.offline and _forbidden_here:
        offline.go_online()
        _forbidden_here = False


def follow_offline() -> None:
    """Apply the offline preference now and whenever it changes."""
    apply_offline(preferences())
    page = _page()
    if page is not None:
        page.events.offline.disconnect(_on_offline_changed)
        page.events.offline.connect(_on_offline_changed)


def _on_offline_changed(_: object = None) -> None:
    apply_offline(preferences())


def _page() -> Any:
    try:
        from napari.settings import get_plugin_settings
    except ImportError:  # napari before 0.9
        return None
    try:
        return get_plugin_settings(PLUGIN).computing
    except KeyError:  # the plugin is disabled, or was installed while napari runs
        return None


class Setup:
    """The settings, encoder and device of one viewer. A choice that cannot be applied is refused with a message.

    Attributes:
        settings: of the training; change them with `change`.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        scheduler: the address of a Dask scheduler whose workers compute; empty = compute on this computer.
        weights: a file or folder with encoder weights, or None.
        encoder_in_use: the loaded encoder; None before the first is loaded.
        encoder_expected: the encoder that would be loaded; None while unknown.
        weights_found: the encoder and weights file that were chosen when weights for them were last found on this
            machine; None before.
    """

    def __init__(self, controller: Controller) -> None:
        self.controller = controller
        chosen = preferences()
        self.settings = Settings(encoder=chosen.encoder)
        self.device = chosen.device
        self.scheduler = chosen.scheduler
        self.weights: Path | None = None
        self.encoder_in_use: str | None = None
        self.encoder_expected: str | None = None
        self.weights_found: tuple[str, Path | None] | None = None

    def new_session(self, case: Case, encoder: Encoder | None = None) -> Session:
        """A new session of a case with these choices, and a loaded encoder if there is one."""
        notify, config = self.controller.jobs.notify_later, self.compute_config
        return Session(case, self.settings, config, make_compute=compute_for, encoder=encoder, notify=notify)

    @property
    def compute_config(self) -> ComputeConfig:
        """Where to compute, and with which files."""
        return ComputeConfig(self.device, self.weights, scheduler=self.scheduler or None)

    @property
    def has_weights(self) -> bool:
        """Whether the encoder can be loaded without a download; False while unknown."""
        return self.encoder_in_use is not None or self.weights_found == (self.settings.encoder, self.weights)

    @guarded
    def change(self, **changes: Any) -> None:
        """Change settings by name."""
        self._apply(self.settings.with_changes(**changes))

    @guarded
    def use_preset(self, preset: str) -> None:
        """Apply a preset; encoder, window and seed are kept."""
        kept = {"encoder": self.settings.encoder, "window": self.settings.window, "seed": self.settings.seed}
        self._apply(Settings.of_preset(preset, **kept))

    def use_scheduler(self, address: str) -> None:
        """Compute on a worker of the Dask scheduler at this address; empty = compute on this computer."""
        before, self.scheduler = self.scheduler, address.strip()
        if not self.controller.guarded(self._apply, self.settings):
            self.scheduler = before
            return
        self.encoder_in_use = None
        self.controller.jobs.set_interrupted("")

    @guarded
    def use_device(self, device: str) -> None:
        """Choose the device."""
        self.device = device
        self._apply(self.settings)

    @guarded
    def use_weights(self, path: Path | None) -> None:
        """Load the encoder's weights from a file or folder; None = from their default source."""
        self.weights = path
        self._apply(self.settings)

    def adopt(self, session: Session) -> None:
        """Adopt the settings and the encoder of a session after a model was loaded into it."""
        self.settings, self.encoder_in_use = session.settings, session.encoder_name
        self.controller.touch(Change.SETTINGS)

    def take(self, settings: Settings) -> None:
        """Show the settings of a project that was opened."""
        self.settings, self.encoder_in_use = settings, None
        self.controller.touch(Change.SETTINGS)

    def see_encoder(self) -> None:
        """Show the encoder as soon as the session has loaded one."""
        session = self.controller.session
        if session is not None and self.encoder_in_use is None and session.is_ready:
            self.encoder_in_use = session.encoder_name
            self.controller.touch(Change.SETTINGS)

    def _apply(self, settings: Settings) -> None:
        """Apply settings. Raises CaseError while a job is running, SettingsError if the window does not fit."""
        controller, view = self.controller, self.controller.view
        if controller.jobs.busy:
            msg = "Settings cannot be changed while work is running. Press Stop first."
            raise CaseError(msg)
        windows, in_other = (self.settings.window, view.window), controller.view.sequences.number > 0
        if (
            controller.layers is not None
            and settings.window not in windows
            and view.is_what_the_model_sees
            and not in_other
        ):
            controller.layers.show_window(settings.window)
            view.window = settings.window
            controller.touch(Change.WINDOW)
        if controller.session is not None:
            controller.session.configure(settings, self.compute_config)
        controller.project.configure(settings, self.compute_config)
        if settings.encoder != self.settings.encoder:
            self.encoder_in_use = None
        self.settings = settings
        controller.touch(Change.SETTINGS)
