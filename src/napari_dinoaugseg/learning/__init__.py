"""Learning from a few slices on cached features."""
