"""`python -m tests.fuzz TARGET CASE` repeats one case; with FIRST and END it is the child of the harness."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.fuzz.harness import find, judge, serve, write

if len(sys.argv) == 4:
    serve(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
elif len(sys.argv) == 3:
    target = find(sys.argv[1])
    folder = Path(tempfile.mkdtemp(prefix="dinoaugseg-fuzz-again-"))
    write(target.case(int(sys.argv[2])), folder)
    sys.stdout.write(f"files: {folder}\n")
    sys.stdout.write("\n".join(judge(lambda: target.check(folder), own=target.own)) + "\n")
else:
    sys.exit(__doc__)
