"""Every picture is written whole, decodes, has the frames and the size it should, and leaves inputs and global state
alone."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from bdiff_np.show import bits_pictures, curves, figure


def at(shape=None):
    """The section `data` of a configuration, as pictures of bits read it."""
    return SimpleNamespace(shape=shape)


def frames_of(path):
    """All frames of a picture as (height, width) grey arrays, and how long each is shown in ms."""
    frames, durations = [], []
    with Image.open(path) as picture:
        for k in range(getattr(picture, "n_frames", 1)):
            picture.seek(k)
            frames.append(np.asarray(picture.convert("L")))
            durations.append(picture.info.get("duration"))
    return frames, durations


def read_cells(frame, n, D, cell_w, cell_h, top, gap=2, margin=16):
    """The bits of a drawn frame, read back from the middle of each cell."""
    y = top + gap + np.arange(n) * (cell_h + gap) + cell_h // 2
    x = margin + gap + np.arange(D) * cell_w + cell_w // 2
    return (frame[np.ix_(y, x)] < 128).astype(np.uint8)


def bits(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 2, shape, dtype=np.uint8)


STEPS = np.arange(1, 501)
LOSS = 2.33 + 12 * np.exp(-STEPS / 50)
VAL = {"val_step": STEPS[::50], "val_bits": LOSS[::50]}


@pytest.mark.parametrize(
    "arguments",
    [
        {"step": STEPS, "loss_bits": LOSS},
        {"step": STEPS, "loss_bits": LOSS, **VAL, "floor_bits": 2.3244, "null_bits": 14.44},
        {"step": STEPS, "loss_bits": LOSS + 4e4 * np.exp(-STEPS / 5), **VAL, "floor_bits": 2.3244},
        {"step": STEPS, "loss_bits": LOSS, "floor_bits": 20.0},  # everything below the floor
        {"step": STEPS, "loss_bits": np.where(STEPS % 7 == 0, np.nan, LOSS), "floor_bits": 2.0},
        {"step": STEPS, "loss_bits": np.full(500, 2.0), "floor_bits": 2.0},
        {"step": [1], "loss_bits": [14.0], "val_step": [1], "val_bits": [14.1], "floor_bits": 2.0},
        {"step": [], "loss_bits": [], "floor_bits": 2.0, "null_bits": 14.44},
        {"step": [], "loss_bits": [], **VAL, "floor_bits": 2.0},
        {"step": [], "loss_bits": []},
    ],
)
def test_loss_curve(tmp_path, arguments):
    path = tmp_path / "loss_curve.png"
    curves.loss_curve(path, **arguments)
    (frame,), _ = frames_of(path)
    assert frame.shape == ((780, 1080) if "floor_bits" in arguments else (570, 1080))
    assert frame.min() < 100 < frame.max()


def test_loss_curve_refuses_lists_of_two_lengths(tmp_path):
    with pytest.raises(ValueError, match="one length"):
        curves.loss_curve(tmp_path / "x.png", [1, 2], [3.0])
    assert not list(tmp_path.iterdir())


def test_loss_axis_is_cut_only_when_the_beginning_hides_the_rest():
    """A start at 14 bits is shown whole; a start at 40,000 is cut, and the end and the rules stay in view."""
    _, top, cut = curves._loss_limits([(STEPS, LOSS)], [2.3244], LOSS)
    assert not cut and top > LOSS[0]
    high = LOSS + 4e4 * np.exp(-STEPS / 5)
    bottom, top, cut = curves._loss_limits([(STEPS, high)], [2.3244, 14.44], high)
    assert cut and bottom < 2.3244 and 14.44 < top < 20


def test_running_mean_keeps_constants_and_lines_and_the_first_value():
    np.testing.assert_allclose(curves._running_mean(np.full(200, 3.0)), 3.0)
    smooth = curves._running_mean(np.arange(200.0))
    np.testing.assert_allclose(smooth[:180], np.arange(180.0))
    assert curves._running_mean(np.zeros(0)).shape == (0,)


@pytest.mark.parametrize("E", [0, 1, 2, 300])
@pytest.mark.parametrize(
    "names", [("train", "other"), ("train", "val", "other"), ("train", "val", "valid_unseen", "other")]
)
def test_validation(tmp_path, E, names):
    path = tmp_path / "validation.png"
    shares = np.random.default_rng(0).dirichlet(np.ones(len(names)), E)
    curves.validation(
        path, np.arange(1, E + 1), {name: shares[:, i] for i, name in enumerate(names)}, best_possible=0.996
    )
    (frame,), _ = frames_of(path)
    assert frame.shape == (570, 1080)


def test_validation_areas_are_the_shares(tmp_path):
    """Half of the axis is blue where half of the samples are rows of train.txt; zeros for val leave no trace."""
    path = tmp_path / "validation.png"
    curves.validation(path, [1], {"train": [0.5], "val": [0.0], "other": [0.5]})
    with Image.open(path) as picture:
        column = np.asarray(picture.convert("RGB"))[:, 300].astype(int)
    blue, pale = ((np.abs(column - colour).sum(1) < 10).sum() for colour in ((0, 114, 178), (220, 220, 220)))
    assert abs(blue - pale) <= 4 and blue > 200


def test_validation_names_the_fault(tmp_path):
    with pytest.raises(ValueError, match="'other'"):
        curves.validation(tmp_path / "x.png", [1, 2], {"train": [1.0, 1.0], "other": [0.0]})


@pytest.mark.parametrize("T", [1, 2, 20, 100, 101, 2000])
def test_kl_per_step(tmp_path, T):
    t = np.arange(1, T + 1)
    kl = np.random.default_rng(0).gamma(2.0, 1e-3, T)
    floor = 0.9 * kl
    floor[-1] = 0.0  # x_T carries nothing
    curves.kl_per_step(tmp_path / "kl.png", t, kl, floor_kl_bits=floor, T=T)
    (frame,), _ = frames_of(tmp_path / "kl.png")
    assert frame.shape == (780, 1080)


def test_kl_per_step_of_some_steps_and_of_zeros(tmp_path):
    curves.kl_per_step(tmp_path / "some.png", [1, 10, 1000], [0.1, 0.01, 0.001], T=2000)
    curves.kl_per_step(tmp_path / "zeros.png", [1, 2, 3], [0.0, 0.0, 0.0])
    with pytest.raises(ValueError, match="one length"):
        curves.kl_per_step(tmp_path / "x.png", [], [])


@pytest.mark.parametrize("odd", [np.inf, -np.inf, np.nan, 1e308, 1e38, 1e12])
@pytest.mark.parametrize("every", [False, True])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_curves_of_values_that_no_axis_can_show(tmp_path, odd, every):
    """A value, or all of them, that is infinite, nan or huge: the picture is drawn all the same, without it if need
    be."""
    y = np.where(every | (STEPS % 50 == 0), odd, LOSS)
    curves.loss_curve(
        tmp_path / "loss.png", STEPS, y, val_step=STEPS, val_bits=y, floor_bits=2.0, null_bits=odd, null_name="null"
    )
    curves.kl_per_step(tmp_path / "kl.png", STEPS, y, floor_kl_bits=LOSS)
    curves.kl_per_step(tmp_path / "few.png", STEPS[:60], y[:60], floor_kl_bits=y[:60])
    curves.validation(tmp_path / "val.png", STEPS, {"train": y, "other": y})
    for name, height in (("loss", 780), ("kl", 780), ("few", 780), ("val", 570)):
        (frame,), _ = frames_of(tmp_path / f"{name}.png")
        assert frame.shape == (height, 1080)


def test_labels_stay_short():
    assert [figure.number(v) for v in (2.3244, 1234.4, 5e7, 1e300)] == ["2.324", "1\u2009234", "5e+07", "1e+300"]


def test_bins_keep_the_sum():
    """The mean of a range times its number of steps is the sum over the range."""
    t, y = np.arange(1.0, 2001.0), np.random.default_rng(0).random(2000)
    centre, mean = curves._bin_mean(t, y, np.ones(2000), 2000.0)
    assert len(mean) == 50
    np.testing.assert_allclose(40 * mean.sum(), y.sum())
    np.testing.assert_allclose(centre, 20.5 + 40 * np.arange(50))


@pytest.mark.parametrize(
    "n, D, shape",
    [
        (1, 1, None),
        (10, 20, None),
        (64, 20, None),
        (3, 784, None),
        (2, 2500, None),
        (10, 784, (28, 28)),
        (7, 784, (28, 28)),
        (1, 6, (2, 3)),
    ],
)
def test_samples(tmp_path, n, D, shape):
    rows = bits(n, D)
    bits_pictures.samples(tmp_path / "a.png", rows, at(shape))
    bits_pictures.samples(tmp_path / "b.png", rows.astype(bool), at(shape), title="Samples")
    (plain,), _ = frames_of(tmp_path / "a.png")
    (titled,), _ = frames_of(tmp_path / "b.png")
    assert titled.shape == (plain.shape[0] + 36, plain.shape[1]) and max(titled.shape) < 1200


def test_a_frame_shows_the_bits(tmp_path):
    """Read back from the middle of its cells, each frame is the state it was given; the lines between cells are neither
    black nor white."""
    states = np.stack([bits(10, 20, seed=k) for k in range(5)])
    bits_pictures.reverse_trajectory(tmp_path / "r.gif", [2000, 1500, 1000, 500, 0], states, at())
    frames, _ = frames_of(tmp_path / "r.gif")
    for frame, state in zip(frames, states, strict=True):
        np.testing.assert_array_equal(read_cells(frame, 10, 20, 24, 24, top=16 + 36), state)
    assert frames[0][16 + 36, 16] == 218


def test_images_are_drawn_pixel_by_pixel(tmp_path):
    rows = bits(4, 784)
    bits_pictures.samples(tmp_path / "a.png", rows, at((28, 28)))
    (frame,), _ = frames_of(tmp_path / "a.png")
    size = 28 * 8
    first = frame[16 + 4 : 16 + 4 + size, 16 + 4 : 16 + 4 + size]
    np.testing.assert_array_equal(first[4::8, 4::8] < 128, rows[0].reshape(28, 28) == 1)


@pytest.mark.parametrize(
    "draw, frame_ms", [(bits_pictures.sample_evolution, 500), (bits_pictures.reverse_trajectory, 100)]
)
@pytest.mark.parametrize("E", [1, 2, 100, 300])
def test_animations(tmp_path, draw, frame_ms, E):
    """At most 100 frames of one size, from the first to the last, the last one held."""
    examples = bits(E, 10, 20)
    draw(tmp_path / "a.gif", np.arange(E), examples, at())
    frames, durations = frames_of(tmp_path / "a.gif")
    assert len(frames) == min(E, 100) and {frame.shape for frame in frames} == {(358, 516)}
    for frame, example in ((frames[0], examples[0]), (frames[-1], examples[-1])):
        np.testing.assert_array_equal(read_cells(frame, 10, 20, 24, 24, top=16 + 36), example)
    if E > 1:
        assert durations[-1] == 3000
    if E >= 100:
        assert set(durations[:-1]) == {frame_ms}
        assert (tmp_path / "a.gif").stat().st_size < 1_000_000


def test_animation_of_images(tmp_path):
    bits_pictures.sample_evolution(tmp_path / "a.gif", [1, 2, 3], bits(3, 10, 784), at((28, 28)))
    frames, durations = frames_of(tmp_path / "a.gif")
    assert len(frames) == 3 and len({frame.shape for frame in frames}) == 1 and durations == [500, 500, 3000]


@pytest.mark.parametrize(
    "titles, rows, shape, words",
    [
        ([1], bits(2, 3, 4), None, "one for each"),
        ([], bits(0, 3, 4), None, "at least one"),
        ([1], bits(1, 3), None, "shape"),
        ([1], bits(1, 3, 0), None, "at least 1"),
        ([1], bits(1, 3, 4), (3, 3), "4 bits"),
    ],
)
def test_animations_name_the_fault(tmp_path, titles, rows, shape, words):
    with pytest.raises(ValueError, match=words):
        bits_pictures.sample_evolution(tmp_path / "a.gif", titles, rows, at(shape))
    assert not list(tmp_path.iterdir())


def test_inputs_and_global_state_are_left_alone(tmp_path):
    """Read-only inputs will do, the user's matplotlib settings survive and do not show, and the same arrays give the
    same bytes."""
    import matplotlib

    def draw(folder):
        folder.mkdir()
        curves.loss_curve(folder / "a.png", *frozen(STEPS, LOSS), floor_bits=2.0)
        curves.validation(
            folder / "b.png", *frozen([1, 2]), {"train": frozen([0.0, 1.0])[0], "other": frozen([1.0, 0.0])[0]}
        )
        curves.kl_per_step(folder / "c.png", *frozen(STEPS, LOSS), floor_kl_bits=frozen(LOSS)[0])
        bits_pictures.sample_evolution(folder / "d.gif", *frozen([1, 2], bits(2, 3, 4)), at())
        bits_pictures.samples(folder / "e.png", *frozen(bits(3, 4)), at())
        return [path.read_bytes() for path in sorted(folder.iterdir())]

    def frozen(*arrays):
        arrays = [np.array(a) for a in arrays]
        for a in arrays:
            a.setflags(write=False)
        return arrays

    plain = draw(tmp_path / "plain")
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "savefig.dpi": 40}):
        before = dict(matplotlib.rcParams)
        assert draw(tmp_path / "loud") == plain
        assert dict(matplotlib.rcParams) == before
    assert len(plain) == 5


def test_loads_matplotlib_late_and_never_pyplot(tmp_path):
    program = """
import sys
from types import SimpleNamespace
from bdiff_np.show import bits_pictures, curves, figure
assert not {"matplotlib", "PIL"} & set(sys.modules)
curves.loss_curve(sys.argv[1] + "/a.png", [1, 2], [3.0, 2.0], floor_bits=1.0)
bits_pictures.samples(sys.argv[1] + "/b.png", [[0, 1]], SimpleNamespace(shape=None))
assert "matplotlib" in sys.modules and "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True)
    assert len(list(tmp_path.iterdir())) == 2
