"""Pictures of rows of bits, PNG and GIF: whole pixels drawn with pillow, so that a cell is never blurred.

The same functions for another kind of data stand in show/<kind>_pictures.py. matplotlib, for its letters, and pillow
are imported inside the functions: both are slow to load. A picture is made in memory first and then written whole.
"""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from bdiff_np.runfolder.files import write_own

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_FRAMES = 100
FRAME_MS, LAST_FRAME_MS = 500, 3000
BOARD_WIDTH, BOARD_HEIGHT, MAX_LINE = 640, 480, 1024  # pixels aimed at; bits in a line before a row is wrapped
GREYS = 8  # levels of a GIF: black, white, the lines, and smooth edges of the letters
ONE, ZERO, LINE = 0, 7, 6  # levels of a 1, of a 0 and of whatever separates cells


def shown(settings: Any) -> int:
    """How many samples their picture shows; settings : section `data`"""
    return 64 if settings.shape else 20


def samples(path: Path | str, rows: ArrayLike, settings: Any, *, title: str | None = None) -> None:
    """Draw rows of bits as a still picture (PNG), black for 1.

    Parameters
    ----------
    rows : (n, D) of 0 and 1
    settings : section `data`; its shape (h, w) with h w = D: draw each row as an image of that shape, side by side;
        otherwise, shape being None, one row of bits below the other
    title : a line above the picture

    Raises
    ------
    ValueError : not (n, D) with n, D >= 1, or a shape that does not hold D bits.
    """
    rows = np.asarray(rows)
    picture = _frames(rows[None], [title or ""], settings.shape)[0]
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", dpi=(150, 150))
    write_own(path, buffer.getvalue())


def sample_evolution(path: Path | str, epochs: ArrayLike, examples: ArrayLike, settings: Any) -> None:
    """Animate (GIF, 2 frames a second) how the same few samples change over the epochs. The last frame is held for
    three seconds.

    Parameters
    ----------
    epochs : (E,) int, E >= 1. Of more than 100 epochs, 100 are shown, evenly spread from the first to the last.
    examples : (E, n, D) of 0 and 1, made after each epoch from the same noise
    settings : see `samples`

    Raises
    ------
    ValueError : as `samples`, or as many epochs as examples are not there.
    """
    _animate(path, [f"Epoch: {epoch}" for epoch in np.asarray(epochs).tolist()], examples, settings.shape, FRAME_MS)


