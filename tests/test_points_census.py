"""The census of points against loops, and what it tells of good and bad samples."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest

from bdiff_np.data import points_census
from bdiff_np.data.points import Points
from bdiff_np.data.points_census import PointsCensus
from bdiff_np.data.points_generators import Law

LAW = Law("moons")
TRAIN, VAL = LAW.draw(4000), LAW.draw(1000, part=1)


@pytest.fixture(scope="module")
def census() -> PointsCensus:
    found = Points(TRAIN).census(Points(VAL), None)
    assert found is not None
    return found


def by_loops(train, val, samples) -> dict[str, float]:
    """The figures from their definitions; all three of one length, so that each quantile is a point."""
    train, val, samples = ((x - train.mean(0)) / train.std(0) for x in (train, val, samples))
    nearest = lambda x: np.array([min(np.linalg.norm(point - y) for y in train) for point in x])  # noqa: E731
    limit = np.quantile(nearest(val), 0.99)
    pairs = lambda x, y: np.array([[((a - b) ** 2).sum() for b in y] for a in x])  # noqa: E731
    width = np.median([pairs(val, val)[i, j] for i in range(len(val)) for j in range(i)])
    kernel = lambda x, y: np.exp(-0.5 * pairs(x, y) / width).mean()  # noqa: E731
    mmd = np.sqrt(kernel(samples, samples) - 2 * kernel(samples, val) + kernel(val, val))
    return {"near": (nearest(samples) <= limit).mean(), "mmd": mmd}


def test_figures_are_their_definitions():
    train, val, samples = LAW.draw(60), LAW.draw(40, part=1), LAW.draw(50, seed=2) * 1.1
    found = PointsCensus(train, val)(Points(samples))
    assert {name: found[name] for name in ("near", "mmd")} == pytest.approx(by_loops(train, val, samples), rel=1e-9)
    assert found["near"] + found["far"] == pytest.approx(1) and found["n"] == 50


@pytest.mark.parametrize("D", [1, 2, 5])
def test_sliced_wasserstein_of_a_shift(D):
    """Of points moved by s it is |s| / sqrt(D) in the mean over all directions, here of 64; of themselves, in another
    order, 0."""
    x = np.random.default_rng(0).normal(size=(400, D))
    census, move = PointsCensus(x, x), 0.7 * np.ones(D)
    figures = census(Points(x[::-1]))
    assert figures["wasserstein"] == pytest.approx(0, abs=1e-12) and figures["mmd"] == pytest.approx(0, abs=1e-7)
    along = census._directions @ (move / x.std(0))
    assert census(Points(x + move))["wasserstein"] == pytest.approx(np.sqrt((along**2).mean()), rel=1e-9)
    np.testing.assert_allclose(np.linalg.norm(census._directions, axis=1), 1)


def test_good_samples_are_at_the_floor_and_bad_ones_above(census):
    good, moved, wide = (census(Points(x)) for x in (LAW.draw(900, 7), LAW.draw(900, 7) + 0.4, LAW.draw(900, 7) * 1.3))
    assert good["far"] < 0.025 and moved["far"] > 0.05 and wide["far"] > 0.05
    for name in points_census.DISTANCES:
        assert good[name] < 1.5 * good[f"{name}_most"] and moved[name] > 2 * moved[f"{name}_most"]
        assert good[f"{name}_floor"] <= good[f"{name}_most"]
    assert json.loads(json.dumps(good)) == good == census(Points(LAW.draw(900, 7)))


def test_words(census):
    counts = {"n": 10, "near": 0.9, "far": 0.1, "wasserstein": 0.12345, "wasserstein_floor": 0.05,
              "wasserstein_most": 0.07, "mmd": 0.04, "mmd_floor": 0.03, "mmd_most": 0.05}  # fmt: skip
    assert census.words(counts).splitlines() == [
        "samples    10: 10.0% are farther from the training points than 99% of held-out points are",
        "           sliced Wasserstein distance 0.1235 to held-out points; training points have 0.0500, at most 0.0700",
        "           maximum mean discrepancy    0.0400 to held-out points; training points have 0.0300, at most 0.0500",
    ]
    assert census.shares(counts) == "90.0% near the training points, 10.0% far"
    columns = {"near": [0.5], "far": [0.5], "epoch": [1]}
    assert census.stack(columns) == census.proportions(columns) == {"near": [0.5], "far": [0.5]}


def test_samples_that_are_none_or_not_finite(census):
    assert census(Points(np.empty((0, 2)))) == {"n": 0, "near": 0.0, "far": 0.0}
    lost = census(Points(np.array([[np.nan, 1], [0, np.inf]])))
    assert lost == {"n": 2, "near": 0.0, "far": 1.0} and len(census.words(lost).splitlines()) == 1
    half = census(Points(np.array([[np.nan, 1], TRAIN[0]])))
    assert half["far"] == 0.5 and np.isfinite(half["mmd"])


def test_without_held_out_points():
    """Half of the training points stand in; missing values are left out, and too few points have no census."""
    census = Points(TRAIN).census(None, None)
    assert len(census.train) == len(census.val) == 2000 and not {*map(tuple, census.val)} & {*map(tuple, census.train)}
    holes = Points(np.concatenate([TRAIN, [[np.nan, 1]]]))
    assert np.isfinite(holes.census(None, None).train).all()
    assert Points(TRAIN[:3]).census(None, None) is None and Points(TRAIN).census(Points(VAL[:1]), None) is None
    PointsCensus(np.ones((5, 2)), np.ones((4, 2)))(Points(np.ones((3, 2))))  # no scale, no width


def test_it_takes_little_time():
    """A fifth of a second for 1024 samples against 10000 points on a machine of its own; here others are at work."""
    census = Points(LAW.draw(20_000)).census(Points(VAL), None)
    samples = Points(LAW.draw(1024, 3))
    census(samples)
    start = time.perf_counter()
    census(samples)
    assert time.perf_counter() - start < 2
