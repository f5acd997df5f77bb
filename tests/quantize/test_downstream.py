"""A score of what is built on features: reported for every net, and gated."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import edgevit
from edgevit.errors import GateFailed, InputError
from edgevit.quantize.downstream import Batch

SIDE = 32
CLASSES = ["dark", "bright"]


class Encoder(nn.Module):
    """Two maps by name, of random weights."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fine = nn.Conv2d(3, 8, 3, stride=4, padding=1)
        self.coarse = nn.Conv2d(8, 12, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        fine = torch.relu(self.fine(x))
        return {"fine": fine, "coarse": torch.relu(self.coarse(fine))}


def pairs(count: int, seed: int) -> list[tuple[np.ndarray, int]]:
    """Noise, brighter for one class."""
    random = np.random.default_rng(seed)
    return [
        (random.integers(100 * (i % 2), 156 + 100 * (i % 2), (SIDE, SIDE, 3)).astype(np.uint8),
         i % 2)
        for i in range(count)
    ]  # fmt: skip


def sources() -> tuple[edgevit.ImageSource, edgevit.ImageSource]:
    train = edgevit.from_sequence(pairs(40, 1), size=SIDE, classes=CLASSES)
    return train, edgevit.from_sequence(pairs(36, 2), like=train)


class Threshold:
    """A classifier on the maps: the classes' means of the float net's, found in the first call."""

    def __init__(self) -> None:
        self.edge: float | None = None
        self.seen: list[tuple[list[str], tuple[int, ...], list[int]]] = []

    def __call__(self, batches: Iterable[Batch]) -> float:
        values, labels = [], []
        for maps, truth in batches:
            self.seen.append((list(maps), maps["coarse"].shape, truth.tolist()))
            values += maps["fine"].mean((1, 2, 3)).tolist()
            labels += truth.tolist()
        found, truth = np.array(values), np.array(labels)
        if self.edge is None:
            self.edge = float(found[truth == 0].mean() + found[truth == 1].mean()) / 2
            self.sign = found[truth == 1].mean() > found[truth == 0].mean()
        return float((((found > self.edge) == self.sign) == (truth == 1)).mean())


def quantize(downstream: Any, **changed: Any) -> Any:
    train, report = sources()
    given: dict[str, Any] = {
        "task": "features", "epochs": 0, "calibration_images": 16, "min_sqnr": -10,
        "min_cosine": -1, "downstream": downstream,
    }  # fmt: skip
    return edgevit.quantize(Encoder().eval(), train, report, **{**given, **changed})


def test_every_net_is_scored_on_the_reported_images() -> None:
    scorer = Threshold()
    result = quantize(scorer)
    names = {f"{net}_downstream" for net in ("float", "ptq", "program")}
    assert names <= set(result.metrics)
    assert all(result.metrics[name] > 0.9 for name in names)
    recorded = {metric.name: metric for metric in result.program.info.metrics}
    assert recorded["program_downstream"].count == 36
    assert {(tuple(keys), shape[1:]) for keys, shape, _ in scorer.seen} == {
        (("fine", "coarse"), (12, 4, 4))
    }
    labels = [label for _, _, truth in scorer.seen for label in truth]
    assert labels == [i % 2 for i in range(36)] * 3
    assert "downstream score" in str(result.gate) and result.gate.downstream.passed
    assert result.gate.to_json()["downstream"]["max_drop"] == 0.5
    assert result.program.info.labels == ()


def test_a_drop_fails_the_gate_and_only_the_limit_decides() -> None:
    scores = [0.9, 0.8, 0.85]
    with pytest.raises(GateFailed, match=r"85.00 % against 90.00 %: drop \+5.00 points") as error:
        quantize(lambda batches: (list(batches), scores.pop(0))[1], max_drop=4.9)
    assert error.value.result.metrics["ptq_downstream"] == 0.8
    scores = [0.9, 0.8, 0.85]
    result = quantize(lambda batches: scores.pop(0), max_drop=5.1)
    assert result.gate.downstream.drop == pytest.approx(5)


@pytest.mark.parametrize(
    ("downstream", "changed", "message"),
    [
        (lambda batches: 1.5, {}, "gave 1.5 for float; a score is from 0 to 1"),
        (lambda batches: float("nan"), {}, "gave nan for float"),
        (lambda batches: None, {}, "fails on the outputs of float"),
        ("module:function", {}, "downstream= is a str, not a function"),
        (lambda batches: 1.0, {"task": "classification"}, 'needs task="features"'),
    ],
)
def test_what_is_no_score_is_refused(downstream: Any, changed: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        quantize(downstream, **changed)


def test_images_without_labels_are_refused() -> None:
    images = [picture for picture, _ in pairs(30, 1)]
    source = edgevit.from_sequence(images, size=SIDE, classes=())
    with pytest.raises(InputError, match=r"the training images have none: give \(image, label\)"):
        edgevit.quantize(
            Encoder().eval(), source, task="features", epochs=0, downstream=lambda batches: 1.0
        )
