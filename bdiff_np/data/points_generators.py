"""The usual laws of points in the plane, with their moments and entropies, and example data drawn from them.

The shapes and their scales are those of FFJORD (Grathwohl et al. 2019), so that figures can be compared. Row i of an
example depends on the seed and on i alone: its random numbers are words of rng.py, found by their address.

A law is a line in LAWS, a name in points.LawSettings and one in points_examples.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from bdiff_np import memory, rng
from bdiff_np.errors import InputError
from bdiff_np.rng import Key

# Notation: B points; u (B, 4) uniform in (0, 1), z (B, 2) standard normal, both independent.

PI = math.pi
COPIES = 8  # of example points that are in memory at once while they are made
LARGEST = 1e6  # of the noise that is added: beyond it nothing is seen of the law


class Shape(NamedTuple):
    """A law before its noise.

    points : (u, z) -> (B, 2). mean, variance : its exact moments. noise : standard deviation of the normal noise that
    is added to each coordinate, unless another is asked for
    entropy : in nats, with that noise; None where it is infinite or not known
    """

    points: Callable[[np.ndarray, np.ndarray], np.ndarray]
    mean: tuple[float, float]
    variance: tuple[float, float]
    noise: float
    entropy: float | None


def _at(angle: np.ndarray, radius: Any = 1.0) -> np.ndarray:
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def _swiss_roll(u, z):
    t = 1.5 * PI * (1 + 2 * u[:, 0])
    return _at(t, t) / 5


def _8gaussians(u, z):
    return _at(PI / 4 * np.floor(8 * u[:, 0]), 4 / 1.414)


def _2spirals(u, z):
    n = 3 * PI * np.sqrt(u[:, 0])
    arm = np.stack([0.5 * u[:, 1] - n * np.cos(n), 0.5 * u[:, 2] + n * np.sin(n)], axis=1) / 3
    return np.where(u[:, 3:] < 0.5, arm, -arm)


def _checkerboard(u, z):
    x = 4 * u[:, 0] - 2
    return 2 * np.stack([x, u[:, 1] - 2 * np.floor(2 * u[:, 2]) + np.floor(x) % 2], axis=1)


def _rings(u, z):
    return _at(2 * PI * u[:, 0], 0.75 * np.ceil(4 * u[:, 1]))


def _pinwheel(u, z):
    f = z * [0.3, 0.1] + [1, 0]
    angle = 2 * PI / 5 * np.floor(5 * u[:, 0]) + 0.25 * np.exp(f[:, 0])
    c, s = np.cos(angle), np.sin(angle)
    return 2 * np.stack([f[:, 0] * c + f[:, 1] * s, f[:, 1] * c - f[:, 0] * s], axis=1)


def _moons(u, z):
    arc = _at(PI * u[:, 0])
    return np.where(u[:, 1:2] < 0.5, arc, [1, 0.5] - arc) * 2 + [-1, -0.2]


def _circles(u, z):
    return _at(2 * PI * u[:, 0], np.where(u[:, 1] < 0.5, 3, 1.5))


# Entropies: by quadrature on grids, which tests/test_points_generators.py repeats more coarsely.
LAWS = {
    "swiss-roll": Shape(
        _swiss_roll,
        (0.4, 2 / (15 * PI)),
        ((4.875 * PI**2 - 4.25) / 25, (4.875 * PI**2 + 0.25 - 4 / (9 * PI**2)) / 25),
        0.2,
        2.66965,
    ),
    "8gaussians": Shape(_8gaussians, (0, 0), (8 / 1.414**2,) * 2, 0.5 / 1.414, 2.83188),
    "2spirals": Shape(
        _2spirals,
        (0, 0),
        (
            (2.25 * PI**2 + 0.75 + 2 / (3 * PI) + 1 / 12) / 9,
            (2.25 * PI**2 + 0.25 - 4 / (9 * PI**2) + 1 / 12) / 9,
        ),
        0.1,
        2.64545,
    ),
    "checkerboard": Shape(_checkerboard, (0, 0), (16 / 3, 16 / 3), 0.0, math.log(32)),
    "rings": Shape(_rings, (0, 0), (2.109375, 2.109375), 0.08, 2.62318),
    "pinwheel": Shape(_pinwheel, (0, 0), (2.2, 2.2), 0.0, 2.3178),
    "moons": Shape(_moons, (0, 0.3), (3, 2.25 - 4 / PI), 0.2, 2.39388),
    "circles": Shape(_circles, (0, 0), (2.8125, 2.8125), 0.24, 3.26814),
}


class Law:
    """A law of points (x, y), with as much noise as asked for, as it is or standardised.

    name : one of LAWS. noise : standard deviation of the normal noise of each coordinate; None for the usual one
    standardize : whether the law's own mean and deviation of each coordinate are made 0 and 1
    mean, sd : (2,) of the law, exactly. entropy : in nats per point; None where it is infinite or not known

    Raises InputError for another name, and a noise that is negative or not finite.
    """

    def __init__(self, name: str, noise: float | None = None, standardize: bool = False):
        if name not in LAWS:
            near = difflib.get_close_matches(str(name), LAWS, n=1)
            known = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(LAWS)}"
            raise InputError(f"there is no law {name!r}; {known}")
        shape = LAWS[name]
        noise = shape.noise if noise is None else float(noise)
        if not 0 <= noise <= LARGEST:
            raise InputError(f"{name}: the noise is {noise:g}; it must be at least 0 and at most {LARGEST:g}")
        self.name, self.noise, self.standardize = name, noise, standardize
        self._mean, self._sd = np.array(shape.mean), np.sqrt(np.array(shape.variance) + noise**2)
        self.mean = np.zeros(2) if standardize else self._mean
        self.sd = np.ones(2) if standardize else self._sd
        self.entropy = shape.entropy if noise == shape.noise else None
        if self.entropy is not None and standardize:
            self.entropy -= float(np.log(self._sd).sum())

    def curve(self, n: int) -> np.ndarray | None:
        """n points (n, 2) spread evenly over the law where it is one curve without noise; None for another."""
        if self.name != "swiss-roll" or self.noise:
            return None
        x = _swiss_roll((np.arange(n)[:, None] + 0.5) / n, None)
        return (x - self._mean) / self._sd if self.standardize else x

    def draw(self, n: int, seed: int = 0, part: int = 0) -> np.ndarray:
        """n points, (n, 2) float64: the first n of a sequence that the seed and the part, a number from 0, name."""
        memory.check(COPIES * 16 * n, f"{n} points", "take fewer rows (--rows)")
        u = (rng.words(Key(seed, rng.EXAMPLES, 2 * part), n, 4) + 0.5) * 2.0**-32
        z = rng.normals(Key(seed, rng.EXAMPLES, 2 * part + 1), n, 4)
        x = LAWS[self.name].points(u, z[:, 2:]) + self.noise * z[:, :2]
        return (x - self._mean) / self._sd if self.standardize else x
