"""The protocols of the paper (arXiv 2601.08078) on the public layouts of its six data sets.

    python -m benchmarks.paper DATASET --root FOLDER [--shots 7] [--draws 3] [--preset balanced] [--out FILE.json]

Each run prints the paper's figures beside ours, and at its head everything in which the two differ.
"""
