"""Progress where there is no terminal: lines now and then, and none of short work."""

from __future__ import annotations

import sys
from types import SimpleNamespace

from bdiff_np.runfolder import progress


def test_lines_say_how_far(monkeypatch, capsys):
    """One line each QUIET_SECONDS at most: share done, time left from the rate so far, and the newest note."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with progress.progress(200, "sampling", initial=100) as bar:
        bar.set_postfix_str("epoch 3")
        for _ in range(50):
            now[0] += 0.25
            bar.update()
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines() == [
        "sampling: 60%, about 20 s left; epoch 3",
        "sampling: 71%, about 14 s left; epoch 3",
    ]


def test_short_work_is_silent(capsys):
    with progress.progress(3, "evaluating") as bar:
        for _ in range(3):
            bar.update()
    assert capsys.readouterr() == ("", "")


def test_a_notebook_gets_a_bar(monkeypatch):
    """Where there is no terminal and no need of lines: the kernel of a notebook."""
    shell = type("ZMQInteractiveShell", (), {})()
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    assert progress.in_notebook()
    with progress.progress(3, "training") as bar:
        bar.update(3)
    assert not isinstance(bar, progress.Lines) and bar.n == 3
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: None))  # imported, no notebook
    assert not progress.in_notebook()
