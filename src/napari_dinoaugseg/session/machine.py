"""How many workers fit a machine."""

from __future__ import annotations

from dataclasses import dataclass

from napari_dinoaugseg.errors import SettingsError

_THREADS = 2  # a study is read and written by one thread, encoded by several
_MEMORY = 4 * 2**30  # bytes; a CT of 300 slices takes 3 GB


@dataclass(frozen=True)
class Share:
    """What each worker of a machine gets.

    Attributes:
        workers: how many there are.
        threads: of arithmetic, of each.
        memory: bytes of each.
    """

    workers: int
    threads: int
    memory: int


def share_machine(studies: int, *, cores: int, memory: int, gpus: int, wanted: int | None = None) -> Share:
    """Share a machine among workers that take one study at a time.

    With GPUs there is a worker for each. Without, there are as many as fit on the cores with two threads each, and into
    the memory with 4 GiB each.

    Args:
        studies: how many there are to predict.
        cores: of the machine, or what this program may use of them.
        memory: bytes that are free.
        gpus: how many the workers may use; 0 = they compute on the CPU.
        wanted: how many workers a person asked for; None = what fits.

    Raises:
        SettingsError: more are wanted than there are GPUs or cores.
    """
    if gpus and wanted is not None and wanted > gpus:
        msg = f"There are not {wanted} GPUs for {wanted} workers. Use --workers {gpus} at most, or --device cpu."
        raise SettingsError(msg)
    if wanted is not None and wanted > cores:
        msg = f"{wanted} workers do not fit on {cores} cores. Use --workers {cores} at most."
        raise SettingsError(msg)
    fitting = gpus or min(cores // _THREADS, memory // _MEMORY)
    workers = max(1, min(studies, wanted or fitting))
    return Share(workers, max(1, cores // workers), memory // workers)
