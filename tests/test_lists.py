"""Names that stand in two places, because each place must be readable on its own, are the same in both."""

from __future__ import annotations

import dataclasses
from typing import get_args

import pytest

from bdiff_np.backends import numpy_ops
from bdiff_np.config import schema
from bdiff_np.data import generators
from bdiff_np.data.bits import RuleSettings
from bdiff_np.diffusion import bernoulli


def choices(field: str) -> set[str]:
    return set(get_args(schema().sections["model"].model_fields[field].annotation))


def test_schedules():
    """Every schedule of the family can be configured, and no other."""
    assert choices("schedule") == set(bernoulli.SCHEDULES)


def test_activations():
    """Every activation of the back end can be configured, and no other."""
    assert choices("activation") == set(numpy_ops.ACTIVATIONS) == set(numpy_ops._ACTIVATION)


def test_rules():
    """Every rule can be configured, with just its own parameters."""
    schemas = {
        schema.model_fields["name"].default: set(schema.model_fields) - {"name"} for schema in get_args(RuleSettings)
    }
    assert schemas == {
        name: {field.name for field in dataclasses.fields(rule)} for name, rule in generators.RULES.items()
    }


@pytest.mark.parametrize("pi", [1e-9, 1 - 1e-9])
def test_every_stationary_law_that_can_be_configured_makes_a_chain(pi):
    schema().sections["model"](pi=pi)
    bernoulli.make_chain("paper", 3, pi)
