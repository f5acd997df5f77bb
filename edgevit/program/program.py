"""The program object, and how one is made."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

import edgevit
from edgevit.errors import InputError
from edgevit.files import atomic_path, read_file
from edgevit.graph import Graph, check_quantized, quantize_graph
from edgevit.ops import How, Quantizer
from edgevit.program import evq
from edgevit.program.info import ProgramInfo, Reference

if TYPE_CHECKING:
    import torch

RUN_CHUNK_IMAGES = 256
"""The most images that run at once."""
CHUNK_VALUES = 6 * 2**20
"""Values held at once on a CPU, one image at least: about what its caches hold."""


class Execution(Protocol):
    """A graph made ready to run float32 (N, C, H, W) images on their device."""

    def __call__(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Output name -> real float32 values, in the graph's order."""
        ...

    def tensors(self, images: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
        """Canonical name and values of the tensors, the input first."""
        ...


class Program:
    """A quantized net: graph, info and, optionally, its answers on known images.

    Raises InputError when the three do not belong together.
    """

    def __init__(
        self,
        graph: Graph,
        info: ProgramInfo,
        reference: Reference | None = None,
        *,
        file_name: str | None = None,
        sha256: str | None = None,
    ) -> None:
        """file_name and sha256: of the .evq file it was read from."""
        self._check(graph, info)
        evq.check_info(graph, info)
        evq.check_reference(info, reference)
        self._graph, self.info, self.reference = graph, info, reference
        self.file_name = file_name
        self._sha256 = sha256

    def _check(self, graph: Graph, info: ProgramInfo) -> None:
        """Raises InputError for a graph that is not quantized as a program is."""
        check_quantized(graph, info.profile)

    def graph(self) -> Graph:
        """The nodes in execution order with their scales and int8 weights."""
        return self._graph

    def run(self, images: torch.Tensor) -> torch.Tensor:
        """The dequantized output for normalised images: float32 (N, 3, H, W) to (N, classes).

        It runs on the images' device, and the result is there. Exact (see `graph.execute`): an
        image's logits do not depend on N, the thread count, the CPU or the GPU. Raises InputError
        for another shape or element type, for a program that needs more memory than there is, or
        where there are several outputs (see `outputs`).
        """
        _ = self._graph.output_name  # raises where there are several
        return next(iter(self.outputs(images).values()))

    def __call__(self, images: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        """What a net returns: `outputs` in their order, a tensor alone where there is one."""
        found = tuple(self.outputs(images).values())
        return found[0] if len(found) == 1 else found

    def outputs(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Every dequantized output by its public name.

        float32 (N, C, H, W) images to float32 (N, …) each.
        """
        import torch

        self._check_images(images)
        graph = self._graph
        named = dict(zip(graph.public_names, graph.outputs, strict=True))
        if not len(images):
            return {own: images.new_zeros(0, *graph.shape(name)[1:]) for own, name in named.items()}
        with torch.inference_mode(), _enough_memory():
            split = images.split(self._chunk_images(images.device.type))
            chunks = [self._executor(chunk) for chunk in split]
        return {
            own: torch.cat([chunk[name] for chunk in chunks]).clone() for own, name in named.items()
        }

    def tensors(self, images: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
        """Every activation of normalised images, in order: canonical name, int8 values.

        float32 (N, 3, H, W) to int8 (N, C, H, W) or (N, C), the input included. All N images run
        at once; tensors are freed as they are no longer needed. Raises InputError as `run` does.
        """
        import torch

        self._check_images(images)
        with torch.inference_mode(), _enough_memory():
            yield from self._executor.tensors(images)

    def _chunk_images(self, device: str) -> int:
        """How many images run at once: enough to keep the device busy, no more than fit it."""
        peak = self._graph.peak_values()
        values = min(CHUNK_VALUES, evq.MAX_VALUES) if device == "cpu" else evq.MAX_VALUES
        return max(1, min(RUN_CHUNK_IMAGES, values // peak))

    def _check_images(self, images: torch.Tensor) -> None:
        import torch

        expected = self._graph.input_shape[1:]
        if images.dtype != torch.float32 or images.ndim != 4 or images.shape[1:] != expected:
            raise InputError(
                f"the program takes float32 (N, {', '.join(map(str, expected))}), not "
                f"{str(images.dtype).removeprefix('torch.')} {tuple(images.shape)}"
            )

    @cached_property
    def _executor(self) -> Execution:
        from edgevit.graph.execute import Executor

        return Executor(self._graph)

    def export(self, form: str) -> bytes:
        """The program in another form: "pt2", a torch.export archive (batch 1, training dialect).

        Run by torch in float32 it can differ from `run` by a step where a value lies on a
        rounding edge. Raises InputError for another form.
        """
        if form != "pt2":
            raise InputError(f'a program can be exported as "pt2", not as {form!r}')
        from edgevit.program.torch_program import pt2_bytes

        return pt2_bytes(self.exported_program())

    def exported_program(self) -> torch.export.ExportedProgram:
        """What `export("pt2")` stores, as torch has it."""
        from edgevit.program.torch_program import exported_program

        return exported_program(self._graph)

    def with_info(self, info: ProgramInfo, reference: Reference | None = None) -> Program:
        """The same program with other info and reference."""
        return Program(self._graph, info, reference)

    def to_bytes(self) -> bytes:
        """The .evq file; the same program is the same bytes."""
        return evq.pack(self._graph, self.info, self.reference)

    @property
    def sha256(self) -> str:
        """Hex sha256 of the .evq file: the one it was loaded from, or the one `save` writes."""
        if self._sha256 is None:
            self._sha256 = hashlib.sha256(self.to_bytes()).hexdigest()
        return self._sha256

    def save(self, path: str | os.PathLike[str], force: bool = False) -> Path:
        """Writes the .evq file, whole or not at all, and returns its path.

        Raises InputError when `path` exists (unless `force`) or cannot be written.
        """
        path = Path(path)
        with atomic_path(path, force) as temporary:
            data = self.to_bytes()
            temporary.write_bytes(data)
        self.file_name, self._sha256 = _storable(path.name), hashlib.sha256(data).hexdigest()
        return path

    def compile(
        self, target: str, folder: str | os.PathLike[str], *, force: bool = False, **options: str
    ) -> edgevit.Artifact:
        """Compile for a target, such as "tflite"; see `edgevit.compile`."""
        # By the package's front door: targets are built upon programs, not the reverse.
        return edgevit.compile(self, target, folder, force=force, **options)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Program:
        """Reads an .evq file without running anything that it holds.

        Raises InputError for a file that is missing, damaged, newer, or not exactly a program.
        """
        path = Path(path)
        data = read_file(path, evq.MAX_FILE_BYTES, "a program")
        graph, info, reference = evq.unpack(data, str(path))
        sha256 = hashlib.sha256(data).hexdigest()
        return cls(graph, info, reference, file_name=_storable(path.name), sha256=sha256)


def _storable(name: str) -> str | None:
    """A file's name for a manifest; None where it is not UTF-8, which JSON must be."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return None
    return name


@contextlib.contextmanager
def _enough_memory() -> Iterator[None]:
    """What torch says of an allocation that fails, as bad input: a small file can ask for much."""
    try:
        yield
    except RuntimeError as error:  # torch's OutOfMemoryError of a GPU is one
        if "allocate" not in str(error) or "memory" not in str(error):
            raise
        raise InputError(
            "this program needs more memory than this machine has; give it fewer or smaller images"
        ) from error


def build_program(
    graph: Graph,
    activations: Mapping[str, Quantizer],
    weight_scales: Mapping[str, np.ndarray],
    info: ProgramInfo,
    *,
    weight_how: How = "learned",
    reference: Reference | None = None,
) -> Program:
    """The program of a float graph and given scales; nothing is calibrated or chosen here.

    graph           float, of `edgevit.graph.trace`, with its final weights and biases
    activations     canonical tensor name -> Quantizer, for every tensor that owns one
    weight_scales   module path -> float32 [O], for every convolution and linear
    weight_how      how the weight scales were set
    Raises InputError naming the tensor: no quantizer, a quantizer too many, a scale that float16
    cannot hold, another one than its operation fixes, a zero-point in the portable profile, a bias
    over int32.
    """
    quantized = quantize_graph(graph, activations, weight_scales, info.profile, weight_how)
    return Program(quantized, info, reference)
