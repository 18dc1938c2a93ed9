"""Install the package, editable, with its extras into the environment whose Python runs this.

    .venv/bin/python tools/install.py EXTRAS

uv installs where it can be had, since it takes a fraction of pip's time; pip installs otherwise, and whenever uv fails
or pip's configuration holds a setting without an equal in uv. With the extra `dev` a second step installs
tools/without_dependencies.txt; if it fails, the tests that need these packages are skipped. The screen shows one line a
step; the output stands in install.log in the folder of the environment. Addresses of indexes may hold passwords: they
reach uv by its environment, and never the screen.
"""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO

# uv's variable for each setting of pip, and what stands between several values of it.
_EQUALS = {
    "index-url": ("UV_DEFAULT_INDEX", " "),
    "extra-index-url": ("UV_INDEX", " "),
    "find-links": ("UV_FIND_LINKS", ","),
    "constraint": ("UV_CONSTRAINT", " "),
    "trusted-host": ("UV_INSECURE_HOST", " "),
    "timeout": ("UV_HTTP_TIMEOUT", " "),
    "default-timeout": ("UV_HTTP_TIMEOUT", " "),
    "cert": ("SSL_CERT_FILE", " "),
}
# Settings that change nothing about which packages are installed.
_HARMLESS = {
    *(
        "break-system-packages",
        "cache-dir",
        "config-file",
        "disable-pip-version-check",
        "no-cache-dir",
        "no-color",
        "no-input",
    ),
    *("no-python-version-warning", "no-warn-script-location", "prefer-binary", "progress-bar", "quiet", "retries"),
    *("require-virtualenv", "root-user-action", "verbose"),
}
WITHOUT_DEPENDENCIES = "tools/without_dependencies.txt"
_SECTIONS = ("global", "install", ":env:")  # a later one overrides an earlier one, as in pip


class NoEqualError(Exception):
    """pip is configured in a way that uv cannot follow."""


def variables_for_uv(configuration: Iterable[str]) -> dict[str, str]:
    """Translate what `pip config list` prints into uv's environment variables.

    Raises:
        NoEqualError: a setting that uv has no equal for.
    """
    found: dict[str, dict[str, list[str]]] = {section: {} for section in _SECTIONS}
    for line in configuration:
        name, equals, value = line.strip().partition("=")
        section, _, key = name.rpartition(".")
        if not equals or (section not in found and key not in _HARMLESS):
            if section and section not in found:
                continue  # of another command, such as `pip download`
            raise NoEqualError(key or "a line that is no setting")
        if key in _HARMLESS:
            continue
        if key not in _EQUALS:
            raise NoEqualError(key)
        found[section][key] = str(ast.literal_eval(value)).split()
    made = {"UV_INDEX_STRATEGY": "unsafe-best-match"}  # pip takes the best version of all indexes
    for section in _SECTIONS:
        for key, values in found[section].items():
            variable, between = _EQUALS[key]
            made[variable] = between.join(values)
    return made


def run(text: str, command: list[str], log: IO[str], variables: Mapping[str, str] | None = None) -> bool:
    """Run a command with its output in the log, and count the seconds on the screen; returns whether it succeeded."""
    start = time.monotonic()
    environment = {**(variables or {}), **os.environ}  # what the person sets for uv comes first
    process = subprocess.Popen(  # noqa: S603 - a fixed command
        command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=environment
    )
    print(f"{text} ...", end="", flush=True)
    while process.poll() is None:
        time.sleep(0.2)
        if sys.stdout.isatty():
            print(f"\r{text} ... {time.monotonic() - start:.0f} s", end="", flush=True)
    result = "done" if process.returncode == 0 else "failed"
    shown = f"\r{text} ..." if sys.stdout.isatty() else ""
    print(f"{shown} {result} in {time.monotonic() - start:.0f} s", flush=True)
    return process.returncode == 0


def find_uv(log: IO[str]) -> list[str] | None:
    """Return the command of uv, installed into this environment where there is none; None where it cannot be had."""
    if shutil.which("uv"):
        return ["uv"]
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--progress-bar", "off", "uv"]
    done = subprocess.run(  # noqa: S603 - a fixed command
        command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, check=False
    )
    return [sys.executable, "-m", "uv"] if done.returncode == 0 else None


def install_with_uv(arguments: list[str], log: IO[str]) -> bool:
    """Install with uv; returns whether that succeeded. Whatever goes wrong is a line in the log."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False
    )
    try:
        if listed.returncode != 0:
            msg = "`pip config list` failed"
            raise NoEqualError(msg)
        variables = variables_for_uv(listed.stdout.splitlines())
        uv = find_uv(log)
        if uv is None:
            return False
        command = [*uv, "pip", "install", "--python", sys.executable, *arguments]
        return run("Installing with uv", command, log, variables)
    except (NoEqualError, OSError, ValueError, SyntaxError) as error:
        log.write(f"pip installs, not uv: {error}\n")
        return False


def install(arguments: list[str], log: IO[str]) -> bool:
    """Install with uv, else with pip; returns whether that succeeded."""
    if install_with_uv(arguments, log):
        return True
    # One call, so that torch, torchvision and timm are chosen to fit each other.
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--progress-bar", "off", *arguments]
    return run("Installing with pip, which takes some minutes", command, log)


def main() -> int:
    """Install; returns the exit code."""
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    path = Path(sys.prefix) / "install.log"
    with path.open("w", encoding="utf-8") as log:
        if not install(["--editable", f".[{sys.argv[1]}]"], log):
            sys.stderr.write(f"The installation failed. What pip said is in {path}\n")
            return 1
        if "dev" in sys.argv[1].split(",") and not install(["--no-deps", "-r", WITHOUT_DEPENDENCIES], log):
            sys.stderr.write(f"Some tests will be skipped: {WITHOUT_DEPENDENCIES} could not be installed, see {path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
