"""A scheduler of dask.distributed with one worker, as processes that a test can kill."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass
class Running:
    address: str
    scheduler: subprocess.Popen
    worker: subprocess.Popen


@contextmanager
def running_scheduler(
    folder: Path, *worker_options: object, protocol: str = "tcp", **environment: str
) -> Iterator[Running]:
    """Both run in the folder and log there; the environment is theirs."""
    file = folder / "scheduler.json"
    here = ("--protocol", protocol, "--host", "127.0.0.1", "--no-dashboard", "--dashboard-address", "127.0.0.1:0")
    with ExitStack() as stack:
        command = ("scheduler", *here, "--port", 0, "--scheduler-file", file)
        scheduler = stack.enter_context(_dask_process(folder, *command, **environment))
        command = ("worker", "--scheduler-file", file, *here, "--memory-limit", "4GB", *worker_options)
        worker = stack.enter_context(_dask_process(folder, *command, **environment))
        until = time.monotonic() + 30
        while not file.exists():
            assert time.monotonic() < until, (folder / "dask.log").read_text()
            time.sleep(0.1)
        yield Running(json.loads(file.read_text())["address"], scheduler, worker)


@contextmanager
def _dask_process(folder: Path, *arguments: object, **environment: str) -> Iterator[subprocess.Popen]:
    command = [sys.executable, "-m", "dask", *map(str, arguments)]
    with (folder / "dask.log").open("ab") as log:
        process = subprocess.Popen(command, cwd=folder, env={**os.environ, **environment}, stdout=log, stderr=log)
    try:
        yield process
    finally:
        children = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
        for child in children:
            if child.is_running():
                child.kill()
