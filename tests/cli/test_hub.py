"""What the command says when the hub refuses: each refusal by its name, and how to go on. The hub is one of our own."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli import conftest
from tests.cli.conftest import LEARNING, Outcome, run_command
from tests.cli.forked import Forked
from tests.hub_server import COMMIT, Hub, serving

TINY = "dinov3-convnext-tiny"
REPOSITORY = "timm/convnext_tiny.dinov3_lvd1689m"
MODULES = (
    *LEARNING,
    "napari_dinoaugseg.cli.encoders",
    "napari_dinoaugseg.cli.segment",
    "huggingface_hub.file_download",
)


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    with serving() as made:
        yield made


@pytest.fixture(scope="module")
def environment(hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The variables of a person who reaches this hub only; commands in it start quickly."""
    home = tmp_path_factory.mktemp("hub_home")
    variables = {"HF_ENDPOINT": hub.address, "HF_HUB_OFFLINE": "0", "HF_HOME": str(home), "NO_PROXY": "127.0.0.1"}
    if sys.platform != "linux":
        yield variables
        return
    forked = Forked(MODULES, {**os.environ, **variables})
    conftest._forked.append(forked)
    yield variables
    conftest._forked.remove(forked)
    forked.close()


@pytest.fixture
def check(environment: dict[str, str], tmp_path: Path) -> Callable[..., Outcome]:
    """Run `dinoaugseg encoders --check dinov3-convnext-tiny`."""

    def run(**more: str) -> Outcome:
        return run_command(tmp_path, "encoders", "--check", TINY, **environment, **more)

    return run


def refused(outcome: Outcome) -> str:
    """The two lines of a refusal, and nothing else from anybody."""
    assert outcome.code == 1, outcome
    assert outcome.output == ""
    lines = outcome.errors.splitlines()
    assert len(lines) == 2, outcome.errors
    assert lines[0].startswith(f"Error: The weights of {TINY} ")
    assert f"--weights (model.safetensors of https://huggingface.co/{REPOSITORY}, " in lines[1]
    return outcome.errors


REFUSALS = {
    401: (r"asks for a log-in for timm/\S+ \(401\)\.\nLog in with `hf auth login` or set HF_TOKEN", {}),
    403: (
        r"gives no access to timm/\S+ \(403\)\.\nAsk for access at http://127.0.0.1:\d+/timm/\S+, log in",
        {"X_Error_Code": "GatedRepo"},
    ),
    404: (r"has no timm/\S+/model.safetensors \(404\)\.\nCheck HF_ENDPOINT", {"X_Error_Code": "RepoNotFound"}),
    429: (r"had too many requests from here \(429\)\.\nTry again in some minutes, or log in", {"Retry_After": "60"}),
    503: (r"is busy or out of order \(503\)\.\nTry again in some minutes", {}),
    407: (r"the proxy asks for a log-in \(407\)", {}),
    451: (r"the hub answered 'Unavailable For Legal Reasons' \(451\)", {}),
}


@pytest.mark.parametrize("status", REFUSALS)
def test_each_refusal_of_the_hub_has_a_sentence_of_its_own(
    status: int, hub: Hub, check: Callable[..., Outcome]
) -> None:
    says, headers = REFUSALS[status]
    hub.answers(status, X_HF_Warning="topic; a line of the library", **headers)
    said = refused(check())
    assert re.search(says, said), said
    others = [other for number, (other, _) in REFUSALS.items() if number != status]
    assert not any(re.search(other, said) for other in others)
    assert hub.asked
    assert all(REPOSITORY in question for question in hub.asked)


def test_a_token_that_the_hub_does_not_take_is_named_and_never_shown(
    hub: Hub, environment: dict[str, str], check: Callable[..., Outcome]
) -> None:
    token = Path(environment["HF_HOME"], "token")
    token.write_text("hf_secret")
    hub.answers(401, X_Error_Message="Invalid credentials in Authorization header")
    try:
        said = refused(check())
    finally:
        token.unlink()
    assert "does not accept the access token of this account" in said
    assert "HF_TOKEN" in said
    assert "secret" not in said


def test_a_page_that_stands_before_the_network_is_not_taken_for_the_hub(
    hub: Hub, check: Callable[..., Outcome]
) -> None:
    hub.answers(200, Content_Type="text/html")
    assert "is not a model hub but, for example, the log-in page" in refused(check())


def test_a_hub_that_is_silent_is_given_up_when_the_person_says(hub: Hub, check: Callable[..., Outcome]) -> None:
    hub.answers(0)
    said = refused(check(DINOAUGSEG_HUB_TIMEOUT="0.3"))
    assert "did not answer within 0.3 seconds" in said
    assert "DINOAUGSEG_HUB_TIMEOUT" in said


@pytest.mark.parametrize("text", ["soon", "0", "-3", "nan", "inf"])
def test_a_waiting_time_that_is_none_is_refused(text: str, hub: Hub, check: Callable[..., Outcome]) -> None:
    hub.answers(503)
    outcome = check(DINOAUGSEG_HUB_TIMEOUT=text)
    assert outcome.code == 1
    assert outcome.errors.startswith(f"Error: The environment variable DINOAUGSEG_HUB_TIMEOUT is '{text}'. Set it to")


def test_a_broken_connection_is_named(hub: Hub, check: Callable[..., Outcome]) -> None:
    hub.answers(-1)
    assert "127.0.0.1 closed the connection" in refused(check())


def test_segment_says_the_same(hub: Hub, environment: dict[str, str], case: Path) -> None:
    hub.answers(403)
    arguments = ("segment", "image.nii.gz", "--labels", "labels.nii.gz", "--out", "mask.nii.gz", "--encoder", TINY)
    said = refused(run_command(case, *arguments, **environment))
    assert "gives no access" in said
    assert not (case / "mask.nii.gz").exists()


def test_what_is_downloaded_is_checked_and_said_without_lines_of_the_library(
    hub: Hub, check: Callable[..., Outcome]
) -> None:
    """This hub's file is no weights: the licence stands before it, and its name in the refusal."""
    hub.answers(200, X_Repo_Commit=COMMIT, ETag='"abc"', X_HF_Warning="a line of the library")
    hub.content = b"<html>not weights</html>"
    outcome = check()
    assert outcome.code == 1
    licence, refusal = outcome.errors.splitlines()
    assert licence.startswith(
        f"Downloading the weights of {TINY} (111 MB) from {REPOSITORY}. They are under the DINOv3"
    )
    assert "it is a web page" in refusal
    assert f"GET /{REPOSITORY}/resolve/main/model.safetensors" in hub.asked


def test_weights_without_a_name_are_checked_as_what_they_are(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    outcome = run_command(tmp_path, "encoders", "--weights", tmp_path, **environment)
    assert outcome.code == 1
    assert "it is a Git LFS pointer" in outcome.errors
    listed = run_command(tmp_path, "encoders", "--json", **environment)
    assert len(json.loads(listed.output)["encoders"]) == 5
