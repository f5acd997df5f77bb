"""Qualcomm's HTP on this machine: an ONNX run by the x86 emulator that onnxruntime-qnn carries.

    emulator = HtpEmulator(data, "model.onnx", "75")
    values = emulator({"input": pixels})    # output name -> array

No device has run. ONNX Runtime may give no operator to its own CPU provider: a model that the HTP
does not take whole is refused, with what it leaves by name. Quantizing at a float input is the
HTP's too, and is done in half precision: round(fp16(x / scale)), half away from zero. A model with
integer edges has none of that; nor has a float input whose values lie on the grid.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal, get_args

import numpy as np

from edgevit.errors import InputError, ToolMissing
from edgevit.options import check, option

HtpArch = Literal["68", "69", "73", "75", "79", "81"]
ARCHS: tuple[HtpArch, ...] = get_args(HtpArch)
"""Versions of the HTP: 68 of the Snapdragon 888, 69 8 Gen 1, 73 8 Gen 2, 75 8 Gen 3, 79 8 Elite,
81 8 Elite Gen 5. The library takes any text for one, and computes as for another."""

_PROVIDER = "QNNExecutionProvider"
_FALLBACK = "fallback to CPU EP"  # of ONNX Runtime's message
_MOST_NAMED = 5


@dataclass(frozen=True)
class HtpSettings:
    """How a model is compiled for the HTP. Raises InputError for a value that is not a choice."""

    arch: HtpArch = option("75", "Version of the HTP.")
    optimization: Literal["1", "2", "3"] = option(
        "3", "How long the HTP's compiler looks for a faster graph; 3 is the longest."
    )

    def __post_init__(self) -> None:
        check(self)


class HtpEmulator:
    """A model on the emulated HTP.

    data      the ONNX
    what      the model's name in messages
    Raises InputError for a model that ONNX Runtime or the HTP refuses, or of which an operator is
    left to the CPU (by name); ToolMissing without onnxruntime-qnn.
    """

    def __init__(self, data: bytes, what: str, settings: HtpSettings | None = None) -> None:
        settings = settings or HtpSettings()
        self.session = open_session(data, what, settings)
        self.inputs: tuple[str, ...] = tuple(each.name for each in self.session.get_inputs())
        self.outputs: tuple[str, ...] = tuple(each.name for each in self.session.get_outputs())
        self.engine = f"{versions()}, emulated HTP v{settings.arch}"

    def __call__(self, values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Output name -> array; `values` by input name, of the model's shapes and types."""
        found = self.session.run(None, {name: values[name] for name in self.inputs})
        return dict(zip(self.outputs, found, strict=True))


def open_session(data: bytes, what: str, settings: HtpSettings) -> Any:
    """An onnxruntime.InferenceSession of a model, none of it on the CPU; see `HtpEmulator`."""
    _packages()
    try:
        with _standard_output_closed():
            return _session(data, settings, strict=True)
    except Exception as error:  # a type of its own for each status code
        left = _left_to_cpu(data, settings) if _FALLBACK in str(error) else ""
        why = f"it leaves to the CPU {left}" if left else f"{error}"
        raise InputError(f"{what}: the HTP refuses it: {why}") from error


def versions() -> str:
    """Of what runs a model here. Raises ToolMissing without it."""
    runtime, package = _packages()
    return f"ONNX Runtime {runtime.__version__} with onnxruntime-qnn {package.__version__}"


def _session(data: bytes, settings: HtpSettings, *, strict: bool) -> Any:
    runtime, package = _packages()
    options = runtime.SessionOptions()
    options.log_severity_level = 4  # fatal: what goes wrong is raised too
    entry = "disable_cpu_ep_fallback" if strict else "record_ep_graph_assignment_info"
    options.add_session_config_entry(f"session.{entry}", "1")
    own = {
        "backend_path": package.get_qnn_htp_path(),
        "htp_arch": settings.arch,
        "htp_graph_finalization_optimization_mode": settings.optimization,
        "offload_graph_io_quantization": "0",
    }
    devices = [each for each in runtime.get_ep_devices() if each.ep_name == _PROVIDER]
    options.add_provider_for_devices(devices[:1], own)
    return runtime.InferenceSession(data, sess_options=options)


def _left_to_cpu(data: bytes, settings: HtpSettings) -> str:
    """The operators that the HTP does not take, or nothing where a model is not even read."""
    with contextlib.suppress(Exception), _standard_output_closed():
        parts = _session(data, settings, strict=False).get_provider_graph_assignment_info()
        nodes = [node for part in parts if part.ep_name != _PROVIDER for node in part.get_nodes()]
        named = [f"{node.name or '(without a name)'} ({node.op_type})" for node in nodes]
        more = len(named) - _MOST_NAMED
        return ", ".join(named[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
    return ""


@functools.cache
def _packages() -> tuple[ModuleType, ModuleType]:
    """onnxruntime, which knows the HTP from then on, and onnxruntime_qnn."""
    try:
        import onnxruntime
        import onnxruntime_qnn  # pyright: ignore[reportMissingImports]  # an extra
    except ImportError as error:
        raise ToolMissing(
            f"the HTP emulator needs onnxruntime-qnn ({error}): pip install onnxruntime-qnn==2.7.0"
        ) from error
    if any(each.ep_name == _PROVIDER for each in onnxruntime.get_ep_devices()):
        return onnxruntime, onnxruntime_qnn
    try:
        onnxruntime.register_execution_provider_library(
            _PROVIDER, onnxruntime_qnn.get_library_path()
        )
    except Exception as error:  # a type of its own for each status code
        raise ToolMissing(
            f"onnxruntime {onnxruntime.__version__} does not load onnxruntime-qnn "
            f"{onnxruntime_qnn.__version__}: {error}"
        ) from error
    return onnxruntime, onnxruntime_qnn


@contextlib.contextmanager
def _standard_output_closed() -> Iterator[None]:
    """Without what the library writes there when it is loaded: a command's JSON may go there."""
    sys.stdout.flush()
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)
