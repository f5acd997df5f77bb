"""Core ML packages for tests: converted once a session, and opened to be changed."""

from __future__ import annotations

import struct
from typing import Any

from edgevit.program import Program
from edgevit.targets.coreml import Coreml
from edgevit.targets.coreml.options import CoremlOptions
from edgevit.targets.coreml.package import SPEC_NAME, WEIGHTS_NAME
from edgevit.targets.coreml.toolkit import coremltools
from tests.programs import make_program
from tests.target_contract import WRITE, _written


def converted(program: Program, options: CoremlOptions | None = None) -> dict[str, bytes]:
    """A program's package. A conversion takes seconds: one is made for each program and options."""
    WRITE.setdefault(Coreml, Coreml.write)
    return _written(Coreml, program, options or CoremlOptions())  # type: ignore[return-value]


def files_of(profile: str = "portable", options: CoremlOptions | None = None) -> dict[str, bytes]:
    """The small program's package; the same arguments give the same object."""
    return converted(make_program(profile=profile), options)


class Editor:
    """A package's specification and weights, opened to be changed behind the audit's back."""

    def __init__(self, files: dict[str, bytes]) -> None:
        coremltools()
        from coremltools import proto

        self.files = dict(files)
        self.spec = proto.Model_pb2.Model()
        self.spec.ParseFromString(files[SPEC_NAME])
        (block,) = self.spec.mlProgram.functions["main"].block_specializations.values()
        self.operations = block.operations
        self.makers = {out.name: op for op in block.operations for out in op.outputs}

    def of_kind(self, kind: str) -> list[Any]:
        return [op for op in self.operations if op.type == kind]

    def constant(self, op: Any, argument: str) -> Any:
        """The Value of a constant argument: a constexpr's own, or a const operation's."""
        if argument in op.attributes:
            return op.attributes[argument]
        (binding,) = op.inputs[argument].arguments
        return self.makers[binding.name].attributes["val"]

    def change(self, op: Any, argument: str) -> None:
        """The lowest bit or so of a constant's first value, wherever it is stored."""
        value = self.constant(op, argument)
        if value.WhichOneof("value") == "immediateValue":
            tensor = value.immediateValue.tensor
            if tensor.WhichOneof("value") == "floats":
                tensor.floats.values[0] *= 1.001
            else:
                first, *rest = tensor.bytes.values
                tensor.bytes.values = bytes([first ^ 1, *rest])
            return
        # The blob's header names where its data starts.
        offset = value.blobFileValue.offset
        data = bytearray(self.files[WEIGHTS_NAME])
        sentinel, _, _, start = struct.unpack_from("<IIQQ", data, offset)
        assert sentinel == 0xDEADBEEF
        data[start] ^= 1
        self.files[WEIGHTS_NAME] = bytes(data)

    def text(self, op: Any, argument: str, value: str) -> None:
        """Another text for a constant."""
        self.constant(op, argument).immediateValue.tensor.strings.values[:] = [value]

    def numbers(self, op: Any, argument: str) -> Any:
        """The values of a constant of integers, booleans or floats that is no blob, to be set."""
        tensor = self.constant(op, argument).immediateValue.tensor
        return getattr(tensor, tensor.WhichOneof("value")).values

    def done(self) -> dict[str, bytes]:
        return {**self.files, SPEC_NAME: self.spec.SerializeToString(deterministic=True)}
