"""The qnn target's contract, over a stand-in of its compiler; tests/npu has the real one."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgevit.errors import InputError
from edgevit.targets.artifact import load_artifact
from tests.targets.npu_targets import NpuContract


class TestQnn(NpuContract):
    target = "qnn"
    profiles = ("portable", "asymmetric")
    options = ({}, {"io": "uint8"}, {"io": "float32"})
    run_options = {"runner": "litert"}  # noqa: RUF012

    @pytest.mark.parametrize("runner", ["htp-emulator", "htp-reference"])
    def test_what_runs_in_float_is_named_where_the_htp_is_emulated(
        self, runner: str, tmp_path: Path
    ) -> None:
        self.compile(self.norm_program("portable"), tmp_path / "out")
        artifact = load_artifact(tmp_path / "out")
        with pytest.raises(InputError, match="n1.layer_norm run in float.*--runner litert"):
            self.loaded.open_runner(artifact, runner=runner)
