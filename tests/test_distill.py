"""Where a teacher may come from."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from edgevit.errors import InputError
from edgevit.models.checkpoint import load
from edgevit.quantize.distill import check_teacher, load_teacher, teacher_key
from edgevit.tasks import load_task
from tests.programs import seeded_images, seeded_net
from tests.random_nets import random_net
from tests.saved_nets import STATE


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


@pytest.mark.parametrize("name", ["teacher.ckpt", "teacher.bin", "teacher", "a:b"])
def test_a_checkpoint_of_any_name_is_a_teacher(tmp_path: Path, name: str) -> None:
    torch.save({"model": STATE}, tmp_path / name)
    for source in (str(tmp_path / name), tmp_path / name):
        assert load_teacher(source, seeded_net()).state_dict()["head.weight"].shape == (7, 320)


IMAGE, SHAPES, KEPT = (3, 64, 64), [(1, 10)], load_task("classification").kept


def fails(images):
    raise RuntimeError("it wants 224 pixels\nand says so at length")


@pytest.mark.parametrize(
    ("teacher", "message"),
    [
        (lambda x: x.new_zeros(len(x), 1000), "has 1000 classes, the student has 10"),
        (fails, r"fails on an image of 3×64×64, .*: it wants 224 pixels$"),
        (lambda x: x.new_zeros(len(x), 10, 2, 2), r"its output has the shape \(10, 2, 2\)"),
        (lambda x: None, "fails on an image"),
    ],
)
def test_a_teacher_that_cannot_teach_is_refused(teacher, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_teacher(teacher, IMAGE, SHAPES, KEPT)


def test_a_teacher_that_gives_what_the_student_does_is_fine() -> None:
    check_teacher(constant_teacher(), IMAGE, SHAPES, KEPT)
    logits_alone = constant_teacher()
    check_teacher(logits_alone, IMAGE, [(1, 10), (1, 384)], KEPT)


def test_a_teacher_is_known_by_its_weights_and_not_by_its_name(tmp_path: Path) -> None:
    def key(seed: int) -> str:
        path = tmp_path / "teacher.pth"
        torch.save(random_net(num_classes=3, seed=seed).state_dict(), path)
        return teacher_key(str(path), load_teacher(str(path), seeded_net()))

    assert key(0) == key(0) != key(1)
    function = "tests.test_distill:constant_teacher"
    assert teacher_key(function, load_teacher(function, seeded_net())) == function
    assert teacher_key(None, seeded_net()) == "the float net"
