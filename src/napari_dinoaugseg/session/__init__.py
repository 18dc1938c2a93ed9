"""The label, train, predict, correct loop and its memory, without a screen."""
