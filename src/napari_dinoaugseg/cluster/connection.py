"""Connections to a scheduler of dask.distributed and its workers."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING

from napari_dinoaugseg.errors import ClusterError, LostSchedulerError, one_line
from napari_dinoaugseg.learning.memory import limit_to

if TYPE_CHECKING:
    from distributed import Client, Security


INSTALL = 'pip install "napari-dinoaugseg[cluster]"'
GPU = "GPU"
"""The resource that a worker with its own GPU declares."""
_TIMEOUT = 20.0  # seconds


def is_installed() -> bool:
    """Whether dask.distributed and cryptography, for encrypted connections on this machine, are installed."""
    return all(importlib.util.find_spec(name) is not None for name in ("distributed", "cryptography"))


def require_installed() -> None:
    """Raise ClusterError unless dask.distributed is installed."""
    if not is_installed():
        msg = f"Workers need dask.distributed, which is not installed. Use {INSTALL}."
        raise ClusterError(msg)


def hush() -> None:
    """Silence the library's logs in this process, because its errors are raised as ours. Workers keep their logs."""
    for name in [name for name in logging.root.manager.loggerDict if name.partition(".")[0] == "distributed"]:
        logging.getLogger(name).setLevel(logging.CRITICAL)


def connect(address: str, *, security: Security | None = None) -> Client:
    """A client of a scheduler with at least one worker; the caller closes it.

    Args:
        address: such as ``tls://gpu-room:8786``.
        security: certificates; None = those of dask's configuration.

    Raises:
        ClusterError: the scheduler cannot be reached, or has no worker.
    """
    from distributed import Client, Security

    hush()
    security = security or Security()
    if address.startswith("tls://") and security.get_connection_args("client").get("ssl_context") is None:
        msg = (
            f"The scheduler at {address} cannot be reached: dask's configuration names no certificates for a client. "
            "Add them: 'cert' and 'key' under 'distributed: comm: tls: client', and the 'ca-file' beside."
        )
        raise ClusterError(msg)
    if security.require_encryption and not address.startswith("tls://"):
        msg = (
            f"{address}: dask's configuration asks for encryption. Use the scheduler's address that begins with tls://."
        )
        raise ClusterError(msg)
    try:
        client = Client(address, timeout=_TIMEOUT, set_as_default=False, security=security, name="dinoaugseg")
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        why = one_line(str(error)) or type(error).__name__
        msg = (
            f"The scheduler at {address} cannot be reached ({why}).\n"
            "Check the address, that it runs, and the certificates in dask's configuration ('distributed: comm: tls')."
        )
        raise ClusterError(msg) from error
    try:
        client.wait_for_workers(1, timeout=_TIMEOUT)
    except TimeoutError as error:
        client.close()
        msg = f"The scheduler at {address} has no worker. Start one, with: dask worker {address}"
        raise ClusterError(msg) from error
    return client


def workers_of(client: Client, needs: dict[str, int]) -> list[str]:
    """Addresses of the workers with the needed resources. Raises LostSchedulerError."""
    if client.status != "running":
        raise lost(client)
    with losing(client):
        known = client.scheduler_info(n_workers=-1)["workers"]
    wants_gpu = GPU in needs
    return [address for address, facts in known.items() if not wants_gpu or facts["resources"].get(GPU, 0) >= 1]


def needs_of(client: Client) -> dict[str, int]:
    """The resources that a task occupies on a worker: a GPU, if workers have one."""
    return {GPU: 1} if workers_of(client, {GPU: 1}) else {}


@contextmanager
def losing(client: Client) -> Iterator[None]:
    """Raise LostSchedulerError for the library's errors about a lost connection."""
    from concurrent.futures import CancelledError as Cancelled

    from distributed import CancelledError

    try:
        yield
    except (CancelledError, Cancelled, OSError) as error:
        if isinstance(error, TimeoutError):
            raise
        raise lost(client) from error


def lost(client: Client) -> LostSchedulerError:
    """The error for an unresponsive scheduler."""
    address = client.scheduler.address if client.scheduler is not None else "the scheduler"
    return LostSchedulerError(f"The connection to the scheduler ({address}) is lost.")


def require_version(wanted: str) -> None:
    """Runs on a worker: raise ClusterError unless it has this version of the program."""
    found = version("napari-dinoaugseg")
    if found != wanted:
        msg = f"it has napari-dinoaugseg {found}, not {wanted}. Install the same version there."
        raise ClusterError(msg)


def respect_limit() -> None:
    """Runs on a worker: features get a share of its memory limit, not of the machine's memory."""
    from distributed import get_worker

    limit_to(getattr(get_worker().memory_manager, "memory_limit", None))
