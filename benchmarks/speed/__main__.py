"""See the package."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from benchmarks.harness import machine, main, names
from benchmarks.rows import Row
from benchmarks.speed import __doc__ as about
from benchmarks.speed import clicks, floor, quality, rates, startup, step
from benchmarks.tables import hardware, software, table
from napari_dinoaugseg.learning.fallback import choose_device

NAME = "speed"  # of the files; that of a graphics card is added
TITLES = {
    "step": "A training step and the most memory, plain loop against ours (paper's decoder)",
    "rates": "Slices a second; the plain loop encodes each time that it predicts",
    "growth": "As the volume grows",
    "clicks": "From the press on Train to the masks, and again after a correction",
    "quality": "Seconds to a Dice: the paper's recipe in the plain loop, and our presets",
    "startup": "Start",
    "floor": "The floor, and the distance to it",
}
ON_CARD = ("step", "rates", "growth", "clicks", "quality")  # parts that a graphics card can compute


def text_of(rows: Sequence[Row]) -> str:
    """Markdown of measured rows: a table for each part."""
    parts = ["# Speed", f"{hardware(rows[-1])}. {software(rows)}."]
    for part, title in TITLES.items():
        own = [row["figures"] for row in rows if row["part"] == part]
        if own:
            columns = list(dict.fromkeys(name for row in own for name in row))
            lines = [[_shown(row.get(name)) for name in columns] for row in own]
            parts += [f"## {title}", table([name.replace("_", " ") for name in columns], lines)]
    return "\n\n".join(parts) + "\n"


def command(arguments: Sequence[str] | None = None) -> None:
    """Run with the arguments of the command line."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", type=names(TITLES), default=list(TITLES), help=f"among {','.join(TITLES)}")
    parser.add_argument("--data", type=Path, default=None, help="folder of the public sets, for quality on two of them")
    parser.add_argument("--slices", type=int, default=300, help="of the made-up volume of rates and clicks")
    parser.add_argument("--steps", type=int, default=1000, help="of the paper's recipe in quality")
    parser.add_argument("--encoder", default="dinov3-convnext-tiny", help="of the part step; its weights are random")
    parser.add_argument("--device", default="cpu", help=f"of the parts {','.join(ON_CARD)}")
    parser.add_argument("--out", type=Path, required=True, help=f"folder for {NAME}.jsonl and {NAME}.md")
    parsed = parser.parse_args(arguments)
    device = str(choose_device(parsed.device))
    if device != "cpu" and not set(parsed.parts) <= set(ON_CARD):
        parser.error(f"a graphics card computes in the parts {','.join(ON_CARD)} only; name them with --parts")
    measures: dict[str, Callable[[], list[Row]]] = {
        "step": partial(step.measure, parsed.encoder, device=device),
        "rates": partial(rates.measure_rates, parsed.slices, device),
        "growth": partial(rates.measure_growth, device),
        "clicks": partial(clicks.measure, parsed.slices, device),
        "quality": partial(quality.measure, parsed.data, parsed.steps, device),
        "startup": startup.measure,
        "floor": floor.measure,
    }
    parsed.out.mkdir(parents=True, exist_ok=True)
    name = NAME if device == "cpu" else f"{NAME}-{device.replace(':', '-')}"
    file = parsed.out / f"{name}.jsonl"
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []
    for part in parsed.parts:
        rows = [row for row in rows if row["part"] != part]
        for figures in measures[part]():
            print(part, figures, flush=True)
            rows.append({"part": part, "device": device, "figures": figures, **machine()})
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    page = parsed.out / f"{name}.md"
    page.write_text(text_of(rows), encoding="utf-8")
    print(page)


def _shown(value: object) -> str:
    if isinstance(value, list):
        return " / ".join(map(str, value))
    return "–" if value is None else str(value)


if __name__ == "__main__":
    sys.exit(main(command))
