"""Pictures of points: whole files with the frames and the size they should have, whatever the points are; and those
that a kind of data adds."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from bdiff_np import model as models
from bdiff_np.backends import load_ops
from bdiff_np.diffusion import gaussian, gaussian_family
from bdiff_np.show import pictures, points_figures
from bdiff_np.show import points_pictures as drawn

SIZE = 460, 472  # width and height of a frame


def roll(n, D=2, seed=0):
    """A swiss roll (n, D); the third coordinate on is noise."""
    generator = np.random.default_rng(seed)
    angle = 1.5 * np.pi * (1 + 2 * generator.random(n))
    plane = np.stack([angle * np.sin(angle), -angle * np.cos(angle)], axis=1) / 10
    return np.concatenate([plane, generator.standard_normal((n, D))], axis=1)[:, :D]


def film(frames, n, D=2):
    """(frames, n, D), from noise to a swiss roll."""
    noise = np.random.default_rng(1).standard_normal((n, D))
    share = np.linspace(1, 0, frames)[:, None, None]
    return share * noise + (1 - share) * roll(n, D)


def frames_of(path):
    """All frames (F, height, width, 3), and how long each is shown in ms."""
    frames, durations = [], []
    with Image.open(path) as picture:
        for k in range(getattr(picture, "n_frames", 1)):
            picture.seek(k)
            frames.append(np.asarray(picture.convert("RGB")).astype(int))
            durations.append(picture.info.get("duration"))
    return np.stack(frames), durations


def blue(frames):
    """How many pixels of each frame belong to points."""
    return (frames[..., 2] - frames[..., 0] > 10).sum((-1, -2))


@pytest.mark.parametrize("n, D", [(1, 1), (1, 2), (2, 3), (50, 1), (50, 2), (2000, 3), (20_000, 1), (20_000, 2)])
def test_samples(tmp_path, n, D):
    drawn.samples(tmp_path / "a.png", roll(n, D), None)
    drawn.samples(tmp_path / "b.png", roll(n, D).astype(np.float32), None, title="Samples")
    (plain,), _ = frames_of(tmp_path / "a.png")
    (titled,), _ = frames_of(tmp_path / "b.png")
    assert plain.shape == titled.shape == (2 * SIZE[1], 2 * SIZE[0], 3)
    assert blue(plain) > 20 and (plain[:60] == 255).mean() > (titled[:60] == 255).mean()


@pytest.mark.parametrize("draw, frame_ms", [(drawn.sample_evolution, 500), (drawn.reverse_trajectory, 100)])
@pytest.mark.parametrize(
    "E, n, D, count", [(1, 10, 2, 1), (2, 10, 1, 2), (300, 10, 3, 100), (101, 1000, 2, 40), (101, 10_000, 2, 30)]
)
def test_animations(tmp_path, draw, frame_ms, E, n, D, count):
    """Frames of one size, fewer of many points, from the first to the last, the last one held."""
    draw(tmp_path / "a.gif", np.arange(E)[::-1], film(E, n, D), None)
    frames, durations = frames_of(tmp_path / "a.gif")
    assert frames.shape == (count, *SIZE[::-1], 3) and (blue(frames) > 5).all()
    if E > 1:
        assert durations == [frame_ms] * (count - 1) + [3000]
    assert (tmp_path / "a.gif").stat().st_size < 700_000


@pytest.mark.parametrize("D", [1, 2])
def test_axes_stay(tmp_path, D):
    """Beside and below the panel, all frames are one picture; a point that does not move stays where it is."""
    states = film(20, 300, D)
    states[:, 0] = 0.5
    drawn.reverse_trajectory(tmp_path / "a.gif", np.arange(20)[::-1], states, None)
    frames, _ = frames_of(tmp_path / "a.gif")
    below = frames[:, drawn.HEAD + drawn.PANEL + 1 :]
    beside = frames[:, drawn.HEAD :, : drawn.LEFT - 2]
    assert (below == below[0]).all() and (beside == beside[0]).all() and below.min() < 128
    box = drawn.limits(states[-1])
    at = (0.5 - box.low) / (box.high - box.low)
    x, y = drawn.LEFT + int(at[0] * drawn.PANEL), drawn.HEAD + int((1 - at[-1]) * drawn.PANEL)
    if D == 2:
        assert (frames[:, y, x, 0] < 200).all()


def test_a_dot_lies_at_its_point():
    box = drawn.Limits(np.zeros(2), np.ones(2))
    cover = drawn._dots(np.array([[0.25, 0.75], [np.nan, 0.5], [2.0, 0.5], [0.0, 0.0]]), box, 400)
    y, x = np.nonzero(cover[:200] > 0.01)
    assert abs(x.mean() + 0.5 - 100) < 0.01 and abs(y.mean() + 0.5 - 100) < 0.01 and cover.max() <= 0.85
    assert cover[-1, 0] > 0.5 and (cover > 0.01).sum() < 100


def test_limits():
    """Most points are inside, a few far away do not count, and both axes have one scale unless they differ by far."""
    rows = roll(1000)
    box = drawn.limits(rows)
    assert len(box.inside(rows)) == 1000 and np.ptp(box.high - box.low) < 1e-12
    wild = np.concatenate([rows, np.full((50, 2), 1e38), [[np.inf, np.nan]]])
    assert len(drawn.limits(wild).inside(wild)) == 1000 and (drawn.limits(wild).high < 5).all()
    wide = drawn.limits(rows * [1, 1000])
    assert (wide.high - wide.low)[1] > 500 * (wide.high - wide.low)[0]
    for odd in (np.zeros((3, 2)), np.full((3, 2), 1e12), np.full((3, 1), np.nan), 1e-30 * rows):
        box = drawn.limits(odd)
        assert (box.high > box.low).all()
        assert len(box.inside(odd)) == (0 if np.isnan(odd).all() else len(odd))


@pytest.mark.parametrize(
    "odd, D", [(np.inf, 1), (-np.inf, 2), (np.nan, 3), (np.nan, 1), (1e308, 2), (1e38, 1), (1e38, 2)]
)
@pytest.mark.parametrize("every", [False, True])
def test_points_that_no_axis_can_show(tmp_path, odd, every, D):
    """They are left out; the others are drawn as without them."""
    states = film(3, 100, D)
    states[:, np.arange(100) % 20 == 0 if not every else slice(None)] = odd
    drawn.sample_evolution(tmp_path / "a.gif", [1, 2, 3], states, None)
    drawn.samples(tmp_path / "a.png", states[-1], None)
    frames, _ = frames_of(tmp_path / "a.gif")
    assert frames.shape == (3, *SIZE[::-1], 3)
    assert every or (blue(frames) > 200).all()


@pytest.mark.parametrize(
    "titles, rows, words",
    [
        ([1], np.zeros((2, 3, 4)), "one for each"),
        ([], np.zeros((0, 3, 4)), "at least one"),
        ([1], np.zeros((1, 3)), "shape"),
        ([1], np.zeros((1, 3, 0)), "at least 1"),
        ([1], np.zeros((1, 0, 2)), "at least 1"),
    ],
)
def test_faults_are_named(tmp_path, titles, rows, words):
    for draw in (drawn.sample_evolution, drawn.reverse_trajectory):
        with pytest.raises(ValueError, match=words):
            draw(tmp_path / "a.gif", titles, rows, None)
    with pytest.raises(ValueError, match="shape"):
        drawn.samples(tmp_path / "a.png", np.zeros(3), None)
    assert not list(tmp_path.iterdir())


# Of a model
# ----------------------------------------------------------------------------------------------------------------------


class Rows:
    """Training points, as far as pictures read them (data.Data)."""

    def __init__(self, points):
        self.points, self.D = points, points.shape[1]

    def __len__(self):
        return len(self.points)

    def take(self, index):
        return self.points[index]

    def moments(self):
        return self.points.mean(0), self.points.std(0)

    def with_file(self, settings):
        return settings


class Drifting(gaussian_family.Gaussian):
    """The family with the drift of its reverse process."""

    def drift(self, chain, settings, out, x_t, t):
        return gaussian.reverse(chain, settings.predict, settings.variance, out, x_t, t)[0] - x_t


def job(monkeypatch, folder, D=2, T=8, family=None, points=None, gain=0.1):
    """A run and a model of a tiny network with random weights."""
    family, rows = family or Drifting(), Rows(roll(500, D) if points is None else points)
    section = gaussian_family.Model(T=T)
    values = {
        "family": "gaussian", "net": "mlp", "hidden": (8,), "activation": "silu", "time": "fourier",
        "time_features": 4, "odds_input": False, "residual": False, "dropout": 0.0,
    }  # fmt: skip
    config = SimpleNamespace(model=SimpleNamespace(**section.model_dump(), **values))
    monkeypatch.setattr(models, "kind_of", lambda _: SimpleNamespace(dtype=np.dtype(np.float64), elements="numbers"))
    training = SimpleNamespace(seed=3, num_examples=4)
    run = SimpleNamespace(results=folder, train_rows=rows, settings=SimpleNamespace(training=training, data=None))
    built = tiny(config, D, family, family.make_chain(section, rows), gain)
    return run, built


def tiny(config, D, family, chain, gain):
    """models.Model.build for settings that are no whole configuration."""
    from bdiff_np.diffusion import Task
    from bdiff_np.nets.mlp import MLP
    from bdiff_np.params import Params

    names = "hidden", "activation", "time", "time_features", "odds_input", "residual", "dropout"
    chosen = {name: getattr(config.model, name) for name in names}
    net = MLP(Task(family.name, D, D, family.outputs(D, config.model), chain), **chosen)
    params = Params(load_ops("numpy"), net.shapes, net.dtype).fill(net.init(3))
    params.flat += gain * np.random.default_rng(0).standard_normal(params.flat.shape).astype(np.float32)
    return models.Model(config, D, load_ops("numpy"), family, chain, net, params)


def paint(run, model, rows, folder):
    for name, painter in drawn.more(run, model, rows):
        painter(folder / name)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("D", [1, 2, 3])
def test_more(tmp_path, monkeypatch, D):
    monkeypatch.setattr(points_figures, "SAMPLES", 3000)
    run, model = job(monkeypatch, tmp_path, D)
    files = paint(run, model, np.zeros((4, D)), tmp_path)
    flat = {"trajectories.png", "drift_field.png"} if D == 2 else set()
    assert files.keys() == {"density.png", "triptych.png"} | flat
    width, height = {}, {}
    for name in files:
        with Image.open(tmp_path / name) as picture:
            width[name], height[name] = picture.size
            assert np.asarray(picture.convert("L")).min() < 128
    assert width["triptych.png"] > 1200 and height["triptych.png"] > 800 and width["density.png"] > 1000
    assert paint(run, model, np.zeros((4, D)), tmp_path) == files


def test_drift_needs_the_family(tmp_path, monkeypatch):
    run, model = job(monkeypatch, tmp_path, family=gaussian_family.Gaussian())
    if not hasattr(gaussian_family.Gaussian, "drift"):
        assert "drift_field.png" not in dict(drawn.more(run, model, np.zeros((1, 2))))


def test_density_takes_samples_that_are_there(tmp_path, monkeypatch):
    """Those that were drawn already, if they are enough; and else not more steps of the chain than need be."""
    run, model = job(monkeypatch, tmp_path)
    asked = []
    monkeypatch.setattr(points_figures.sample, "draw", lambda *_, **options: asked.append(options) or roll(20_000))
    points_figures.density(tmp_path / "a.png", run=run, model=model, rows=roll(20_000))
    assert not asked
    points_figures.density(tmp_path / "a.png", run=run, model=model, rows=roll(10))
    long = job(monkeypatch, tmp_path, T=5000)[1]
    points_figures.density(tmp_path / "a.png", run=run, model=long, rows=roll(10))
    assert [(options["seed"], options["steps"]) for options in asked] == [(4, None), (4, 250)]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("T, gain", [(1, 0.0), (1, np.nan), (2, 1e3), (15, 1e3), (15, np.nan)])
def test_models_far_off_and_short_chains(tmp_path, monkeypatch, T, gain):
    """An untrained network, one whose outputs overflow, and one of no numbers at all: all pictures are drawn."""
    monkeypatch.setattr(points_figures, "SAMPLES", 100)
    run, model = job(monkeypatch, tmp_path, T=T, points=roll(20), gain=gain)
    assert len(paint(run, model, np.full((1, 2), np.nan), tmp_path)) == 4


def test_names_of_times():
    assert [points_figures._time(t, 40) for t in (0, 4, 7, 20, 40)] == [
        "t = 0",
        "t = T/10",
        "t = 7",
        "t = T/2",
        "t = T",
    ]
    assert [points_figures._time(t, 1) for t in (0, 1)] == ["t = 0", "t = T"]


def test_pictures_draws_more(tmp_path, monkeypatch, capsys):
    """Each on its own: one that fails costs a line, and so does a module that fails to name them."""

    def fails(path):
        raise ValueError("no paint\nat all")

    def more(run, model, rows):
        assert rows.shape == (5, 2)
        yield "bad.png", fails
        yield "good.png", lambda path: path.write_bytes(b"good")
        raise RuntimeError("out of names")

    run, model = job(monkeypatch, tmp_path)
    run.epoch, run.history = 0, SimpleNamespace(looked_at=lambda: ({}, []))
    seen = []
    guest = SimpleNamespace(
        shown=lambda settings: 2, samples=lambda path, rows, settings: seen.append(rows.shape), more=more,
        walked=lambda settings: 7, reverse_trajectory=lambda path, times, states, settings: seen.append(states.shape),
    )  # fmt: skip
    monkeypatch.setattr(pictures, "of_examples", lambda kind: guest)
    monkeypatch.setattr(pictures, "_kl_per_step", lambda *_: None)
    pictures.draw(run, model, SimpleNamespace(), roll(5))
    assert seen == [(9, 7, 2), (2, 2)] and (tmp_path / "good.png").read_bytes() == b"good"
    bad, names = capsys.readouterr().err.splitlines()
    assert bad == f"{tmp_path / 'bad.png'}: not drawn: ValueError: no paint"
    assert names.endswith("more pictures of points: not drawn: RuntimeError: out of names")
    assert pictures.of_examples("points") is guest


def test_the_module_is_found_by_its_kind():
    assert pictures.of_examples("points") is drawn


def test_inputs_and_settings_are_left_alone(tmp_path):
    """Read-only points will do, the user's matplotlib settings survive and do not show, and the same points give the
    same bytes."""
    import matplotlib

    states = film(3, 50)
    states.setflags(write=False)

    def draw():
        drawn.reverse_trajectory(tmp_path / "a.gif", [2, 1, 0], states, None)
        drawn.samples(tmp_path / "a.png", states[-1], None)
        return (tmp_path / "a.gif").read_bytes(), (tmp_path / "a.png").read_bytes()

    plain = draw()
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "savefig.dpi": 40}):
        before = dict(matplotlib.rcParams)
        assert draw() == plain and dict(matplotlib.rcParams) == before
