"""The qnn target's contract, over a stand-in of its compiler; tests/npu has the real one."""

from __future__ import annotations

from tests.targets.npu_targets import NpuContract


class TestQnn(NpuContract):
    target = "qnn"
    profiles = ("portable", "asymmetric")
    options = ({}, {"io": "uint8"}, {"io": "float32"})
    run_options = {"runner": "litert"}  # noqa: RUF012
