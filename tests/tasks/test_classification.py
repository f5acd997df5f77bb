"""Tasks are found by name; classification trains, measures and gates logits."""

from __future__ import annotations

from typing import get_args

import pytest
import torch

from edgevit.errors import InputError
from edgevit.tasks import Limits, LossWeights, load_task, task_names
from edgevit.tasks.classification import TASK, distillation_loss
from edgevit.tasks.options import TaskName

STUDENT = torch.tensor([[2.0, 1.0], [0.0, 1.0], [3.0, 0.0], [0.0, 2.0]])
TEACHER = torch.tensor([[2.0, 1.0], [1.0, 0.0], [3.0, 0.0], [0.0, 1.0]])
LABELS = torch.tensor([0, 1, 1, 1])


def test_tasks_are_found_by_name() -> None:
    assert task_names() == ["classification", "features"]
    assert set(get_args(TaskName)) == set(task_names())
    assert load_task("classification") is TASK
    with pytest.raises(InputError, match="task 'juggling' is not one of classification"):
        load_task("juggling")


def test_the_nets_first_output_must_have_the_images_classes() -> None:
    TASK.check([(1, 10)], 10)
    TASK.check([(1, 10), (1, 8, 4, 4)], 10)
    for shapes in ([(1, 8, 4, 4), (1, 10)], [(1, 10, 4)]):
        with pytest.raises(InputError, match="first one is the logits"):
            TASK.check(shapes, 10)
    with pytest.raises(InputError, match=r"10 classes, the images have 9.*--labels"):
        TASK.check([(1, 10)], 9)


def test_selection_counts_loss_score_and_agreement() -> None:
    weights = LossWeights(2.0, 1.0, 0.5)
    found = TASK.selection(STUDENT, TEACHER, LABELS, weights)
    assert found["holdout_top1"] == 75.0 and found["holdout_agreement"] == 75.0
    expected = float(distillation_loss(STUDENT, TEACHER, LABELS, 2.0, 1.0, 0.5))
    assert found["holdout_loss"] == expected
    assert float(TASK.loss((STUDENT,), (TEACHER,), LABELS, weights)) == expected
    assert TASK.score(STUDENT, LABELS, TEACHER) == 0.75


def test_the_gate_compares_predicted_classes() -> None:
    outputs = TEACHER.numpy(), STUDENT.numpy(), LABELS.numpy()
    found = TASK.gate(*outputs, Limits(0.0))
    assert (found.reference_top1, found.top1, found.agreement) == (50.0, 75.0, 75.0)
    assert found.passed
    assert TASK.gate(*outputs, Limits(0.0, 75.0)).passed
    assert not TASK.gate(*outputs, Limits(0.0, 75.1)).passed
