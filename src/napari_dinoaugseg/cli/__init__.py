"""The `dinoaugseg` command: the engine without a screen."""

from napari_dinoaugseg.cli.app import main

__all__ = ["main"]
