"""`tools/make_venv.sh` in a copy of the folder, with a fake Python that notes what it is asked."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[2] / "tools"
BASH = shutil.which("bash")

pytestmark = pytest.mark.skipif(sys.platform == "win32" or BASH is None, reason="a bash script for Unix")

# Answers the question for its version, copies itself for `-m venv`, and fails where a test asks for it.
FAKE_PYTHON = """#!{bash}
echo "$*" >> "{log}"
case "$*" in
    "-c import sys; sys.exit"*) exit {too_old} ;;
    "-c import sys; print"*) echo 3.11 ;;
    "-c import ensurepip") exit {no_ensurepip} ;;
    "-m venv --clear "*) rm -rf "$4"; mkdir -p "$4/bin"; cp "$0" "$4/bin/python" ;;
    "-m pip install"*) exit ${{PIP_FAILS:-0}} ;;
    "--version") echo Python 3.9.2 ;;
esac
"""


class Project:
    """A folder with the scripts and one fake Python, which is all that they can call besides the system's tools."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "project"
        self.programs = folder / "bin"
        self.log = folder / "log"
        self.programs.mkdir()
        shutil.copytree(TOOLS, self.folder / "tools")
        self.libraries = folder / "libraries"
        self.program(self.folder / "tools" / "system_libraries.sh", f'#!{BASH}\necho "$*" >> "{self.libraries}"\n')
        for name in ("rm", "mkdir", "cp", "dirname"):
            found = shutil.which(name)
            assert found is not None
            (self.programs / name).symlink_to(found)
        self.program(self.programs / "env", f'#!{BASH}\nshift\nexec {BASH} "$@"\n')

    @staticmethod
    def program(file: Path, text: str) -> None:
        file.write_text(text)
        file.chmod(0o755)

    def python(self, name: str = "python3", *, too_old: bool = False, ensurepip: bool = True) -> None:
        text = FAKE_PYTHON.format(bash=BASH, log=self.log, too_old=int(too_old), no_ensurepip=int(not ensurepip))
        self.program(self.programs / name, text)

    def make_venv(
        self, python: str = "python3", folder: str = "/here", venv: str | None = None, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        assert BASH is not None
        self.log.unlink(missing_ok=True)
        return subprocess.run(
            [BASH, "tools/make_venv.sh", python, "pyqt5,dev", folder, *([venv] if venv else [])],
            cwd=self.folder,
            env={"PATH": str(self.programs), **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )

    @property
    def stamp(self) -> Path:
        return self.folder / ".venv" / ".complete"

    @property
    def made_anew(self) -> bool:
        return "-m venv --clear .venv" in self.log.read_text()


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_one_pip_call_installs_all(project: Project):
    project.python()
    done = project.make_venv()
    assert done.returncode == 0, done.stderr
    pip_calls = [line for line in project.log.read_text().splitlines() if line.startswith("-m pip")]
    assert pip_calls == ["-m pip install --editable .[pyqt5,dev]"]
    assert project.stamp.read_text() == "/here\n"


def test_an_interrupted_installation_is_started_over(project: Project):
    project.python()
    assert project.make_venv(PIP_FAILS="1").returncode == 1
    assert not project.stamp.exists()
    assert project.make_venv().returncode == 0
    assert project.made_anew
    assert project.stamp.exists()


def test_a_complete_environment_is_brought_up_to_date(project: Project):
    project.python()
    project.make_venv()
    assert project.make_venv().returncode == 0
    assert not project.made_anew
    assert project.make_venv(PIP_FAILS="1").returncode == 1
    assert not project.stamp.exists()


def test_an_environment_of_another_folder_is_made_anew(project: Project):
    project.python()
    project.make_venv()
    assert project.make_venv(folder="/elsewhere").returncode == 0
    assert project.made_anew
    assert project.stamp.read_text() == "/elsewhere\n"


def test_a_newer_python_is_found_where_python3_is_too_old(project: Project):
    project.python(too_old=True)
    project.python("python3.12")
    assert project.make_venv().returncode == 0
    assert project.stamp.exists()


@pytest.mark.parametrize("named", ["python3", "/opt/python3.9"])
def test_without_a_new_python_the_message_says_so(project: Project, named: str):
    project.python(too_old=True)
    if named != "python3":
        project.python("python3.12")  # not taken: another one was named
    done = project.make_venv(python=named)
    assert done.returncode == 1
    assert "Python 3.11 or newer is needed." in done.stderr
    assert "make setup PYTHON=" in done.stderr
    assert not (project.folder / ".venv").exists()


def test_debians_separate_venv_package_is_asked_for(project: Project):
    project.python(ensurepip=False)
    project.make_venv()
    assert project.libraries.read_text() == "python3.11-venv\n"


def test_a_second_environment_leaves_the_first_alone(project):
    project.python()
    assert project.make_venv().returncode == 0
    assert project.make_venv(venv=".venv-qt6").returncode == 0
    assert "-m venv --clear .venv-qt6" in project.log.read_text()
    for name in (".venv", ".venv-qt6"):
        assert (project.folder / name / ".complete").read_text().strip() == "/here"
