"""Points: rows of D real coordinates, held as float64."""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from bdiff_np import data, rng, settings
from bdiff_np.data import points_files
from bdiff_np.data.points_census import PointsCensus
from bdiff_np.data.points_generators import LARGEST, LAWS, Law
from bdiff_np.errors import InputError, short
from bdiff_np.rng import Key

CURVE = 1 << 15  # points that stand for a curve: closer together than the noise of any first step worth taking


class LawSettings(settings.Settings):
    """A law of points in the plane (points_generators.py)."""

    name: Literal["swiss-roll", "8gaussians", "2spirals", "checkerboard", "rings", "pinwheel", "moons", "circles"] = (
        "swiss-roll"
    )
    """The law."""
    noise: float | None = Field(default=None, ge=0, le=LARGEST)
    """Standard deviation of the normal noise of each coordinate; null: the usual one."""
    standardize: bool = False
    """Whether each coordinate has mean 0 and variance 1, by the law's own moments."""

    @model_validator(mode="before")
    @classmethod
    def _usual_noise(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("noise") is None and given.get("name", "swiss-roll") in LAWS:
            return {**given, "noise": LAWS[given.get("name", "swiss-roll")].noise}
        return given

    @property
    def law(self) -> Law:
        """The law itself."""
        return Law(self.name, self.noise, self.standardize)


class PointsSettings(settings.Settings):
    """What is known of the rows."""

    law: LawSettings | None = None
    """The law that the points were drawn from, where one is known."""


class Points(data.Data):
    """N points of D coordinates.

    array : (N, D) float64, nan where a value is missing
    name : what messages call them: their file
    """

    Settings, ENDINGS, elements, dtype = PointsSettings, points_files.ENDINGS, "coordinates", np.dtype(np.float64)
    one, continuous = "point", True
    example = "make an example: python cli.py data swiss-roll --out"

    def __init__(self, array: np.ndarray, name: str = "rows"):
        self.array, self.D, self.name = array, array.shape[1], name

    @classmethod
    def _of(cls, reading: points_files.Reading, name: str) -> Points:
        rows = cls(reading.array, name)
        rows.first_missing, rows.form, rows.understood = reading.first_missing, reading.form, "; ".join(reading.notes)
        return rows

    @classmethod
    def from_array(cls, array: Any, name: str = "rows") -> Points:
        """A copy of (N, D) real numbers of any dtype, or of what turns into such an array: a list, a data frame, a
        tensor, a sparse matrix. `name` stands in front of the message if a value is not a number up to 1e30 in size."""
        return cls._of(points_files.read_array(array, name), name)

    def __len__(self) -> int:
        return len(self.array)

    def take(self, index: np.ndarray | slice) -> np.ndarray:
        """The points at `index`, (B,) integers, a (N,) mask or a slice, as (B, D) float64, a copy."""
        return self.array[index].copy() if isinstance(index, slice) else self.array[index]

    @property
    def nbytes(self) -> int:
        return self.array.nbytes

    def fingerprint(self) -> int:
        return zlib.crc32(np.ascontiguousarray(self.array).tobytes(), self.D)

    def _like(self, array: np.ndarray, first_missing: str = "") -> Points:
        """Other points in the form of these."""
        rows = Points(array, self.name)
        rows.form, rows.understood = self.form, self.understood
        rows.first_missing = first_missing if first_missing and np.isnan(array).any() else ""
        return rows

    def join(self, other: Points) -> Points:
        return self._like(np.concatenate([self.array, other.array]), self.first_missing or other.first_missing)

    def select(self, index: np.ndarray) -> Points:
        return self._like(self.array[index], self.first_missing)

    # What the family of Gaussian diffusion asks
    # ------------------------------------------------------------------------------------------------------------------

    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation (of the population) of each coordinate, (D,) float64 each.

        Raises InputError for a coordinate that is the same in all rows: it has no density.
        """
        low, high = self.array.min(axis=0), self.array.max(axis=0)
        if (low == high).all():
            raise InputError(f"{self.name}: all rows are the same; give two at least that differ")
        for column in np.flatnonzero(low == high)[:1]:
            names = self.form.get("names")
            named = f" ({short(repr(names[column]), 40)})" if names else ""
            raise InputError(f"{self.name}: column {column + 1}{named} is always {low[column]:g}; leave it out")
        spread = high - low  # measured in it, squares neither vanish nor overflow
        scaled = (self.array - low) / spread
        return low + spread * scaled.mean(axis=0), spread * scaled.std(axis=0)

    def covariance(self) -> np.ndarray:
        """Covariance (of the population) of the coordinates, (D, D) float64."""
        centred = self.array - self.array.mean(axis=0)
        return centred.T @ centred / len(self)

    @classmethod
    def entropy(cls, settings, *files: Points | None) -> float | None:
        """That of the law which the settings name; None for one whose entropy is infinite or not known, and where the
        files are not of it."""
        return settings.law.law.entropy if _of_law(settings, files) else None

    @classmethod
    def population(cls, settings, *files: Points | None) -> np.ndarray | None:
        """CURVE points of a law that is a curve without noise; None where the files are not of it."""
        return settings.law.law.curve(CURVE) if _of_law(settings, files) else None

    def census(self, val: Points | None, settings) -> PointsCensus | None:
        """Where there are no held-out points, half of these stand in. None for fewer than two of either."""
        order = rng.permutation(Key(0, rng.SPLIT, 0), len(self))
        parts = (self, val) if val is not None else (self.select(order[::2]), self.select(order[1::2]))
        train, held_out = (part.array[~np.isnan(part.array).any(axis=1)] for part in parts)
        others = "held-out points" if val is not None else "the other half of the training points"
        return PointsCensus(train, held_out, others) if min(len(train), len(held_out)) > 1 else None

    def can_be_of(self, law: Law) -> bool:
        """Whether number, means and variances of the coordinates are those of a law, within six standard errors."""
        if self.D != 2:
            return False
        deviation, error = (self.array - law.mean) / law.sd, 6 / np.sqrt(len(self))
        mean, square = np.abs(deviation.mean(axis=0)), np.abs((deviation**2).mean(axis=0) - 1)
        return bool((mean <= error).all() and (square <= 2 * error).all())

    def misfits(self, settings) -> Iterator[tuple[str, str]]:
        if settings.law is None:
            return
        law = settings.law.law
        if self.D != 2:
            yield "data.law", f"the points of {law.name} have 2 coordinates, those of the file {self.D}"
            return
        if not self.can_be_of(law):
            what = f"{self.name}: the points are not drawn from {law.name} with these settings"
            yield "data.law", f"{what}: mean and sd are {self._words()}, the law's {_words(law.mean, law.sd)}"

    # Files and text
    # ------------------------------------------------------------------------------------------------------------------

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Points:
        return cls._of(points_files.read(path), data.source.shown(path))

    def write(self, path: str | os.PathLike[str]) -> None:
        points_files.write(path, self.array, self.form)

    def in_form(self, form: Mapping[str, Any], name: str) -> Points:
        names = form.get("names")
        if (order := data.column_order(names, self.form.get("names"), name)) is None:
            return self
        rows = self._like(np.ascontiguousarray(self.array[:, order]), self.first_missing)
        rows.form, rows.understood = {**self.form, "names": names}, f"{self.understood}; columns put in order by name"
        return rows

    @classmethod
    def check_form(cls, form: Any, D: int) -> str | None:
        return points_files.form_fault(form, D)

    @classmethod
    def check_out(cls, path: str | os.PathLike[str]) -> None:
        points_files.check_out(path)

    @classmethod
    def text(cls, array: np.ndarray) -> str:
        return points_files.text(array)

    def summary(self, rows: np.ndarray) -> str:
        if not len(rows):
            return ""
        return f"mean and sd {Points(rows)._words()}; in train {self._words()}"

    def _words(self) -> str:
        return _words(self.array.mean(axis=0), self.array.std(axis=0))

    # What is known
    # ------------------------------------------------------------------------------------------------------------------

    @classmethod
    def check_known(cls, known: np.ndarray, n: int, D: int) -> tuple[np.ndarray, np.ndarray]:
        """known : (D,) or (n, D), a number where a coordinate is known, nan where it is not"""
        try:
            values = np.ma.filled(np.ma.asarray(known).astype(np.float64), np.nan)  # what is masked is not known
        except (TypeError, ValueError):
            raise InputError(f"what is known is not numbers and nan; give ({D},) or ({n}, {D}) of them") from None
        if values.shape not in ((D,), (n, D)):
            raise InputError(
                f"what is known of {n} points of {D} coordinates has shape {values.shape}; give ({D},) or ({n}, {D})"
            )
        if (np.abs(values) > points_files.MOST).any():  # nan is not
            raise InputError(
                f"what is known of a coordinate is a number up to {points_files.MOST:g} or, where it is to be drawn, "
                "nan; a larger one was given"
            )
        values = np.broadcast_to(values, (n, D))
        return ~np.isnan(values), values

    @classmethod
    def read_known(cls, text: str, D: int) -> np.ndarray:
        """text : a number or, for a coordinate to be drawn, ?, one for each coordinate, with commas between them"""
        cells = [cell.strip() for cell in (re.split("[,;]", text) if re.search("[,;]", text) else text.split())]
        if len(cells) != D:
            raise InputError(
                f"--known: is of {len(cells)} coordinates, the points have {D}; give a number or ? for each, with "
                "commas between them"
            )
        values = np.full(D, np.nan)
        for j, cell in enumerate(cells):
            try:
                values[j] = np.nan if cell == "?" else float(cell)
            except ValueError:
                raise InputError(f"--known: entry {j + 1} is {short(repr(cell), 40)}; give a number or ?") from None
        return values


def _of_law(settings: PointsSettings, files: tuple[Points | None, ...]) -> bool:
    """Whether a law is named that all files can be of."""
    if settings.law is None:
        return False
    return all(rows.can_be_of(settings.law.law) for rows in files if rows is not None)


DATA = Points


def _words(mean: np.ndarray, sd: np.ndarray) -> str:
    """Moments of the first coordinates for a line of a terminal."""
    more = " ..." * (len(mean) > 3)
    return ", ".join(" ".join(f"{x:.3g}" for x in figures[:3]) + more for figures in (mean, sd))
