"""The accuracy gate against counts worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from edgevit.errors import GateFailed, InputError
from edgevit.tasks.gate import gate


def predictions(count: int, right: set[int]) -> np.ndarray:
    return np.array([0 if i in right else 1 for i in range(count)])


def test_drop_interval_and_agreement_by_hand() -> None:
    labels = np.zeros(1000, int)
    reference = predictions(1000, set(range(900)))
    found = predictions(1000, set(range(20, 910)))  # 20 lost, 10 won
    result = gate(reference, found, labels, 1.0)
    assert result.reference_top1 == pytest.approx(90.0)
    assert result.top1 == pytest.approx(89.0)
    assert result.drop == pytest.approx(1.0) and result.passed
    assert result.agreement == pytest.approx(97.0)
    # b = 20.5, c = 10.5, n = 1002: (10 ± 1.96 sqrt(31 - 100 / 1002)) / 1002
    assert result.drop_low == pytest.approx(-0.0894, abs=1e-3)
    assert result.drop_high == pytest.approx(2.0854, abs=1e-3)


def test_the_gate_fails_with_its_figures() -> None:
    labels = np.zeros(100, int)
    result = gate(predictions(100, set(range(100))), predictions(100, set(range(99))), labels, 0.5)
    assert not result.passed
    with pytest.raises(GateFailed, match=r"99.00 % against 100.00 % on 100 images.*\+1.00 points"):
        result.require()
    assert GateFailed.exit_code == 3


def test_agreement_may_be_asked_for_too() -> None:
    """A net that loses as much as it wins drops nothing, and agrees less."""
    labels = np.zeros(100, int)
    both = predictions(100, set(range(50))), predictions(100, set(range(2, 52)))
    assert gate(*both, labels, 0.0).passed and "must" not in str(gate(*both, labels, 0.0))
    assert gate(*both, labels, 0.0, 96.0).passed
    failed = gate(*both, labels, 0.0, 96.5)
    assert not failed.passed and failed.to_json()["min_agreement"] == 96.5
    with pytest.raises(GateFailed, match=r"96.00 % of the predictions agree, at least 96.50 % mus"):
        failed.require()


def test_a_better_net_has_a_negative_drop_and_passes() -> None:
    labels = np.zeros(10, int)
    result = gate(predictions(10, {1}), predictions(10, {1, 2}), labels, 0.0)
    assert result.drop == pytest.approx(-10.0) and result.passed


def test_arrays_that_do_not_match_are_refused() -> None:
    with pytest.raises(InputError, match="as many predictions as labels"):
        gate(np.zeros(2), np.zeros(3), np.zeros(3), 0.5)
    with pytest.raises(InputError, match="as many predictions as labels"):
        gate(np.zeros(0), np.zeros(0), np.zeros(0), 0.5)
