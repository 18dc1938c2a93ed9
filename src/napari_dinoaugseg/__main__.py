"""`python -m napari_dinoaugseg` is the `dinoaugseg` command."""

from napari_dinoaugseg.cli import main

main()
