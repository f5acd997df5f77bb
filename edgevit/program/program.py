"""The program object, and how one is made."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import edgevit
from edgevit.errors import InputError
from edgevit.files import atomic_path
from edgevit.graph.graph import Graph, How, Quantizer
from edgevit.program import evq
from edgevit.program.build import check_quantized, quantize_graph, trace_graph
from edgevit.program.info import ProgramInfo, Reference

if TYPE_CHECKING:
    import torch

    from edgevit.program.executor import Executor

RUN_CHUNK_IMAGES = 64
"""Images run at once: enough to keep the cores busy, little memory."""


class Program:
    """A quantized RepViT: graph, info and, optionally, its answers on known images. Immutable.

    Raises InputError when the three do not belong together.
    """

    def __init__(
        self,
        graph: Graph,
        info: ProgramInfo,
        reference: Reference | None = None,
        *,
        file_name: str | None = None,
        pt2: bytes | None = None,
        sha256: str | None = None,
    ) -> None:
        """file_name, pt2 (program.pt2) and sha256: of the .evq file it was read from."""
        check_quantized(graph, info.profile)
        evq.check_info(graph, info)
        evq.check_reference(info, reference)
        self._graph, self.info, self.reference = graph, info, reference
        self.file_name = file_name
        # What the file holds already need not be made again (cached properties below).
        self.__dict__.update({"_pt2": pt2} if pt2 is not None else {})
        self.__dict__.update({"sha256": sha256} if sha256 is not None else {})

    def graph(self) -> Graph:
        """The nodes in execution order with their scales and int8 weights."""
        return self._graph

    def run(self, images: torch.Tensor) -> torch.Tensor:
        """Dequantized logits of normalised images: float32 (N, 3, H, W) to float32 (N, classes).

        Exact (see `executor`): an image's logits do not depend on N, the thread count or the CPU.
        Raises InputError for another shape or element type.
        """
        import torch

        self._check_images(images)
        if not len(images):
            return torch.zeros(0, self.info.model.classes)
        with torch.inference_mode():
            chunks = [self._executor(chunk) for chunk in images.split(RUN_CHUNK_IMAGES)]
        return torch.cat(chunks).clone()

    def tensors(self, images: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
        """Every activation of normalised images, in order: canonical name, int8 values.

        float32 (N, 3, H, W) to int8 (N, C, H, W) or (N, C), the input included. All N images run
        at once; tensors are freed as they are no longer needed. Raises InputError as `run` does.
        """
        import torch

        self._check_images(images)
        with torch.inference_mode():
            yield from self._executor.tensors(images)

    def _check_images(self, images: torch.Tensor) -> None:
        import torch

        expected = self._graph.input_shape[1:]
        if images.dtype != torch.float32 or images.ndim != 4 or images.shape[1:] != expected:
            raise InputError(
                f"the program takes float32 (N, {', '.join(map(str, expected))}), not "
                f"{str(images.dtype).removeprefix('torch.')} {tuple(images.shape)}"
            )

    @cached_property
    def _executor(self) -> Executor:
        from edgevit.program.executor import Executor

        return Executor(self._graph)

    def exported_program(self) -> torch.export.ExportedProgram:
        """A new torch.export program equal to the stored one (batch 1, training dialect).

        Run by torch in float32 it can differ from `run` by a step where a value lies on a
        rounding edge.
        """
        from edgevit.program.torch_program import exported_program

        return exported_program(self._graph)

    def with_info(self, info: ProgramInfo, reference: Reference | None = None) -> Program:
        """The same program with other info and reference."""
        return Program(self._graph, info, reference, pt2=self.__dict__.get("_pt2"))

    @cached_property
    def _pt2(self) -> bytes:
        from edgevit.program.torch_program import pt2_bytes

        return pt2_bytes(self.exported_program())

    def to_bytes(self) -> bytes:
        """The .evq file; the same program is the same bytes."""
        return evq.pack(self._pt2, self._graph, self.info, self.reference)

    @cached_property
    def sha256(self) -> str:
        """Hex sha256 of the .evq file: the one it was loaded from, or the one `save` writes."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    def save(self, path: str | os.PathLike[str], force: bool = False) -> Path:
        """Writes the .evq file, whole or not at all, and returns its path.

        Raises InputError when `path` exists (unless `force`) or cannot be written.
        """
        path = Path(path)
        with atomic_path(path, force) as temporary:
            data = self.to_bytes()
            temporary.write_bytes(data)
        self.file_name = path.name
        self.__dict__["sha256"] = hashlib.sha256(data).hexdigest()
        return path

    def compile(
        self, target: str, folder: str | os.PathLike[str], *, force: bool = False, **options: str
    ) -> edgevit.Artifact:
        """Compile for a target ("tflite", "coreml", "tensorrt"); see `edgevit.compile`."""
        # By the package's front door: targets are built upon programs, not the reverse.
        return edgevit.compile(self, target, folder, force=force, **options)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Program:
        """Reads an .evq file without running anything that it holds.

        Raises InputError for a file that is missing, damaged, newer, or not exactly a program.
        """
        path = Path(path)
        try:
            if path.stat().st_size > evq.MAX_FILE_BYTES:
                raise InputError(f"{path} is larger than any program ({evq.MAX_FILE_BYTES} bytes)")
            data = path.read_bytes()
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror}") from error
        pt2, graph, info, reference = evq.unpack(data, str(path))
        sha256 = hashlib.sha256(data).hexdigest()
        return cls(graph, info, reference, file_name=path.name, pt2=pt2, sha256=sha256)


def build_program(
    net: torch.nn.Module,
    activations: Mapping[str, Quantizer],
    weight_scales: Mapping[str, np.ndarray],
    image_size: int,
    info: ProgramInfo,
    *,
    weight_how: How = "learned",
    reference: Reference | None = None,
) -> Program:
    """The program of a fused RepViT and given scales; nothing is calibrated or chosen here.

    net             fused RepViT with its float weights (biases corrected, if they are to be)
    activations     canonical tensor name -> Quantizer, for every tensor an INT8 runtime holds
    weight_scales   module path -> float32 (O,) array or tensor, for every convolution and linear
    image_size      input height and width, pixels
    weight_how      how the weight scales were set, for the tensor table
    Raises InputError naming the tensor: no quantizer, a quantizer too many, a scale that float16
    cannot hold, a sigmoid off 1/256 and -128, a zero-point in the portable profile, a bias over
    int32; and naming the operation when the net holds one that a program may not.
    """
    scales = {path: np.asarray(scale) for path, scale in weight_scales.items()}
    graph = trace_graph(net, image_size)
    graph = quantize_graph(graph, activations, scales, info.profile, weight_how)
    return Program(graph, info, reference)
