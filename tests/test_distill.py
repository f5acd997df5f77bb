"""Where a teacher may come from."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from edgevit.errors import InputError
from edgevit.models.checkpoint import load
from edgevit.quantize.distill import load_teacher
from tests.programs import seeded_images, seeded_net


def constant_teacher():
    """A teacher as a user writes it: a function without arguments that returns a callable."""
    return lambda images: images.new_full((len(images), 10), 3.0)


def test_the_float_net_is_the_default_and_is_frozen() -> None:
    net, images = seeded_net(), seeded_images(2, 64)
    teacher = load_teacher(None, seeded_net())
    with torch.no_grad():
        assert torch.allclose(teacher(images), net(images), atol=1e-4)
    assert not any(p.requires_grad for p in teacher.parameters())


def test_a_checkpoint_is_loaded_and_fused(embedded_checkpoint: Path) -> None:
    images = seeded_images(2, 64)
    teacher = load_teacher(str(embedded_checkpoint), seeded_net())
    with torch.no_grad():
        expected = load(embedded_checkpoint).model.eval()(images)
        assert torch.allclose(teacher(images), expected, atol=1e-4)


def test_a_function_of_the_users_is_called() -> None:
    teacher = load_teacher("tests.test_distill:constant_teacher", seeded_net())
    assert torch.equal(teacher(torch.zeros(3, 3, 64, 64)), torch.full((3, 10), 3.0))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere", "neither a checkpoint"),
        ("no.such.module:function", "cannot be imported"),
        ("tests.test_distill:absent", "cannot be imported"),
        ("missing.pth", "missing.pth"),
        ("tests.test_distill:not_a_teacher", "not a callable"),
    ],
)
def test_what_is_no_teacher_is_named(source: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_teacher(source, seeded_net())


def not_a_teacher():
    return 7
