"""The accuracy gate: how much a quantized net may lose against float, how much it may differ."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from edgevit.errors import GateFailed, InputError

Z_95 = 1.959964


@dataclass(frozen=True)
class GateResult:
    """Top-1 of two nets on the same images, in percent and percentage points."""

    count: int
    reference_top1: float
    top1: float
    drop: float  # reference_top1 - top1; negative when the quantized net is better
    drop_low: float  # 95 % confidence interval of the drop
    drop_high: float
    agreement: float  # percent of the images on which both predict the same class
    max_drop: float
    min_agreement: float = 0.0  # percent; 0 asks for none

    @property
    def passed(self) -> bool:
        return self.drop <= self.max_drop and self.agreement >= self.min_agreement

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "passed": self.passed}

    def __str__(self) -> str:
        return (
            f"top-1 {self.top1:.2f} % against {self.reference_top1:.2f} % on {self.count} images: "
            f"drop {self.drop:+.2f} points (95 % interval {self.drop_low:+.2f} to "
            f"{self.drop_high:+.2f}), allowed {self.max_drop:.2f}; "
            f"{self.agreement:.2f} % of the predictions agree"
            + (f", at least {self.min_agreement:.2f} % must" if self.min_agreement else "")
        )

    def require(self) -> None:
        """Raises GateFailed, with the figures, when drop or agreement is not as asked."""
        if not self.passed:
            raise GateFailed(f"the accuracy gate failed: {self}")


def gate(
    reference: np.ndarray,
    predictions: np.ndarray,
    labels: np.ndarray,
    max_drop: float,
    min_agreement: float = 0.0,
) -> GateResult:
    """Compare two nets' predicted classes, int (N,), on the same labelled images.

    The interval is for paired proportions: only images on which exactly one of the two is right
    count. It is Wald's with Agresti and Min's half count added to each of those two cells
    (Statistics in Medicine 24, 2005), so that it stays sensible when they are few.
    Raises InputError when the arrays do not match or are empty.
    """
    if not (len(reference) == len(predictions) == len(labels) > 0):
        raise InputError(
            f"the gate needs as many predictions as labels, got {len(reference)}, "
            f"{len(predictions)} and {len(labels)}"
        )
    count = len(labels)
    right, reference_right = predictions == labels, reference == labels
    lost = int(np.sum(reference_right & ~right))
    won = int(np.sum(~reference_right & right))
    b, c, n = lost + 0.5, won + 0.5, count + 2.0
    centre = (b - c) / n
    half_width = Z_95 * math.sqrt(max(b + c - (b - c) ** 2 / n, 0.0)) / n
    return GateResult(
        count=count,
        reference_top1=100.0 * float(reference_right.mean()),
        top1=100.0 * float(right.mean()),
        drop=100.0 * (lost - won) / count,
        drop_low=100.0 * (centre - half_width),
        drop_high=100.0 * (centre + half_width),
        agreement=100.0 * float(np.mean(reference == predictions)),
        max_drop=max_drop,
        min_agreement=min_agreement,
    )
