"""What commands are made of, those of cli.py and those that kinds of data bring. Light, so that help comes at once."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path

import click

from bdiff_np import streams
from bdiff_np.errors import SEEDS, InputError

RUN = click.Path(path_type=Path)


def said(text: str) -> str:
    """The text with the name that this program was started by: `bdiff` once it is installed."""
    return text.replace("python cli.py", "bdiff") if Path(sys.argv[0]).stem == "bdiff" else text


class Command(click.Command):
    """A command whose help names the program as it was started."""

    def get_help(self, ctx):
        return said(super().get_help(ctx))


class Fault(click.ClickException):
    """A sentence without a traceback."""

    exit_code = 2

    def show(self, file=None) -> None:
        click.echo(said(self.message), err=True)


class Commands(click.Group):
    """A group whose commands may raise InputError."""

    command_class = Command

    def get_help(self, ctx):
        return said(super().get_help(ctx))

    def main(self, *args, **extra):
        with streams.guarded():
            return super().main(*args, **extra)

    def invoke(self, ctx):
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # of a file such as /dev/stdout
            sys.exit(streams.READER_LEFT)
        except InputError as fault:
            raise Fault(str(fault)) from None
        except NotImplementedError as fault:
            if fault.__traceback__ is None or str(fault):
                raise
            frame = traceback.extract_tb(fault.__traceback__)[-1]
            raise Fault(f"`{frame.name}` is not written; {frame.filename}:{frame.lineno} says what it does") from None
        except KeyboardInterrupt:
            click.echo("\ninterrupted", err=True)
            sys.exit(130)
        except PermissionError as fault:
            if fault.filename is None:
                raise
            raise Fault(f"{fault.filename}: {fault.strerror}; allow it, or name another place") from None
        except MemoryError as fault:
            raise Fault(
                f"the memory is full: {str(fault).rstrip('.') or 'an array does not fit'}; take smaller batches or "
                "narrower layers"
            ) from None


def seed_option(default: int | None = 0):
    text = (
        f"Seed of the random words; the same seed gives the same output.{'' if default is None else '  [default: 0]'}"
    )
    return click.option("--seed", type=click.IntRange(0, SEEDS - 1), default=default, help=text)
