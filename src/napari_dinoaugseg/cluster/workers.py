"""A cohort on workers of dask.distributed: some on this machine, or those of a scheduler.

Paths and options are sent to the workers, sentences and seconds back: the workers read the cases and write the masks.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from threading import Lock
from typing import TYPE_CHECKING, Any

from napari_dinoaugseg.case.files import check_writable
from napari_dinoaugseg.cluster.connection import GPU, hush, losing, needs_of, require_version, respect_limit, workers_of
from napari_dinoaugseg.errors import (
    ClusterError,
    DinoAugSegError,
    Hint,
    LostSchedulerError,
    Message,
    SettingsError,
    one_line,
)
from napari_dinoaugseg.learning.memory import available_memory
from napari_dinoaugseg.native import importing_torch
from napari_dinoaugseg.session.batch import BatchPlan, Outcome, batch_of
from napari_dinoaugseg.session.cohort import CohortCase
from napari_dinoaugseg.session.compute import Notify

if TYPE_CHECKING:
    from distributed import Client, Future


_THREADS = 2  # a case is read and written by one thread, encoded by several
_MEMORY = 4 * 2**30  # bytes; a CT of 300 slices takes 3 GB
_CHECK_EVERY = 2.0  # seconds between checks for workers that joined or left
_ONE_CASE = Lock()  # for a worker with several threads that joins after the others were checked

Results = Generator[tuple[CohortCase, Outcome], None, None]


@dataclass(frozen=True)
class Share:
    """The share of a machine for each worker.

    Attributes:
        workers: number of workers.
        threads: for computation, per worker.
        memory: bytes per worker.
    """

    workers: int
    threads: int
    memory: int


def share_machine(cases: int, *, cores: int, memory: int, gpus: int, wanted: int | None = None) -> Share:
    """Share a machine among workers that predict one case at a time.

    With GPUs there is one worker for each; otherwise as many as fit, with two threads and 4 GiB each.

    Args:
        cases: number of cases to predict.
        cores: available to this program.
        memory: free bytes.
        gpus: number of usable GPUs; 0 = compute on the CPU.
        wanted: number of workers; None = as many as fit.

    Raises:
        SettingsError: more workers are wanted than there are GPUs or cores.
    """
    if gpus and wanted is not None and wanted > gpus:
        msg = f"There are not {wanted} GPUs for {wanted} workers."
        raise SettingsError(msg, Hint.FEWER_GPU_WORKERS, most=gpus)
    if wanted is not None and wanted > cores:
        msg = f"{wanted} workers do not fit on {cores} cores."
        raise SettingsError(msg, Hint.FEWER_WORKERS, most=cores)
    fitting = gpus or min(cores // _THREADS, memory // _MEMORY)
    workers = max(1, min(cases, wanted or fitting))
    return Share(workers, max(1, cores // workers), memory // workers)


@contextmanager
def local_workers(plan: BatchPlan, cases: int, wanted: int | None = None) -> Iterator[Client]:
    """Workers on this machine until the end of the block, with temporary TLS keys that only this program has.

    Args:
        plan: for its device.
        cases: number of cases to predict.
        wanted: number of workers; None = as many as fit.

    Raises:
        SettingsError: more are wanted than fit.
        DeviceError: the device is not available.
    """
    import dask.config
    import dask.system
    from distributed import Client, Nanny, Scheduler, Security, SpecCluster

    hush()
    gpus = _gpus(plan.compute.device)
    share = share_machine(cases, cores=dask.system.CPU_COUNT, memory=available_memory(), gpus=len(gpus), wanted=wanted)
    security = Security.temporary()
    common = {
        **{"host": "127.0.0.1", "protocol": "tls://", "security": security},
        **{"dashboard": False, "dashboard_address": "127.0.0.1:0"},
    }
    workers = {
        number: {"cls": Nanny, "options": {**common, **options}}
        for number, options in enumerate(worker_options(share, gpus))
    }
    scheduler = {"cls": Scheduler, "options": {**common, "port": 0}}
    with (
        dask.config.set(
            {
                **{f"distributed.{role}.http.routes": [] for role in ("scheduler", "worker")},
                # Otherwise a worker with much memory in use after a case is paused for ever.
                "distributed.worker.memory.pause": False,
            }
        ),
        SpecCluster(workers=workers, scheduler=scheduler, security=security, silence_logs=logging.CRITICAL) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        client.wait_for_workers(share.workers)
        yield client


def worker_options(share: Share, gpus: list[str]) -> list[dict[str, Any]]:
    """The options of each worker of this machine.

    Args:
        share: for each worker.
        gpus: names of GPUs for CUDA_VISIBLE_DEVICES; empty = compute on the CPU.
    """
    threads = {name: str(share.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    common = {
        "nthreads": 1,
        "memory_limit": share.memory,
        "silence_logs": logging.CRITICAL,
        # Ctrl+C reaches all processes of a terminal; this program ends its workers itself.
        "preload": ["import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"],
    }
    if not gpus:
        return [{**common, "env": threads}] * share.workers
    return [
        {**common, "env": {**threads, **({"CUDA_VISIBLE_DEVICES": gpu} if gpu else {})}, "resources": {GPU: 1}}
        for gpu in gpus[: share.workers]
    ]


def predict_on(
    client: Client, cases: Iterable[CohortCase], plan: BatchPlan, *, notify: Notify = lambda _: None
) -> Results:
    """Predict cases on the workers of a client, one case per worker at a time; yields each when it is done.

    A case whose worker dies is predicted again by another, and fails if workers die repeatedly. If workers declare the
    resource ``GPU``, only these are used. Workers may join and leave at any time.

    Args:
        client: see :func:`local_workers` and `connection.connect`.
        cases: to predict, under the same paths on all workers.
        plan: for all cases.
        notify: receives sentences for the person.

    Raises:
        ClusterError: a worker cannot be used, or the scheduler is lost; yielded cases are done.
        CheckpointError, WeightsError, DeviceError: the model cannot be used on a worker.
    """
    from distributed import wait

    waiting = deque(cases)
    if not waiting:
        return
    _require_ready(client, plan, waiting[0])
    needs = needs_of(client)
    running: dict[Future, CohortCase] = {}
    reported = False
    try:
        while waiting or running:
            workers = len(workers_of(client, needs))
            if not workers and not reported:
                notify(Message("No worker is left; waiting for one.", Hint.WAIT_FOR_WORKER))
            reported = not workers
            # No more than one each: when a worker dies, the scheduler suspects all tasks that it had.
            while waiting and len(running) < workers:
                case = waiting.popleft()
                running[client.submit(_predict, case, plan, pure=False, resources=needs)] = case
            if not running:
                time.sleep(_CHECK_EVERY)
                continue
            with contextlib.suppress(TimeoutError), losing(client), client.as_current():
                wait(list(running), timeout=_CHECK_EVERY, return_when="FIRST_COMPLETED")
            for future in [future for future in running if future.done()]:
                yield running.pop(future), _outcome(future, client)
    except LostSchedulerError as error:
        raise LostSchedulerError(str(error), Hint.CONTINUE_LATER) from error
    finally:
        if client.status == "running":
            client.cancel(list(running))


def _predict(case: CohortCase, plan: BatchPlan) -> Outcome:
    """Runs on a worker."""
    respect_limit()
    with _ONE_CASE:
        batch = batch_of(plan)
        batch.load()
        return batch.predict(case)


def _ready(plan: BatchPlan, case: CohortCase, wanted: str) -> None:
    """Runs on a worker: raise unless it can predict the case. Loads the model."""
    require_version(wanted)
    for path in (plan.model, case.path, *case.further, case.mask.parent):
        if not path.exists():
            msg = f"it does not see {path}. Use paths that are the same on all machines (shared storage)."
            raise ClusterError(msg)
    check_writable(case.mask.parent, case.mask.parent)
    respect_limit()
    batch_of(plan).load()


def _require_ready(client: Client, plan: BatchPlan, case: CohortCase) -> None:
    """Raise unless every worker can predict the cases."""
    wanted = version("napari-dinoaugseg")
    needs = needs_of(client)
    wide = [address for address, threads in client.nthreads().items() if threads > 1]
    if wide and not needs:
        msg = f"The worker at {wide[0]} would run several cases at a time."
        raise ClusterError(msg, Hint.ONE_CASE_A_WORKER)
    asked = {
        address: client.submit(
            _ready, plan, case, wanted, pure=False, workers=[address], allow_other_workers=True, resources=needs
        )
        for address in workers_of(client, needs)
    }
    for address, future in asked.items():
        with losing(client):
            error = future.exception()
        if isinstance(error, ClusterError):
            msg = f"The worker at {address} cannot be used: {error}"
            raise ClusterError(msg) from error
        if isinstance(error, DinoAugSegError):
            raise error
        if error is not None:
            why = one_line(f"{type(error).__name__}: {error}")
            msg = f"The worker at {address} cannot be used ({why}). Install the same napari-dinoaugseg there."
            raise ClusterError(msg) from error


def _outcome(future: Future, client: Client) -> Outcome:
    """The worker's result, or the reason of the failure."""
    from distributed import KilledWorker

    with losing(client):
        error = future.exception()
    if error is None:
        outcome: Outcome = future.result()
        return outcome
    if isinstance(error, KilledWorker):
        times = error.allowed_failures + 1
        reason = f"{times} workers ended while they worked on it, perhaps for lack of memory; see their logs"
        return Outcome(reason, 0.0)
    reason = error.message if isinstance(error, DinoAugSegError) else f"{type(error).__name__}: {error}"
    return Outcome(one_line(reason), 0.0)


def _gpus(device: str) -> list[str]:
    """The GPUs for workers by their names in CUDA_VISIBLE_DEVICES; "" = one that needs no name."""
    with importing_torch():
        import torch

        from napari_dinoaugseg.learning.fallback import choose_device

    chosen = choose_device(device)
    if chosen.type == "cpu":
        return []
    if chosen.type != "cuda" or chosen.index is not None:
        return [""]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",") if visible else [str(number) for number in range(torch.cuda.device_count())]
    return names[: torch.cuda.device_count()]
