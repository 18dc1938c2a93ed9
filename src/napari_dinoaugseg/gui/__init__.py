"""The panel inside napari. Nothing below it knows that it is there."""
