"""Whether a float net itself is near chance: then a gate against it proves nothing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgevit.data.class_order import ORDERS

CHANCE_SKILL = 0.1
"""Top-1 counts as near chance up to this share of the way from guessing to perfect."""
UNLIKELY = 0.01
"""A result that guessing reaches more often than this does not tell a net from guessing."""
EVIDENCE = 0.05
"""A net that is half the way to perfect must do so badly more seldom than this: few images prove
nothing."""
BETTER_POINTS = 10.0
"""Points of top-1 by which another order of the classes must be better to be believed."""
IMAGES_A_CLASS = 5
"""Images a class, on average, that finding an order by trial needs: with fewer, noise fits too."""

WHAT_TO_CHECK = (
    "Check the weights (trained, not random; the moving average where there is one), the order of "
    "the classes (--labels, --class-order), the normalisation (--mean, --std) and the resize "
    "(--image-size, --resize, --resize-mode). --allow-poor-float goes on all the same"
)


def doubt(predictions: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> str | None:
    """Why a float net's figures cannot be its trainer's, in sentences; None where they may be.

    predictions, labels     int (N,), N at least 1, indices of `classes`
    """
    confusion = np.zeros((len(classes), len(classes)), np.int64)
    np.add.at(confusion, (predictions, labels), 1)
    count, right = int(confusion.sum()), int(np.trace(confusion))
    top1 = 100 * right / count
    start = f"the float net itself is right on {top1:.2f} % of {count} images"
    order = _better_order(confusion, classes)
    if order is not None:
        return f"{start}, but {order}. Training and these images number the classes differently"
    if not _near_chance(right, count, len(classes)):
        return None
    found = _any_order(confusion, classes)
    if found is not None:
        return f"{start}, but {found}. Give --labels, a file of the names in the training's order"
    chance = 100 / len(classes)
    return f"{start}, near the {chance:.2f} % of guessing among {len(classes)}. {WHAT_TO_CHECK}"


def _near_chance(right: int, count: int, classes: int) -> bool:
    """Whether so few right answers are what guessing gives, and more than bad luck."""
    from scipy.stats import binom

    if classes < 2:
        return False
    chance = 1 / classes
    halfway = (1 + chance) / 2
    if binom.cdf(right, count, halfway) >= EVIDENCE:
        return False
    skill = (right / count - chance) / (1 - chance)
    return skill <= CHANCE_SKILL or float(binom.sf(right - 1, count, chance)) > UNLIKELY


def _better_order(confusion: np.ndarray, classes: Sequence[str]) -> str | None:
    """The library's order of the same names under which far more images are right."""
    count, right = confusion.sum(), np.trace(confusion)
    for name, order in ORDERS.items():
        place = {label: i for i, label in enumerate(order(classes))}
        rows = [place[label] for label in classes]
        hits = int(confusion[rows, range(len(classes))].sum())
        if 100 * (hits - right) / count > BETTER_POINTS:
            return (
                f"on {100 * hits / count:.2f} % with the classes in the {name} order "
                f"(--class-order {name})"
            )
    return None


def _any_order(confusion: np.ndarray, classes: Sequence[str]) -> str | None:
    """The best order there is, where there are images enough to believe it."""
    from scipy.optimize import linear_sum_assignment

    count = int(confusion.sum())
    if count < IMAGES_A_CLASS * len(classes) or len(classes) < 3:
        return None
    outputs, labels = linear_sum_assignment(confusion, maximize=True)
    hits = int(confusion[outputs, labels].sum())
    if hits < count / 2:
        return None
    first = ", ".join(str(classes[i]) for i in labels[:8])
    more = ", ..." if len(classes) > 8 else ""
    return (
        f"on {100 * hits / count:.2f} % with the classes in another order, which begins "
        f"{first}{more}"
    )
