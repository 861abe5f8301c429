"""How far samples are from points that were held out, beside how far other real points are from them."""

from __future__ import annotations

import numpy as np

from bdiff_np import rng
from bdiff_np.rng import Key

MOST = 10_000  # real points that are compared with at most, drawn once
HELD_OUT = 2000  # of them, held-out points whose distances set the limit of `near`
MMD = 1000  # points of each side of that figure: it looks at all pairs
DIRECTIONS, QUANTILES = 64, 1000  # of the sliced Wasserstein distance
DRAWS = 8  # of training points whose distances are the floors, at most
SHARE = 0.99  # of held-out points that are near
DISTANCES = {"wasserstein": "sliced Wasserstein distance", "mmd": "maximum mean discrepancy"}  # figures, and in words
PAIRS = 1 << 21  # distances that are in memory at once


class PointsCensus:
    """What samples are, as often as needed: `census(samples)`.

    train, val : (N, D) points with no missing values, two at least, val disjoint from train. Distances are in standard
    deviations of train, coordinate by coordinate.
    """

    names = ("near", "far")  # shares that metrics.csv follows over the epochs

    def __init__(self, train: np.ndarray, val: np.ndarray, others: str = "held-out points"):
        self._others = others  # what val is called
        sd = train.std(axis=0)
        self._mean, self._sd = train.mean(axis=0), np.where(sd > 0, sd, 1.0)
        self.train, self.val = self._some(train, 0), self._some(val, 1)
        directions = rng.normals(Key(0, rng.CENSUS, 0), DIRECTIONS, train.shape[1])
        self._directions = directions / np.linalg.norm(directions, axis=1, keepdims=True)
        self._quantiles = self._sliced(self.val)
        few = self.val[:MMD]
        squares = _squares(few, few)
        self._bandwidth = float(np.median(squares[np.triu_indices(len(few), 1)])) or 1.0
        self._alike = np.exp(-0.5 * squares / self._bandwidth).mean()
        self.limit = float(np.quantile(_nearest(self.val[:HELD_OUT], self.train), SHARE))
        self._floors: dict[int, dict[str, float]] = {}  # by number of points

    def _some(self, points: np.ndarray, step: int) -> np.ndarray:
        """At most MOST of some points, in a random order that is always the same, standardised."""
        order = rng.permutation(Key(0, rng.CENSUS, 1 + step), len(points))[:MOST]
        return (points[order] - self._mean) / self._sd

    def __call__(self, samples) -> dict:
        """
        Returns
        -------
        n : how many samples
        near, far : shares of them that are no farther from the nearest training point than 99 % of held-out points are,
            and that are: far is 1 % for samples as good as the data
        wasserstein : sliced Wasserstein-2 distance to the held-out points (Bonneel et al. 2015)
        mmd : maximum mean discrepancy to them, by a Gaussian kernel of median width (Gretton et al. 2012)
        wasserstein_floor, mmd_floor : mean of the same over draws of as many training points: what samples as good as
            the data have; wasserstein_most, mmd_most : the largest of these
        Without a finite sample, the shares alone.
        """
        x = samples.all()
        good = x[np.isfinite(x).all(axis=1)]
        good = (good - self._mean) / self._sd
        near = int((_nearest(good, self.train) <= self.limit).sum())
        counts = {"n": len(x), "near": near / max(1, len(x)), "far": (len(x) - near) / max(1, len(x))}
        if len(good):
            counts |= dict(zip(DISTANCES, self._distances(good))) | self._floor(min(len(good), len(self.train)))
        return counts

    def _floor(self, n: int) -> dict[str, float]:
        """The distances of draws of n training points: their means and the largest."""
        if n not in self._floors:
            starts = range(0, len(self.train) - n + 1, n)[:DRAWS]
            found = np.array([self._distances(self.train[start : start + n]) for start in starts])
            means = {f"{name}_floor": float(mean) for name, mean in zip(DISTANCES, found.mean(axis=0))}
            self._floors[n] = means | {f"{name}_most": float(most) for name, most in zip(DISTANCES, found.max(axis=0))}
        return self._floors[n]

    def _sliced(self, points: np.ndarray) -> np.ndarray:
        """Quantiles of points along each direction, (QUANTILES, DIRECTIONS)."""
        along = np.sort(points[:MOST] @ self._directions.T, axis=0)
        return along[((np.arange(QUANTILES) + 0.5) / QUANTILES * len(along)).astype(int)]

    def _distances(self, points: np.ndarray) -> tuple[float, float]:
        """Sliced Wasserstein-2 distance and MMD between points and the held-out ones."""
        sliced = float(np.sqrt(np.mean((self._sliced(points) - self._quantiles) ** 2)))
        few, held_out = points[:MMD], self.val[:MMD]
        own, cross = (np.exp(-0.5 * _squares(few, y) / self._bandwidth).mean() for y in (few, held_out))
        return sliced, float(np.sqrt(max(0.0, own - 2 * cross + self._alike)))

    def words(self, counts: dict) -> str:
        """The same for people."""
        c = counts
        lines = [
            f"samples    {c['n']}: {c['far']:.1%} are farther from the training points than {SHARE:.0%} of "
            f"{self._others} are"
        ]
        for figure, name in DISTANCES.items():
            if figure in c:
                real = f"training points have {c[f'{figure}_floor']:.4f}, at most {c[f'{figure}_most']:.4f}"
                lines.append(f"           {name:<27} {c[figure]:.4f} to {self._others}; {real}")
        return "\n".join(lines)

    def shares(self, counts: dict) -> str:
        """The same in half a line; counts : the figures named in `names`"""
        return f"{counts['near']:.1%} near the training points, {counts['far']:.1%} far"

    def proportions(self, columns: dict) -> dict:
        """The figures over the epochs as results.json has them; columns : name -> one value an epoch"""
        return {name: columns[name] for name in self.names}

    stack = proportions


def _squares(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Squared distances, (len(x), len(y))."""
    return np.maximum((x**2).sum(1)[:, None] - 2 * x @ y.T + (y**2).sum(1), 0)


def _nearest(x: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Distance of each of x (B, D) from the nearest of some points, (B,)."""
    step = max(1, PAIRS // len(points))
    size = (points**2).sum(1)
    nearest = [
        (size - 2 * part @ points.T).min(axis=1) + (part**2).sum(1) for part in np.split(x, range(step, len(x), step))
    ]
    return np.sqrt(np.maximum(np.concatenate(nearest), 0))
