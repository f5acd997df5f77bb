"""Features: what is kept of an output, what is trained, how two nets are compared."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgevit.errors import GateFailed
from edgevit.tasks import Limits, LossWeights
from edgevit.tasks.features import MAX_DB, SAMPLES, TASK

WEIGHTS = LossWeights(2.0, 1.0, 0.0)
NONE = torch.zeros(4, dtype=torch.int64)


def maps(seed: int) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(4, 8, 24, 24, generator=generator),
        torch.randn(4, 16, 3, 5, generator=generator),
        torch.randn(4, 7, generator=generator),
    )


def kept(outputs: tuple[torch.Tensor, ...]) -> np.ndarray:
    return TASK.kept(outputs).numpy()


def test_every_output_gives_as_many_samples_spread_over_all_of_it() -> None:
    outputs = maps(0)
    found = TASK.kept(outputs)
    assert found.shape == (4, 3 * SAMPLES) and found.dtype == torch.float32
    first, second, third = found.split(SAMPLES, 1)
    flat = outputs[0].flatten(1)
    places = torch.arange(SAMPLES) * flat.shape[1] // SAMPLES
    assert torch.equal(first, flat[:, places]) and places[-1] > 0.99 * flat.shape[1]
    for small, samples in ((outputs[1], second), (outputs[2], third)):  # all of its values
        assert set(small[0].flatten().tolist()) == set(samples[0].tolist())


def test_the_loss_is_each_outputs_noise_as_a_share_of_its_power() -> None:
    teacher = maps(0)
    noise = 0.1
    student = tuple(values * (1 + noise) for values in teacher)
    found = float(TASK.loss(student, teacher, NONE, WEIGHTS))
    assert found == pytest.approx(3 * noise**2, rel=1e-4)
    assert float(TASK.loss(teacher, teacher, NONE, WEIGHTS)) == 0
    assert float(TASK.loss(student[0], teacher[0], NONE, WEIGHTS)) == pytest.approx(noise**2)


def test_the_gate_speaks_of_every_output() -> None:
    reference = kept(maps(0))
    worse = tuple(v + 0.5 * w for v, w in zip(maps(0), maps(1)))
    found = TASK.gate(
        reference, kept((maps(0)[0], *worse[1:])), NONE.numpy(), Limits(0, 0, 10, 0.9)
    )
    first, second, third = found.outputs
    assert (first.sqnr_db, first.cosine) == (MAX_DB, pytest.approx(1))
    assert second.sqnr_db < 10 and third.sqnr_db < 10 and second.cosine < 0.98
    assert not found.passed and found.agreement == 0
    with pytest.raises(GateFailed, match=r"output1: SQNR \d\.\d dB, cosine 0\.\d{4}.*10\.0 dB"):
        found.require()
    same = TASK.gate(reference, reference, NONE.numpy(), Limits(0, 100, 10, 0.9))
    assert same.passed and same.agreement == 100
    same.require()
    loose = TASK.gate(reference, kept(worse), NONE.numpy(), Limits(0, 0, 0, 0.5))
    assert loose.passed
    assert not TASK.gate(reference, kept(worse), NONE.numpy(), Limits(0, 1, 0, 0.5)).passed


def test_selection_has_the_loss_and_the_share_of_images_that_are_alike() -> None:
    teacher = TASK.kept(maps(0))
    student = teacher.clone()
    student[0] += torch.randn(student.shape[1])
    found = TASK.selection(student, teacher, NONE, WEIGHTS)
    assert found["holdout_agreement"] == 75 and 0 < found["holdout_cosine"] < 1
    assert found["holdout_loss"] > 0
    assert TASK.selection(teacher, teacher, NONE, WEIGHTS)["holdout_loss"] == 0


def test_an_output_that_never_changes_is_doubted() -> None:
    outputs = maps(0)
    assert TASK.doubt(TASK.kept(outputs), NONE, ()) is None
    dead = (outputs[0], torch.ones(4, 16, 3, 5), outputs[2])
    assert "output1 of the float net is the same for all 4 images" in str(
        TASK.doubt(TASK.kept(dead), NONE, ())
    )
