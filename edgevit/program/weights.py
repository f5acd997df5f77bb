"""A net whose weights alone are int8: what `edgevit compile --weights-only` compiles.

Values between its operations are real numbers, so nothing is calibrated and no data is needed. How
an artifact computes them is its runtime's: TFLite quantizes an operation's input as it runs, by the
range it then has; Core ML computes in fp16.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, NoReturn

from edgevit.choices import WEIGHTS_ONLY
from edgevit.errors import InputError
from edgevit.graph import Graph
from edgevit.graph.weights import check_weights_form, weights_form
from edgevit.program.info import ProgramInfo, Reference
from edgevit.program.program import Program

if TYPE_CHECKING:
    from edgevit.graph.float_run import FloatExecutor


class WeightsProgram(Program):
    """A program without activation quantizers; `run` computes it in float32.

    It is not kept as a file: it is made of a checkpoint or of an .evq whenever it is compiled, and
    file_name and sha256 are that file's.
    """

    @classmethod
    def of(cls, program: Program) -> WeightsProgram:
        """A quantized program's int8 weights without its activation quantizers."""
        if isinstance(program, WeightsProgram):
            return program
        info = replace(program.info, profile=WEIGHTS_ONLY)
        graph = weights_form(program.graph())
        names = {"file_name": program.file_name, "sha256": program.sha256}
        return cls(graph, info, program.reference, **names)

    def _check(self, graph: Graph, info: ProgramInfo) -> None:
        if info.profile != WEIGHTS_ONLY:
            raise InputError(f"profile {info.profile!r} is not {WEIGHTS_ONLY}")
        check_weights_form(graph)

    @cached_property
    def _executor(self) -> FloatExecutor:
        from edgevit.graph.float_run import FloatExecutor

        return FloatExecutor(self._graph)

    def with_info(self, info: ProgramInfo, reference: Reference | None = None) -> WeightsProgram:
        return WeightsProgram(
            self._graph, info, reference, file_name=self.file_name, sha256=self.sha256
        )

    def to_bytes(self) -> NoReturn:
        raise InputError(
            "a net whose weights alone are int8 is not kept as a program file: compile it"
        )
