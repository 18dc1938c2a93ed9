"""Uv installs from where pip would; what uv cannot follow is left to pip."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tools import install
from tools.install import NoEqualError, variables_for_uv


def test_the_configuration_of_pip_becomes_that_of_uv():
    listed = r"""
global.index-url='https://one.example/simple'
global.extra-index-url='https://two.example/simple\nhttps://three.example/simple'
install.find-links='/wheels /more'
download.platform='any'
:env:.constraint='/limits.txt'
:env:.trusted-host='one.example two.example'
:env:.disable-pip-version-check='1'
""".strip()

    assert variables_for_uv(listed.splitlines()) == {
        "UV_DEFAULT_INDEX": "https://one.example/simple",
        "UV_INDEX": "https://two.example/simple https://three.example/simple",
        "UV_FIND_LINKS": "/wheels,/more",
        "UV_CONSTRAINT": "/limits.txt",
        "UV_INSECURE_HOST": "one.example two.example",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
    }


def test_the_environment_comes_before_the_files_as_in_pip():
    lines = [":env:.index-url='https://mine.example'", "global.index-url='https://ours.example'"]
    assert variables_for_uv(lines)["UV_DEFAULT_INDEX"] == "https://mine.example"


@pytest.mark.parametrize("line", ["global.only-binary=':all:'", ":env:.no-index='1'", "WARNING of something"])
def test_what_uv_has_no_equal_for_is_left_to_pip(line: str):
    with pytest.raises(NoEqualError):
        variables_for_uv([line])


@pytest.mark.skipif(os.name == "nt", reason="the stand-in for uv is a shell script")
@pytest.mark.parametrize("fails", ["nothing", "--editable", "--no-deps"])
def test_pip_installs_where_uv_fails_and_a_failure_names_the_log(
    fails: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    uv = tmp_path / "uv"
    uv.write_text("#!/bin/sh\necho from https://index.example\nexit 1\n")
    python = tmp_path / "python"
    python.write_text(
        '#!/bin/sh\ncase "$*" in *config*) exit 0;; esac\n'
        f'echo "$@" >>{tmp_path}/pip\ncase "$*" in *{fails}*) exit 1;; esac\n'
    )
    for program in (uv, python):
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["install.py", "demo,dev"])

    assert install.main() == (1 if fails == "--editable" else 0)

    package = "-m pip install --quiet --progress-bar off --editable .[demo,dev]\n"
    beside = "-m pip install --quiet --progress-bar off --no-deps -r tools/without_dependencies.txt\n"
    assert (tmp_path / "pip").read_text() == package + (beside if fails != "--editable" else "")
    shown = "".join(capfd.readouterr())
    assert "index.example" not in shown
    assert "index.example" in (tmp_path / "install.log").read_text()
    assert ("install.log" in shown) is (fails != "nothing")
    assert ("Some tests will be skipped" in shown) is (fails == "--no-deps")


@pytest.mark.skipif(os.name == "nt", reason="the stand-in for Python is a shell script")
def test_only_the_extra_for_developers_brings_packages_without_their_dependencies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\ncase "$*" in *config*) exit 1;; esac\necho "$@" >>{tmp_path}/pip\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["install.py", "demo,offline"])
    assert install.main() == 0
    assert "--no-deps" not in (tmp_path / "pip").read_text()
