"""`tools/system_libraries.sh` with fakes in place of the programs that it asks."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "tools" / "system_libraries.sh"
BASH = shutil.which("bash")

pytestmark = pytest.mark.skipif(sys.platform == "win32" or BASH is None, reason="a bash script for Unix")


class Machine:
    """A folder of fake programs, which are all that the script can call."""

    def __init__(self, folder: Path) -> None:
        self.programs = folder / "bin"
        self.programs.mkdir()
        self.apt_calls = folder / "apt_calls"
        self.program("uname", "echo Linux")
        self.program("id", "echo 0")
        cat = shutil.which("cat")
        assert cat is not None
        (self.programs / "cat").symlink_to(cat)

    def program(self, name: str, body: str) -> None:
        file = self.programs / name
        file.write_text(f"#!{BASH}\n{body}\n")
        file.chmod(0o755)

    def debian(self, installed: str, apt_fails_at: str = "nothing") -> None:
        """Make it a Debian on which a package is installed if the bash pattern `installed` fits its name."""
        self.program(
            "dpkg-query",
            'for name in "$@"; do case $name in\n'
            "  -*) ;;\n"
            f'  {installed}) echo "installed $name" ;;\n'
            '  *) echo "not-installed $name" ;;\n'
            "esac; done\n"
            "exit 1",
        )
        self.program(
            "apt-get",
            f'echo "$DEBIAN_FRONTEND: $*" >> "{self.apt_calls}"\n[[ " $* " != *" {apt_fails_at} "* ]] || exit 100',
        )

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        assert BASH is not None
        return subprocess.run(
            [BASH, str(SCRIPT), *arguments],
            env={"PATH": str(self.programs), **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )

    def calls_of_apt(self) -> list[str]:
        return self.apt_calls.read_text().splitlines() if self.apt_calls.exists() else []


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_root_installs_only_what_is_missing(machine: Machine):
    machine.debian(installed="lib*")
    done = machine.run("python3.11-venv")
    assert done.returncode == 0, done.stderr
    update, install = machine.calls_of_apt()
    assert update.startswith("noninteractive: ")
    assert update.endswith(" update")
    assert install.endswith(" install --no-install-recommends xvfb xauth python3.11-venv")


def test_nothing_is_called_when_all_is_there(machine: Machine):
    machine.debian(installed="*")
    done = machine.run()
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert machine.calls_of_apt() == []


def test_names_with_the_suffix_t64_count(machine: Machine):
    machine.debian(installed="libglib2.0-0t64|xvfb")
    machine.run()
    words = machine.calls_of_apt()[-1].split()
    assert "libglib2.0-0" not in words
    assert "xvfb" not in words
    assert "libgl1" in words


def test_others_than_root_get_one_command(machine: Machine):
    machine.debian(installed="lib*")
    machine.program("id", "echo 1000")
    done = machine.run()
    assert done.returncode == 1
    assert "    sudo apt-get install -y xvfb xauth\n" in done.stderr
    assert machine.calls_of_apt() == []


def test_others_than_root_may_go_on_without(machine: Machine):
    machine.debian(installed="lib*")
    machine.program("id", "echo 1000")
    assert machine.run(SYSTEM_LIBRARIES="no").returncode == 0


@pytest.mark.parametrize("step", ["update", "install"])
def test_a_failing_apt_is_not_hidden(machine: Machine, step: str):
    machine.debian(installed="lib*", apt_fails_at=step)
    assert machine.run().returncode == 100
    assert machine.calls_of_apt()[-1].count(f" {step}") == 1


def test_another_linux_gets_a_hint_and_goes_on(machine: Machine):
    done = machine.run()
    assert done.returncode == 0
    assert "xvfb-run" in done.stderr


@pytest.mark.parametrize("system", ["Darwin", "MINGW64_NT-10.0"])
def test_other_systems_need_nothing(machine: Machine, system: str):
    machine.program("uname", f"echo {system}")
    done = machine.run()
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
