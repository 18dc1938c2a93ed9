"""How fast the program is, against the plain way of doing the same, in one run on one machine.

    python -m benchmarks.speed --out RESULTS [--parts step,rates,growth,clicks,quality,startup,floor] [--data FOLDER]

What is compared is written as ratios, since seconds are those of a machine. The plain way is `benchmarks.speed.plain`:
the paper's loop as one would write it first, with the encoder in every step and attention whose scores are held in
memory. Each figure comes from a process of its own. `--parts startup` opens a window, and needs a display.
"""
