"""A saved model at work: loaded once, used on one study after the other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from napari_dinoaugseg import disk
from napari_dinoaugseg.errors import CheckpointError
from napari_dinoaugseg.native import importing_torch
from napari_dinoaugseg.session.saved_model import require_fitting
from napari_dinoaugseg.session.session import Session
from napari_dinoaugseg.study import Study

if TYPE_CHECKING:
    from napari_dinoaugseg.model.checkpoint import Checkpoint
    from napari_dinoaugseg.model.encoder import Encoder


class SavedModel:
    """A model file with the encoder that it needs.

    Args:
        path: what ``segment --model-out`` or the panel wrote.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        weights: a file with encoder weights; None = the hub's cache, an installed package, or the hub.
        cache: keep features on disk.
        say: gets sentences for the person.
    """

    def __init__(
        self,
        path: Path,
        *,
        device: str = "auto",
        weights: Path | None = None,
        cache: bool = True,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.path = path
        self._device, self._weights, self._cache, self._say = device, weights, cache, say
        self._loaded: tuple[Checkpoint, Encoder] | None = None

    def load(self) -> None:
        """Read the model and its encoder, unless that was done before.

        Raises:
            CheckpointError: no model file, damaged, or of another encoder than the weights are.
            WeightsError, DeviceError: the encoder's weights or the device cannot be had.
        """
        self._parts()

    def session(self, study: Study, window: str | None = None) -> Session:
        """A session that is ready to predict the study.

        Args:
            study: what is predicted.
            window: another intensity window than the model was trained with; None = the model's.

        Raises:
            CheckpointError, WeightsError, DeviceError: as :meth:`load`.
            SettingsError: the window does not suit the study.
        """
        checkpoint, encoder = self._parts()
        session = Session(
            study,
            device=self._device,
            weights=self._weights,
            cache=self._cache,
            encoder=encoder,
            say=self._say,
        )
        session.use_model(checkpoint, self.path, window=window)
        return session

    @property
    def preset(self) -> str:
        """The preset with which the model was trained. Raises as :meth:`load`."""
        return require_fitting(self._parts()[0], self.path, (), "auto")[1].preset

    def _parts(self) -> tuple[Checkpoint, Encoder]:
        if self._loaded is None:
            with importing_torch():
                from napari_dinoaugseg.learning.device import choose_device
                from napari_dinoaugseg.model.checkpoint import load_checkpoint
                from napari_dinoaugseg.session.engine import read_encoder, require_encoder

            checkpoint = load_checkpoint(self.path)
            settings = require_fitting(checkpoint, self.path, (), "auto")[1]
            choose_device(self._device)
            encoder = read_encoder(settings.encoder, self._weights, self._say)
            require_encoder(checkpoint, encoder, self.path)
            self._loaded = (checkpoint, encoder)
        return self._loaded


def fingerprint_of(path: Path) -> str:
    """A hash (hex) of the bytes of a model file. Raises CheckpointError when it cannot be read."""
    try:
        return disk.digest(path)
    except OSError as error:
        reason = "there is no such file" if isinstance(error, FileNotFoundError) else disk.reason(error)
        msg = f"{path}: the model cannot be opened: {reason}. Check the path."
        raise CheckpointError(msg) from error
