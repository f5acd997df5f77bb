"""Which float nets are believed, and what is said of those that are not."""

from __future__ import annotations

import numpy as np
import pytest

from edgevit.data.class_order import timm_order
from edgevit.tasks.doubt import doubt

NUMBERED = sorted(f"class{i}" for i in range(1, 13))
"""As torchvision has them: class1, class10, class11, class12, class2, ..."""


def answers(
    classes: int, accuracy: float, images: int = 400, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Predictions of a net that is right with this probability and guesses otherwise; labels."""
    random = np.random.default_rng(seed)
    labels = np.arange(images) % classes
    guessed = random.integers(0, classes, images)
    return np.where(random.random(images) < accuracy, labels, guessed), labels


@pytest.mark.parametrize("classes", [2, 3, 10, 1000])
@pytest.mark.parametrize("seed", range(5))
def test_guesses_are_not_believed(classes: int, seed: int) -> None:
    found = doubt(*answers(classes, 0.0, seed=seed), [str(i) for i in range(classes)])
    assert found is not None and "guessing" in found and "--allow-poor-float" in found


@pytest.mark.parametrize("classes", [2, 3, 10, 200])
@pytest.mark.parametrize("accuracy", [0.3, 0.6, 1.0])
@pytest.mark.parametrize("seed", range(5))
def test_a_trained_net_is_believed(classes: int, accuracy: float, seed: int) -> None:
    assert (
        doubt(*answers(classes, accuracy, seed=seed), [f"{i:03}" for i in range(classes)]) is None
    )


@pytest.mark.parametrize(
    ("right", "count", "believed"),
    [(0, 1, True), (0, 2, True), (0, 4, False), (2, 4, True), (4, 8, True), (10, 20, False)],
)
def test_few_images_prove_little(right: int, count: int, believed: bool) -> None:
    labels = np.arange(count) % 2
    predictions = np.where(np.arange(count) < right, labels, 1 - labels)
    assert (doubt(predictions, labels, ["no", "yes"]) is None) == believed


def test_a_net_that_always_gives_one_class_is_not_believed() -> None:
    labels = np.arange(100) % 10
    assert "near the 10.00 % of guessing" in str(doubt(np.zeros(100, int), labels, "abcdefghij"))


def test_classes_in_timms_order_are_recognised() -> None:
    """Its train.py numbered class1, class2, ... class12; the folders are numbered by code point."""
    predictions, labels = answers(12, 0.9)
    theirs = timm_order(NUMBERED)
    shown = np.array([theirs.index(NUMBERED[label]) for label in range(12)])[predictions]
    found = doubt(shown, labels, NUMBERED)
    assert found is not None and "--class-order natural" in found
    # And the other way round.
    back = np.array([NUMBERED.index(name) for name in theirs])[predictions]
    found = doubt(back, labels, theirs)
    assert found is not None and "--class-order default" in found


def test_case_is_part_of_the_order() -> None:
    folders = ["Dog", "Emu", "ant", "bee"]
    predictions, labels = answers(4, 0.95)
    shown = np.array([timm_order(folders).index(name) for name in folders])[predictions]
    assert "--class-order natural" in str(doubt(shown, labels, folders))


def test_any_other_order_is_recognised_where_images_are_many() -> None:
    predictions, labels = answers(10, 0.9)
    shuffled = np.random.default_rng(3).permutation(10)
    found = doubt(shuffled[predictions], labels, list("abcdefghij"))
    assert found is not None and "in another order" in found and "--labels" in found
    first = [list("abcdefghij")[list(shuffled).index(i)] for i in range(8)]
    assert f"begins {', '.join(first)}, ..." in found


def test_noise_is_not_taken_for_another_order() -> None:
    for seed in range(20):
        found = doubt(*answers(10, 0.0, images=60, seed=seed), list("abcdefghij"))
        assert found is None or "another order" not in found