def reverse_trajectory(path: Path | str, times: ArrayLike, states: ArrayLike, settings: Any) -> None:
    """Animate (GIF) one reverse pass, from noise to clean rows, in about ten seconds. The last frame is held for three
    more.

    Parameters
    ----------
    times : (K,) int, K >= 1, decreasing from T to 0: the time of each state. Of more than 100, 100 are shown, evenly
        spread.
    states : (K, n, D) of 0 and 1
    settings : see `samples`

    Raises
    ------
    ValueError : as `samples`, or as many times as states are not there.
    """
    titles = [f"t = {time}" for time in np.asarray(times).tolist()]
    _animate(path, titles, states, settings.shape, min(FRAME_MS, 10000 // min(MAX_FRAMES, max(1, len(titles)))))


def _animate(
    path: Path | str, titles: list[str], rows: ArrayLike, shape: tuple[int, int] | None, frame_ms: int
) -> None:
    rows = np.asarray(rows)
    if not len(titles) or len(titles) != len(rows):
        raise ValueError(
            f"{len(titles)} titles for {len(rows)} frames: one for each, and at least one frame, are needed"
        )
    chosen = np.unique(np.linspace(0, len(titles) - 1, min(MAX_FRAMES, len(titles))).round().astype(int))
    first, *rest = _frames(rows[chosen], [titles[i] for i in chosen], shape)
    duration = [frame_ms] * len(rest) + [LAST_FRAME_MS]
    buffer = io.BytesIO()
    first.save(buffer, format="GIF", save_all=True, append_images=rest, duration=duration, loop=0, optimize=False)
    write_own(path, buffer.getvalue())


def _frames(rows: np.ndarray, titles: list[str], shape: tuple[int, int] | None) -> list[Image]:
    """(F, n, D) bits and F titles to F pictures of one size, in GREYS levels of grey."""
    import matplotlib
    from PIL import Image, ImageDraw, ImageFont

    if rows.ndim != 3 or 0 in rows.shape:
        raise ValueError(f"rows of bits must have shape (n, D) with n and D at least 1, not {rows.shape[1:]}")
    n, D = rows.shape[1:]
    if shape is not None and shape[0] * shape[1] != D:
        raise ValueError(f"an image of {shape[0]} x {shape[1]} does not hold the {D} bits of a row")
    fonts = Path(matplotlib.get_data_path(), "fonts", "ttf")
    title_font, note_font = (
        ImageFont.truetype(str(fonts / f"DejaVuSans{bold}.ttf"), size) for bold, size in (("-Bold", 22), ("", 15))
    )
    bits = f"{D} bit{'s' * (D > 1)}" if shape is None else f"{shape[0]} × {shape[1]} bits"
    note = f"{n} row{'s' * (n > 1)} of {bits}, black = 1"

    boards = [_board(frame, shape) for frame in rows]
    height, width = boards[0].shape
    margin, head, foot = 16, 36 if any(titles) else 0, 28
    text_width = max(note_font.getlength(note), *(title_font.getlength(title) for title in titles))
    full = int(max(width, text_width)) + 2 * margin, height + head + foot + 2 * margin
    palette = [grey for level in range(GREYS) for grey in [255 * level // (GREYS - 1)] * 3]
    pictures = []
    for board, title in zip(boards, titles, strict=True):
        page = Image.new("L", full, 255)
        pen = ImageDraw.Draw(page)
        pen.text((margin, margin + 22), title, fill=0, font=title_font, anchor="ls")
        pen.text((margin, margin + head + height + 22), note, fill=90, font=note_font, anchor="ls")
        levels = np.rint(np.asarray(page) * ((GREYS - 1) / 255)).astype(np.uint8)
        levels[margin + head : margin + head + height, margin : margin + width] = board
        picture = Image.frombytes("P", full, levels.tobytes())
        picture.putpalette(palette)
        pictures.append(picture)
    return pictures


def _board(rows: np.ndarray, shape: tuple[int, int] | None) -> np.ndarray:
    """(n, D) bits to a (height, width) uint8 array of levels: one tile a row, each bit a rectangle of whole pixels."""
    n, D = rows.shape
    if shape is None:
        lines = -(-D // MAX_LINE)
        tile_h, tile_w, columns = lines, -(-D // lines), 1
        cell_h = max(1, min(24, BOARD_HEIGHT // (n * lines)))
        cell_w = max(1, min(24, BOARD_WIDTH // tile_w, 2 * cell_h))
        cell_h = min(cell_h, max(12, cell_w))
        gap = 2 if cell_h >= 4 else 1
    else:
        tile_h, tile_w = shape

        def ugliness(c: int) -> float:  # far from 3:2, and places left empty
            return abs(math.log(c * tile_w / (-(-n // c) * tile_h) / 1.5)) + 3 * (-n % c) / n + 0.3 * (n % c > 0)

        columns = min(range(1, n + 1), key=ugliness)
        cell_h = cell_w = max(
            1, min(24, BOARD_WIDTH // (columns * tile_w), BOARD_HEIGHT // (-(-n // columns) * tile_h))
        )
        gap = 4
    across = -(-n // columns)

    levels = np.full((across * columns, tile_h * tile_w), LINE, dtype=np.uint8)
    levels[:n, :D] = np.where(rows, ONE, ZERO)
    tiles = levels.reshape(-1, tile_h, tile_w).repeat(cell_h, axis=1).repeat(cell_w, axis=2)
    if shape is None and cell_w >= 4:
        tiles[:, :, cell_w - 1 : -1 : cell_w] = LINE
    board = np.full(
        (across * (tile_h * cell_h + gap) + gap, columns * (tile_w * cell_w + gap) + gap), LINE, dtype=np.uint8
    )
    for i, tile in enumerate(tiles):
        y, x = gap + i // columns * (tile_h * cell_h + gap), gap + i % columns * (tile_w * cell_w + gap)
        board[y : y + tile_h * cell_h, x : x + tile_w * cell_w] = tile
    return board
