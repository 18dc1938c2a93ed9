"""What a training makes of the machine, and what it gives up when memory runs out or a device fails."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch

from napari_dinoaugseg.learning.device import CPU, NoRoomError, Patience, diagnose, give_up
from napari_dinoaugseg.learning.events import Notice
from napari_dinoaugseg.learning.features import FeatureStore

_SMALLEST_INPUT = 128


@dataclass(frozen=True)
class Plan:
    """What fits into memory.

    Attributes:
        batch_size: slices a step.
        input_size: side of the square that a slice is resized to.
        device: where the decoder is.
        patience: of this training.
    """

    batch_size: int
    input_size: int
    device: torch.device
    patience: Patience = field(default_factory=Patience, compare=False)

    def after(self, error: Exception, store: FeatureStore) -> tuple[Plan, Notice]:
        """The next rung of the ladder: half the batch, fewer features in memory, half the input, the CPU, waiting.

        Args:
            error: what stopped the work.
            store: lets go of features, or of its device.

        Raises:
            the error itself: it tells neither of memory nor of a device.
            NoRoomError: there is no further rung.
            DeviceError: the device's failure reaches the CPU as well.
        """
        if isinstance(error, NoRoomError):  # a single slice could not be encoded: a smaller batch is no help
            return self._smaller_input(error)
        found = diagnose(error, self.device)
        if found.trouble == "device":
            return self._without_device(found.why, store)
        if self.batch_size > 1:
            plan = replace(self, batch_size=self.batch_size // 2)
            return plan, Notice(f"Memory ran out in training; going on with {plan.batch_size} slices a step.")
        if found.hosts and store.let_go():
            return self, Notice("Memory ran out in training; going on with fewer features in memory.")
        return self._smaller_input(error)

    def _smaller_input(self, error: Exception) -> tuple[Plan, Notice]:
        if self.input_size > _SMALLEST_INPUT:
            size = max(_SMALLEST_INPUT, self.input_size // 2 // 32 * 32)
            return replace(self, input_size=size), Notice(
                f"Memory ran out in training; going on at {size} x {size} pixels."
            )
        if self.device.type != "cpu":
            return replace(self, device=CPU), Notice("Memory ran out in training; going on with the CPU.")
        if not isinstance(error, NoRoomError) and self.patience.once_more():
            return self, Notice("Memory ran out in training; trying once more.")
        msg = "There is not enough memory to train even at the smallest size. Close other programs and try again."
        raise NoRoomError(msg) from error

    def _without_device(self, why: str, store: FeatureStore) -> tuple[Plan, Notice]:
        give_up(self.device)
        store.leave_device()
        return replace(self, device=CPU), Notice(f"The device '{self.device}' failed ({why}); going on with the CPU.")
