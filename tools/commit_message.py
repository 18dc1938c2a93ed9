"""Check a commit message: `python tools/commit_message.py FILE`, as the hook of .pre-commit-config.yaml does.

The subject is an imperative of at most 72 characters that begins with a capital letter and does not end in a period,
and the line after it is blank. What git writes itself (a merge, a revert, a fixup) passes.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

LONGEST = 72  # characters
_BY_GIT = ("Merge ", 'Revert "', "fixup! ", "squash! ", "amend! ")
_SCISSORS = "# ------------------------ >8 ------------------------"
# Verbs whose plain form looks like a past tense, a participle or a third person.
_PLAIN = {"embed", "exceed", "feed", "need", "proceed", "seed", "shed", "speed", "succeed"}
_PLAIN |= {"bring", "ping", "ring", "string", "swing"}
_PLAIN |= {"alias", "bias", "canvas", "focus"}


def problems(message: str) -> list[str]:
    """Return what is wrong with a message, one sentence each; an empty list when nothing is."""
    lines = message.partition(_SCISSORS)[0].splitlines()
    lines = [line.rstrip() for line in lines if not line.startswith("#")]
    while lines and not lines[0]:
        lines.pop(0)
    if not lines:
        return ["The message is empty."]
    subject = lines[0]
    if subject.startswith(_BY_GIT):
        return []
    found = []
    if len(subject) > LONGEST:
        found.append(f"The subject has {len(subject)} characters; {LONGEST} are the most.")
    if subject.endswith("."):
        found.append("The subject ends in a period.")
    first = subject.split()[0].rstrip(",;")
    if first.endswith(":"):
        found.append(f"The subject begins with the prefix {first!r}; begin with the verb.")
    elif not first[0].isupper():
        found.append(f"The subject begins with {first!r}, not with a capital letter.")
    if re.search(r"(ed|ing|[^su]s)$", first.lower()) and first.lower() not in _PLAIN:
        found.append(f"{first!r} is not an imperative: write what the commit does as an order (Add, Fix, Refuse).")
    if len(lines) > 1 and lines[1]:
        found.append("The second line is not blank.")
    return found


def main() -> int:
    """Check the file named on the command line; returns the exit code."""
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    found = problems(Path(sys.argv[1]).read_text(encoding="utf-8"))
    sys.stderr.write("".join(f"{problem}\n" for problem in found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
