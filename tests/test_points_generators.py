"""Laws of points against their densities, worked out here by quadrature; and the command that draws from them."""

from __future__ import annotations

import math
from functools import cache
from typing import get_args

import numpy as np
import pytest
from click.testing import CliRunner

from bdiff_np import config, guests
from bdiff_np.cli import main
from bdiff_np.data import points_examples, read_run
from bdiff_np.data.points import LawSettings, Points, PointsSettings
from bdiff_np.data.points_generators import LAWS, Law
from bdiff_np.errors import InputError

PI = np.pi


def normal(x: np.ndarray, sd: float) -> np.ndarray:
    return np.exp(-0.5 * (x / sd) ** 2) / (sd * math.sqrt(2 * PI))


@cache
def skeleton(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Points (M, 2) and weights that stand for a law of curves or of single points before its noise."""
    u = (np.arange(1200) + 0.5) / 1200
    turn = np.stack([np.cos(2 * PI * u), np.sin(2 * PI * u)], 1)
    if name == "swiss-roll":
        t = 1.5 * PI * (1 + 2 * u)
        x = np.stack([t * np.cos(t), t * np.sin(t)], 1) / 5
    elif name == "8gaussians":
        s = math.sqrt(0.5)
        x = 4 / 1.414 * np.array([(1, 0), (-1, 0), (0, 1), (0, -1), (s, s), (s, -s), (-s, s), (-s, -s)])
    elif name == "rings":
        x = np.concatenate([radius * turn for radius in (3, 2.25, 1.5, 0.75)])
    elif name == "circles":
        x = np.concatenate([3 * turn, 1.5 * turn])
    elif name == "moons":
        arc = np.stack([np.cos(PI * u), np.sin(PI * u)], 1)
        x = np.concatenate([arc, np.stack([1 - arc[:, 0], 1 - arc[:, 1] - 0.5], 1)]) * 2 + [-1, -0.2]
    return x, np.full(len(x), 1 / len(x))


def density(name: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Of a law with its usual noise, at all pairs, (len(x), len(y))."""
    sd = LAWS[name].noise
    if name == "checkerboard":
        column, row = np.floor(x / 2)[:, None], np.floor(y / 2)[None]
        return ((column + row) % 2 == 0) * (abs(x) < 4)[:, None] * (abs(y) < 4)[None] / 32
    if name == "pinwheel":
        grid = np.stack(np.meshgrid(x, y, indexing="ij"), -1).reshape(-1, 2)
        return pinwheel(grid).reshape(len(x), len(y))
    if name == "2spirals":
        n = 3 * PI * np.sqrt((np.arange(1500) + 0.5) / 1500)
        nodes, weights = np.polynomial.legendre.leggauss(6)  # of the uniform offset, of width 1 / 6
        spread = lambda x, c: sum(  # noqa: E731
            w / 2 * normal(x - c[:, None] / 3 - (k + 1) / 12, sd) for k, w in zip(nodes, weights)
        )
        arm = lambda x, y: spread(x, -n * np.cos(n)).T @ spread(y, n * np.sin(n)) / len(n)  # noqa: E731
        return (arm(x, y) + arm(-x, -y)) / 2
    centres, weight = skeleton(name)
    return (weight * normal(x[:, None] - centres[:, 0], sd)) @ normal(y[:, None] - centres[:, 1], sd).T


def pinwheel(x: np.ndarray) -> np.ndarray:
    """Density at points (B, 2): each arm is the image of f ~ N((1, 0), diag(.3, .1)^2) under f -> 2 R f, whose angle
    depends on f_0; f_0 solves an equation of its own, and the derivative of its two sides is the map's determinant."""
    scan = np.linspace(-0.4, 2.4, 300)
    bend = 0.25 * np.exp(scan)
    total = np.zeros(len(x))
    for k in range(5):
        # f = R x / 2 with the inverse rotation by bend + 2 pi k / 5
        radius, angle = np.hypot(*x.T) / 2, np.arctan2(x[:, 1], x[:, 0]) + 2 * PI * k / 5
        turned = angle[:, None] + bend
        f0 = radius[:, None] * np.cos(turned)
        side = f0 - scan
        row, at = np.nonzero((side[:, :-1] > 0) != (side[:, 1:] > 0))
        part = side[row, at] / (side[row, at] - side[row, at + 1])
        root = scan[at] + part * (scan[1] - scan[0])
        f1 = radius[row] * np.sin(angle[row] + 0.25 * np.exp(root))
        determinant = np.abs(1 + f1 * 0.25 * np.exp(root))
        np.add.at(total, row, normal(root - 1, 0.3) * normal(f1, 0.1) / determinant / 4 / 5)
    return total


def entropy(name: str) -> float:
    if name == "checkerboard":
        return math.log(32)
    if name == "pinwheel":  # over f of one arm: all are alike
        nodes, weights = np.polynomial.hermite_e.hermegauss(40)
        weights = weights / weights.sum()
        a, b = np.meshgrid(1 + 0.3 * nodes, 0.1 * nodes, indexing="ij")
        angle = 0.25 * np.exp(a)
        x = 2 * np.stack([a * np.cos(angle) + b * np.sin(angle), b * np.cos(angle) - a * np.sin(angle)], -1)
        mass = np.outer(weights, weights)
        seen = mass > 1e-9
        return -float((mass[seen] * np.log(pinwheel(x[seen]))).sum() / mass[seen].sum())
    step = LAWS[name].noise / 1.5
    reach = math.sqrt(max(LAWS[name].variance)) * 2.2 + 6 * LAWS[name].noise
    x = np.arange(-reach, reach, step)
    p = density(name, x, x) * step**2
    assert abs(p.sum() - 1) < 1e-4, p.sum()
    return -float((p[p > 0] * np.log(p[p > 0] / step**2)).sum())


@pytest.mark.parametrize("name", LAWS)
def test_entropies(name):
    law = Law(name)
    assert law.entropy == pytest.approx(entropy(name), abs=2e-4)
    standard = Law(name, standardize=True)
    assert standard.entropy == pytest.approx(law.entropy - np.log(law.sd).sum(), abs=1e-12)
    assert Law(name, noise=law.noise + 0.1).entropy is None


@pytest.mark.parametrize("name", LAWS)
def test_moments(name):
    """Of 100000 points within 4.5 standard errors; standardised they are 0 and 1 of the law, not of the sample."""
    law, standard = Law(name), Law(name, standardize=True)
    x = law.draw(100_000, seed=3)
    deviation = (x - law.mean) / law.sd
    assert (np.abs(deviation.mean(0)) < 4.5 / math.sqrt(len(x))).all()
    assert (np.abs((deviation**2).mean(0) - 1) < 4.5 * (deviation**2).std(0) / math.sqrt(len(x))).all()
    np.testing.assert_allclose(standard.draw(50, seed=3), deviation[:50], atol=1e-12)
    assert (standard.mean == 0).all() and (standard.sd == 1).all()
    noisy = Law(name, noise=1.5)
    np.testing.assert_allclose(noisy.sd**2, law.sd**2 - law.noise**2 + 1.5**2)


@pytest.mark.parametrize("name", LAWS)
def test_histogram(name):
    """Chi squared of 40000 points in cells against the integrals of the density over them."""
    n, side, fine = 40_000, 0.3, 3 if name == "pinwheel" else 6
    edges = np.arange(-21, 22) * side
    inner = (np.arange(-21 * fine, 21 * fine) + 0.5) * side / fine
    p = density(name, inner, inner).reshape(42, fine, 42, fine).sum((1, 3)) * (side / fine) ** 2
    if name == "checkerboard":  # whose edges lie within cells
        edges = np.arange(-20, 21) * 0.4
        inner = (np.arange(-40, 40) + 0.5) * 0.2
        p = density(name, inner, inner).reshape(40, 2, 40, 2).sum((1, 3)) * 0.04
    assert p.sum() == pytest.approx(1, abs=2e-3)
    counts, _, _ = np.histogram2d(*Law(name).draw(n, seed=5).T, bins=[edges, edges])
    seen = n * p > 8
    chi = ((counts - n * p)[seen] ** 2 / (n * p[seen])).sum()
    assert abs(chi - seen.sum()) < 5 * math.sqrt(2 * seen.sum()), (chi, seen.sum())
    assert counts[~seen].sum() <= n * p[~seen].sum() + 5 * math.sqrt(n * p[~seen].sum()) + 1


def test_cross_entropy_of_the_pinwheel():
    """The mean of -ln p over points is the entropy, within 4 standard errors."""
    losses = -np.log(pinwheel(Law("pinwheel").draw(10_000, seed=1)))
    assert losses.mean() == pytest.approx(Law("pinwheel").entropy, abs=4 * losses.std() / 100)


def test_points_are_addressed():
    """The first rows are the same in every number of rows; seeds and parts draw others; NumPy's own state stays."""
    law, state = Law("moons"), np.random.get_state()[1].copy()  # noqa: NPY002
    x = law.draw(100, seed=2, part=1)
    np.testing.assert_array_equal(law.draw(7, seed=2, part=1), x[:7])
    for other in (law.draw(100, seed=3, part=1), law.draw(100, seed=2)):
        assert not np.isin(other, x).any()
    assert (np.random.get_state()[1] == state).all()  # noqa: NPY002
    first = [[1.1398440158485263, -0.44999075201433403], [-1.0968562405344937, 2.1823143447537556]]
    np.testing.assert_allclose(Law("2spirals", noise=0).draw(2), first, rtol=1e-12)


def test_without_noise():
    x = Law("rings", noise=0).draw(1000)
    np.testing.assert_allclose(np.unique(np.hypot(*x.T).round(9)), [0.75, 1.5, 2.25, 3])
    assert all(Law(name, noise=0).entropy is None for name in LAWS if LAWS[name].noise)


@pytest.mark.parametrize(
    "arguments, says",
    [(("moon",), "did you mean 'moons'"), (("cat",), "there are swiss-roll, 8g"), (("moons", -1), "noise is -1"),
     (("moons", math.nan), "noise is nan"), (("moons", math.inf), "noise is inf")],
)  # fmt: skip
def test_laws_that_are_none(arguments, says):
    with pytest.raises(ValueError, match=says):
        Law(*arguments)


# Settings and the command
# ----------------------------------------------------------------------------------------------------------------------


def settings(**law):
    return PointsSettings.model_validate({"law": law})


def test_every_law_can_be_configured_and_made():
    """The names of the settings and of the commands are those of the laws."""
    assert get_args(LawSettings.model_fields["name"].annotation) == tuple(LAWS)
    assert [command.name for command in points_examples.COMMANDS] == list(LAWS)
    assert settings(name="moons").law == settings(name="moons", noise=0.2).law != settings(name="moons", noise=0.3).law


def test_entropy_and_misfits():
    assert Points.entropy(PointsSettings()) is None and Points.entropy(settings(name="rings", noise=0)) is None
    assert Points.entropy(settings(name="rings")) == LAWS["rings"].entropy
    for name in LAWS:
        for standardize in (False, True):
            rows = Points(Law(name, standardize=standardize).draw(3000))
            assert list(rows.misfits(settings(name=name, standardize=standardize))) == []
            ((place, says),) = rows.misfits(settings(name=name, standardize=not standardize))
            assert place == "data.law" and f"not drawn from {name}" in says
    assert (
        "2 coordinates, those of the file 3"
        in dict(Points(np.ones((4, 3))).misfits(settings(name="moons")))["data.law"]
    )
    assert list(Points(np.ones((4, 3))).misfits(PointsSettings())) == []


def test_command(tmp_path):
    """It writes points, and settings that are read back; the same words again write the same bytes; a folder with other
    rows or settings is refused."""
    call = ["data", "2spirals", "--rows", "300", "--val-rows", "50", "--noise", "0.2", "--standardize", "--seed", "4"]
    invoke = lambda *words: CliRunner().invoke(main, [*words])  # noqa: E731
    run = tmp_path / "run"
    done = invoke(*call, "--out", str(run))
    assert done.exit_code == 0 and done.output == (
        f"{run}: 300 rows in train.npy, 50 in val.npy, settings in config.yaml\ntrain it:  python cli.py train {run}\n"
    )
    law = Law("2spirals", 0.2, True)
    train, val = read_run(Points, run)
    np.testing.assert_array_equal(train.all(), law.draw(300, 4))
    np.testing.assert_array_equal(val.all(), law.draw(50, 4, part=1))
    found = config.load(run / "config.yaml")
    assert found.data.law.model_dump() == {"name": "2spirals", "noise": 0.2, "standardize": True}
    assert found.model.family == "gaussian" and not list(train.misfits(found.data))

    before = (run / "train.npy").read_bytes()
    assert "overwrite it with --force" in invoke(*call, "--out", str(run)).output
    assert invoke(*call, "--force", "--out", str(run)).exit_code == 0 and (run / "train.npy").read_bytes() == before
    other = invoke("data", "2spirals", "--force", "--out", str(run))
    assert other.exit_code == 2 and "config.yaml:13:8: data.law: this folder's settings are for other" in other.output
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "config.yaml").write_bytes((run / "config.yaml").read_bytes())
    bits = invoke("data", "heartbeat", "--out", str(tmp_path / "c"))
    assert bits.exit_code == 2 and "is for other data than bits" in bits.output
    (run / "val.csv").write_text("1,2\n")
    assert "val.csv: is there already" in invoke(*call, "--force", "--out", str(run)).output
    entropy = invoke("data", "moons", "--rows", "9", "--val-rows", "0", "--out", str(tmp_path / "b")).output
    assert "9 rows in train.npy, no val.npy" in entropy and "the entropy, 3.4536 bits (2.3939 nats) a point" in entropy


def test_a_faulty_file_of_commands_is_named(tmp_path, monkeypatch):
    """In the place of its commands; those of the others stay."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "cats_examples.py").write_text("import nothing_of_this_name")
    (tmp_path / "data" / "dogs_examples.py").write_text("import click\nCOMMANDS = [click.Command('dog')]")
    monkeypatch.setattr(guests, "__file__", str(tmp_path / "guests.py"))
    cats, dog = guests.commands("data")
    assert (cats.name, dog.name) == ("cats", "dog")
    with pytest.raises(InputError, match="data/cats_examples.py: cannot be imported: ModuleNotFoundError"):
        cats.callback()
