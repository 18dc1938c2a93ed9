"""What the person chose once for all cases: napari's Preferences, page of this plugin (napari 0.9 and newer)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from napari_dinoaugseg import offline

PLUGIN = "napari-dinoaugseg"
_forbidden_here = False  # by the preference, as opposed to the environment


@dataclass(frozen=True)
class Preferences:
    """The page "Computing" of the plugin's preferences, as napari.yaml declares it.

    Attributes:
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        encoder: ``auto`` or the name of an encoder.
        offline: never download weights.
        sessions: the folder where labels are saved; empty = the user's data folder.
        scheduler: the address of a Dask scheduler whose workers compute; empty = this computer.
    """

    device: str = "auto"
    encoder: str = "auto"
    offline: bool = False
    sessions: str = ""
    scheduler: str = ""


def preferences() -> Preferences:
    """The person's choices; the defaults where this napari has no preferences for plugins."""
    page = _page()
    if page is None:
        return Preferences()
    return Preferences(
        device=str(page.device),
        encoder=str(page.encoder),
        offline=bool(page.offline),
        sessions=str(page.sessions),
        scheduler=str(page.scheduler),
    )


def apply_offline(chosen: Preferences) -> None:
    """Let the engine know whether it may use the network. What the environment forbids stays forbidden."""
    global _forbidden_here
    if chosen.offline and not offline.is_offline():
        offline.go_offline()
        _forbidden_here = True
    elif not chosen.offline and _forbidden_here:
        offline.go_online()
        _forbidden_here = False


def follow_offline() -> None:
    """Apply the preference now and whenever the person changes it."""
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
    except KeyError:  # the plugin is switched off, or was installed while napari runs
        return None
