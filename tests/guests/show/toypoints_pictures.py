"""Pictures of the toy's points: how many there are, as grey squares."""

from __future__ import annotations

from PIL import Image


def shown(settings):
    return 5


def samples(path, rows, settings):
    Image.new("L", (len(rows), 1)).save(path)


def sample_evolution(path, epochs, examples, settings):
    Image.new("L", (len(epochs), 1)).save(path)


def reverse_trajectory(path, times, states, settings):
    Image.new("L", (len(times), 1)).save(path)
