"""The qnn target: a Snapdragon's NPU (the HTP), compiled ahead of time by Qualcomm's own compiler.

The artifact is LiteRT's: the TFLite file, and for each SoC that file with the HTP's context binary
inside. Beside it lies the same program as an ONNX with a pair on every tensor (`targets.onnx`),
which `emulator` runs by the HTP's arithmetic on this machine, and so does `reference`, by rules:
`edgevit parity` then says what the NPU will make of the program. Nothing of it has run on a device.
"""

from __future__ import annotations

import re
from typing import ClassVar

from edgevit.ops import OPERATIONS
from edgevit.program import Program
from edgevit.targets import Runner
from edgevit.targets.artifact import Artifact
from edgevit.targets.npu.target import NpuTarget, open_portable
from edgevit.targets.npu.vendor import Vendor
from edgevit.targets.onnx import TARGET as ONNX
from edgevit.targets.onnx.options import OnnxOptions
from edgevit.targets.qnn.options import SOCS, QnnOptions, QnnRunOptions
from edgevit.targets.qnn.runner import HTP_FILE, HtpRunner

HTP_FORM = OnnxOptions(io="int8", activation_type="int8")
"""int8 from end to end, as the compiled file is: a float input would be quantized by the HTP."""
_REFUSED = re.compile(
    r"LiteRT Op #\d+ '[^']*' \(code=\d+\) is not supported in Qualcomm Compiler\."
    r".*?Outputs:\s*\[0\] name=\"([^\"]*)\"",
    re.DOTALL,
)
_VALIDATION = re.compile(
    r"QNN op validation failed: '[^']*' \(type=(\w+)(?:, operation=(\w+))?\).*?QNN error=(\d+)",
    re.DOTALL,
)
_VERSIONS = {
    "qnn": re.compile(r"Qnn library version (\S+) is used"),
    "qnn wanted": re.compile(
        r"Qnn library version \S+ is used\. The version LiteRT using is (\d+(?:\.\d+)*)"
    ),
    "htp": re.compile(r"requested arch is (v\d+)"),
}


def reasons(log: str) -> dict[str, str]:
    """Why an operator stays on the CPU, by the tensor that it makes: what QNN said before it."""
    found, start = {}, 0
    for refused in _REFUSED.finditer(log):
        said = list(_VALIDATION.finditer(log, start, refused.start()))
        start = refused.end()
        if not said:
            found[refused[1]] = "not supported by Qualcomm's compiler"
            continue
        kind, operation, code = said[-1].groups()
        what = f"{kind} ({operation})" if operation else kind
        found[refused[1]] = f"QNN refuses {what}: error {code}"
    return found


def versions(log: str) -> dict[str, str]:
    """Of QNN: what compiled, what LiteRT was built for, and the architecture of the NPU."""
    return {name: match[1] for name, pattern in _VERSIONS.items() if (match := pattern.search(log))}


class Qnn(NpuTarget[QnnOptions, QnnRunOptions]):
    """Qualcomm's HTP; see the module."""

    name = "qnn"
    summary = "Snapdragon NPU: TFLite with an ahead-of-time QNN context binary, for Android"
    Options, RunOptions = QnnOptions, QnnRunOptions
    packages = (*NpuTarget.packages, "onnx")
    # The HTP keeps fewer bits of factors and sums; benchmarks/htp.py counts each operation.
    tolerance_steps: ClassVar = {kind: 1 for kind in OPERATIONS if kind.requantizes}
    vendor = Vendor(
        title="Qualcomm",
        manufacturer="Qualcomm",
        folder="qualcomm",
        socs=SOCS,
        library="libQnnHtp.so",
        package="onnxruntime_qnn",
        how_to_get="pip install 'edgevit[qnn]' (onnxruntime-qnn, 98.6 MB, Qualcomm's licence)",
        stand_ins={"libQnnLpai.so": "libQnnSystem.so"},
        reasons=reasons,
        versions=versions,
    )

    def more_files(self, program: Program, options: QnnOptions) -> dict[str, bytes]:
        if self.is_float(options):
            return {}
        data = ONNX.write(program, HTP_FORM)
        ONNX.audit(data, program)
        return {HTP_FILE: data}

    def open(self, artifact: Artifact, options: QnnRunOptions) -> Runner:
        if options.runner == "litert":
            return open_portable(artifact)
        return HtpRunner(artifact, options)


TARGET = Qnn()
