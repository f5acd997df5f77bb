"""An engine by torch-tensorrt, on a machine with the GPU that will run it.

Not the main way: an engine fits one kind of GPU and one TensorRT, and torch-tensorrt's builds for
Jetson Orin stop at 2.8. The harness and trtexec build from model.onnx on the device itself.
"""

from __future__ import annotations

from edgevit.errors import EdgevitError, ToolMissing
from edgevit.program import Program


def engine_bytes(program: Program) -> bytes:
    """A serialized engine of the program's torch.export program, every quantizer kept.

    Raises ToolMissing without torch-tensorrt, TensorRT or a CUDA device, EdgevitError when the
    build fails.
    """
    import torch

    try:
        # It installs beside a GPU's TensorRT alone.
        import torch_tensorrt  # pyright: ignore[reportMissingImports]
    except (ImportError, OSError, RuntimeError) as error:
        raise ToolMissing(
            f"--engine needs torch-tensorrt with its TensorRT, on the machine with the GPU "
            f"({error}): pip install torch-tensorrt there, or build the engine on the device from "
            "model.onnx (leave --engine out; the manifest has the trtexec line)"
        ) from error
    if not torch.cuda.is_available():
        raise ToolMissing(
            "--engine builds for the GPU of this machine, and torch sees none: build on the device "
            "from model.onnx (leave --engine out; the manifest has the trtexec line)"
        )
    example = torch.zeros(program.graph().input_shape, device="cuda")
    try:
        return torch_tensorrt.dynamo.convert_exported_program_to_serialized_trt_engine(
            program.exported_program().run_decompositions({}), arg_inputs=(example,)
        )
    except Exception as error:  # whatever the converter or TensorRT raises
        raise EdgevitError(f"torch-tensorrt could not build the engine: {error}") from error
