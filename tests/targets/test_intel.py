"""The intel target's contract, over a stand-in of its compiler."""

from __future__ import annotations

from tests.targets.npu_targets import NpuContract


class TestIntel(NpuContract):
    target = "intel"
