"""Damage that fits any file. What knows a format lies beside the target of that format.

Every mutator takes bytes and a generator and returns bytes; none fails on an empty file.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Mutator = Callable[[bytes, np.random.Generator], bytes]

# Sizes and offsets at which readers stumble: nothing, one off, the ends of each width, and what would fill a memory.
INTEGERS = (0, 1, -1, 2, 3, 7, 127, 128, 255, 256, 32767, -32768, 65535, 65536, 2**24, 2**30, 2**31 - 1, -(2**31))
INTEGERS += (2**32 - 1, 2**33, 2**40, 2**62, 2**63 - 1, -(2**63))
FLOATS = (0.0, -0.0, 1.0, -1.0, 0.5, np.nan, np.inf, -np.inf, 1e-45, 1e-30, 1e30, 3.4e38, 1e300, -1e300)


def pick(rng: np.random.Generator, choices: Sequence[Any]) -> Any:
    return choices[int(rng.integers(len(choices)))]


def integer(rng: np.random.Generator, size: int, order: str | None = None) -> bytes:
    """Return an awkward integer of 1, 2, 4 or 8 bytes; too large ones are wrapped."""
    order = order or pick(rng, ("little", "big"))
    value = pick(rng, INTEGERS) + (int(rng.integers(-2, 3)) if rng.random() < 0.2 else 0)
    return (value % 2 ** (8 * size)).to_bytes(size, order)  # type: ignore[arg-type]


def real(rng: np.random.Generator, size: int, order: str | None = None) -> bytes:
    """Return an awkward floating-point number of 4 or 8 bytes."""
    order = order or pick(rng, ("<", ">"))
    with np.errstate(over="ignore"):
        return np.array(pick(rng, FLOATS), dtype=f"{order}f{size}").tobytes()


def replaced(data: bytes, start: int, new: bytes) -> bytes:
    """Return the data with bytes overwritten; it never grows."""
    end = min(start + len(new), len(data))
    return data[:start] + new[: max(end - start, 0)] + data[end:] if start < len(data) else data


def _span(data: bytes, rng: np.random.Generator) -> tuple[int, int]:
    start = int(rng.integers(len(data) + 1))
    length = int(min(2.0 ** rng.uniform(0, 12), len(data) - start))
    return start, start + length


def flip_bits(data: bytes, rng: np.random.Generator) -> bytes:
    changed = bytearray(data)
    for _ in range(1 + int(rng.integers(8)) if data else 0):
        changed[int(rng.integers(len(changed)))] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def randomise(data: bytes, rng: np.random.Generator) -> bytes:
    start, end = _span(data, rng)
    return data[:start] + rng.bytes(end - start) + data[end:]


def cut(data: bytes, rng: np.random.Generator) -> bytes:
    return data[: int(rng.integers(len(data) + 1))]


def remove(data: bytes, rng: np.random.Generator) -> bytes:
    start, end = _span(data, rng)
    return data[:start] + data[end:]


def insert(data: bytes, rng: np.random.Generator) -> bytes:
    start, end = _span(data, rng)
    return data[:start] + pick(rng, (rng.bytes(end - start), bytes(end - start), data[start:end])) + data[start:]


def swap(data: bytes, rng: np.random.Generator) -> bytes:
    (a, b), (c, d) = sorted((_span(data, rng), _span(data, rng)))
    if b > c:
        return data
    return data[:a] + data[c:d] + data[b:c] + data[a:b] + data[d:]


def write_number(data: bytes, rng: np.random.Generator) -> bytes:
    """Write an awkward number somewhere in the first bytes, where headers are."""
    size = pick(rng, (1, 2, 4, 8))
    place = int(rng.integers(max(1, min(len(data), pick(rng, (64, 512, len(data) or 1))))))
    new = real(rng, size) if size >= 4 and rng.random() < 0.3 else integer(rng, size)
    return replaced(data, place, new)


ANYWHERE: tuple[Mutator, ...] = (flip_bits, randomise, cut, remove, insert, swap, write_number)


def damaged(data: bytes, rng: np.random.Generator, own: Sequence[Mutator] = (), share: float = 0.7) -> bytes:
    """Damage a file once to thrice: by mutators that know its format as often as `share` says, else by any."""
    for _ in range(1 + int(rng.integers(3))):
        mutator = pick(rng, own) if own and rng.random() < share else pick(rng, ANYWHERE)
        data = mutator(data, rng)
    return data


_ODD_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**63, 10**30, 1e308, -0.5),
    *("", "x", "\x1b[31m", "NaN", "../../x", "a" * 5000, [], {}, [[]], [None], {"": None}, [0, 2**62], [-1]),
)


def confused(value: Any, rng: np.random.Generator) -> Any:
    """Return a JSON value with one part, at any depth, taken away, doubled or of another type."""
    if isinstance(value, dict) and value and rng.random() < 0.85:
        key = pick(rng, list(value))
        if rng.random() < 0.15:
            return {name: part for name, part in value.items() if name != key}
        if rng.random() < 0.1:
            return {**value, pick(rng, ("x", "", "\x1b", key + key)): value[key]}
        return {**value, key: confused(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.85:
        place = int(rng.integers(len(value)))
        if rng.random() < 0.3:
            return value[:place] + pick(rng, ([], [value[place]] * 2)) + value[place + 1 :]
        return [*value[:place], confused(value[place], rng), *value[place + 1 :]]
    if isinstance(value, int | float) and rng.random() < 0.5:
        return pick(rng, (value + 1, value - 1, -value, value * 2, value * 1000, float(value), str(value)))
    return pick(rng, _ODD_VALUES)


def confuse_json(data: bytes, rng: np.random.Generator) -> bytes:
    """Damage a JSON file so that it stays JSON; one that is none is damaged anywhere."""
    try:
        value = json.loads(data)
    except ValueError:
        return flip_bits(data, rng)
    return json.dumps(confused(value, rng)).encode()


def at(fields: Sequence[tuple[int, str]], order: str) -> Mutator:
    """Return a mutator that writes awkward numbers into the fields of a header.

    Args:
        fields: where each number lies, and its code of `struct` (h, i, q, f, d, B...).
        order: "<" or ">".
    """

    def mutate(data: bytes, rng: np.random.Generator) -> bytes:
        place, code = pick(rng, fields)
        size = struct.calcsize(code)
        name = "little" if order == "<" else "big"
        return replaced(data, place, real(rng, size, order) if code in "fd" else integer(rng, size, name))

    return mutate
