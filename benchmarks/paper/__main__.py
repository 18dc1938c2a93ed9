"""The command; see the package."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.paper.cases import PictureCases, VolumeCases
from benchmarks.paper.draws import authors_draw, random_draws
from benchmarks.paper.protocols import PROTOCOLS
from benchmarks.paper.runs import Machine, Result, protocol_settings, run_draw
from benchmarks.paper.tables import Report, as_json, as_text, names_of
from napari_dinoaugseg.case.files import atomic_file, check_parent
from napari_dinoaugseg.cli.output import tell
from napari_dinoaugseg.errors import DinoAugSegError, SettingsError
from napari_dinoaugseg.learning.settings import PRESETS


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one experiment; the exit code is 0, or 1 for an error that a person can mend."""
    options = _parser().parse_args(arguments)
    try:
        report = run(options)
        text = as_text(report)
        print(text)
        if options.out is not None:
            _write(options.out, json.dumps(as_json(report), indent=1) + "\n")
            _write(_table_beside(options.out), text + "\n")
    except DinoAugSegError as error:
        tell(f"Error: {error}")
        return 1
    return 0


def run(options: argparse.Namespace) -> Report:
    """Find the data, refuse what cannot be done, then run every draw."""
    protocol = PROTOCOLS[options.dataset]
    shots = min(protocol.figures) if options.shots is None else options.shots
    settings = protocol_settings(options.preset, shots, encoder=options.encoder, **_changes(options.set))
    if options.out is not None:
        check_parent(options.out)
    data = protocol.find(options.root)
    draws = random_draws(protocol, data, shots, options.draws)
    theirs, why_not = authors_draw(protocol, data, shots)
    for notice in data.notices:
        tell(f"Note: {notice}")
    machine = Machine(options.device, options.weights, options.cache)
    every = [*draws, *([theirs] if theirs else [])]
    cases = VolumeCases(data) if protocol.unit == "volume" else PictureCases(data, options.root)
    cases.check(every)
    used = settings.with_changes(window=data.window) if settings.window == "auto" else settings
    results = []
    for draw in every:
        tell(f"draw {draw.name}: {names_of(draw)}")
        results.append(run_draw(protocol, cases.of(draw), draw, used, machine))
    by_authors: Result | None = results.pop() if theirs else None
    return Report(options.dataset, protocol, data, settings, shots, results, by_authors, why_not)


def _changes(pairs: Sequence[str]) -> dict[str, Any]:
    """Settings given as NAME=VALUE. Raises SettingsError."""
    changes = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            msg = f"--set takes NAME=VALUE, such as steps=500, not '{pair}'."
            raise SettingsError(msg)
        changes[name] = value
    return changes


def _table_beside(path: Path) -> Path:
    return path.with_suffix(".txt")


def _write(path: Path, text: str) -> None:
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _at_least_one(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        msg = f"give a number from 1 on, not '{text}'"
        raise argparse.ArgumentTypeError(msg)
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.paper", description="The paper's protocols.")
    parser.add_argument("dataset", choices=list(PROTOCOLS), help="which data set of the paper")
    parser.add_argument("--root", type=Path, required=True, help="folder with its public files")
    parser.add_argument("--shots", type=_at_least_one, help="labelled volumes or pictures; default: the paper's fewest")
    parser.add_argument("--draws", type=_at_least_one, default=3, help="random draws, beside the authors' own")
    parser.add_argument("--encoder", default="auto", help="as of dinoaugseg encoders")
    parser.add_argument("--weights", type=Path, help="a file with encoder weights")
    parser.add_argument("--preset", choices=list(PRESETS), default="balanced")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, mps")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="change one setting")
    parser.add_argument("--no-cache", dest="cache", action="store_false", help="keep no features on disk")
    parser.add_argument("--out", type=Path, help="write JSON there, and the table beside it as .txt")
    return parser


if __name__ == "__main__":
    sys.exit(main())
