"""What every section of config.yaml is built of. The settings themselves stand in the module that they describe.

A family, a net, a kind of data and the optimiser each bring a class of settings; config/ puts them together. A field's
type, limits and default stand in its line, its meaning and unit in the docstring below it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

MOST = 2**31 - 1  # of anything that is counted: above what a machine does, below where products leave 64 bits
Count = Annotated[int, Field(ge=1, le=MOST)]
NAME = r"^[a-z][a-z0-9_]*$"
Name = Annotated[str, Field(pattern=NAME)]  # of a Python file; never a path
Path = tuple[str, str]  # section and field
# the fields that take part, the one to blame first, and the reason
Disagreements = Iterator[tuple[tuple[Path, ...], str]]


class Settings(BaseModel):
    """Some settings of one section; a section's class inherits from all of its owners' classes."""

    # strict: an int field refuses true, 3.0 and "3"; a float field takes an int. Lists become tuples only where a field
    # says strict=False.
    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    @classmethod
    def disagreements(cls, model, training, data) -> Disagreements:
        """Faults of fields that are right on their own. Arguments: the whole sections, all owners' fields in them."""
        yield from ()
