"""Commands in processes that are copies of one which has loaded the libraries already: the fork of POSIX.

Most of what a short command takes is Python and the libraries starting: half a second for one that is refused, three
for one that trains. Each copy is a process of its own, as if started by a person; only what it imports is there before.

As a program (`python -m tests.cli.forked MODULE…`) this is the process that is copied: it imports the modules, reads
one request a line, and answers each with the exit code.
"""

from __future__ import annotations

import gc
import json
import os
import runpy
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cached_property
from importlib import import_module
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


class Forked:
    """Runs the command in copies of a process that has imported some modules, and starts with the first command.

    Args:
        modules: what it imports.
        environment: in which it starts; a run may change no variable of a library.
    """

    def __init__(self, modules: Sequence[str], environment: Mapping[str, str]) -> None:
        self.environment = dict(environment)
        self._modules = modules

    @cached_property
    def _process(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "tests.cli.forked", *self._modules],
            cwd=REPOSITORY,
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )

    def can_run_in(self, environment: Mapping[str, str]) -> bool:
        """Whether the environment differs from that of the copied process only in variables of the program itself."""
        return _foreign(environment) == _foreign(self.environment)

    def run(
        self, folder: Path, arguments: Sequence[str], environment: Mapping[str, str], timeout: float
    ) -> tuple[int, str, str]:
        """Run the command in a folder: its exit code, output and errors. TimeoutExpired as subprocess.run raises it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with tempfile.TemporaryDirectory() as place:
            files = [str(Path(place, name)) for name in ("output", "errors")]
            request = {"folder": str(folder), "arguments": arguments, "environment": dict(environment), "files": files}
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
            if not select.select([self._process.stdout], [], [], timeout)[0]:
                os.killpg(self._process.pid, signal.SIGKILL)
                raise subprocess.TimeoutExpired(list(arguments), timeout)
            answer = self._process.stdout.readline()
            assert answer, "the process that is copied has ended; what it said is above"
            output, errors = (Path(file).read_text("utf-8") for file in files)
        return int(answer), output, errors

    def close(self) -> None:
        """End the process, if it was started: it ends by itself when no more requests can come."""
        if "_process" in vars(self):
            self._process.communicate()


def _foreign(environment: Mapping[str, str]) -> dict[str, str]:
    # pytest names the test that runs, and the panel its Qt, which a command has no use for.
    return {
        name: value for name, value in environment.items() if not name.startswith(("DINOAUGSEG_", "PYTEST_", "QT_"))
    }


def _become(request: dict) -> None:
    """Make of this copy the process that was asked for."""
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    for number, file in enumerate((os.devnull, *request["files"])):
        stream = os.open(file, os.O_RDWR | os.O_CREAT)
        os.dup2(stream, number)
        os.close(stream)
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w", buffering=1)  # noqa: SIM115
    sys.path[0] = request["folder"]
    sys.argv[1:] = request["arguments"]
    runpy.run_module("napari_dinoaugseg", run_name="__main__", alter_sys=True)


def _serve(modules: Sequence[str]) -> None:
    for module in modules:
        import_module(module)
    for line in sys.stdin:
        copy = os.fork()
        if copy == 0:
            _become(json.loads(line))  # leaves by SystemExit, as any command does
            return
        code = os.waitstatus_to_exitcode(os.waitpid(copy, 0)[1])
        print(code, flush=True)  # noqa: T201
    gc.freeze()  # as the command does


if __name__ == "__main__":
    _serve(sys.argv[1:])
