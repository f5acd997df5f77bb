"""How NNAPI, of Android 14 and older, would divide a .tflite file: TFLite's real delegate, a driver
of our own.

The delegate is that of TensorFlow Lite 2.17.1, from the C library that the pip package
pymicro-wakeword carries (extra `nnapi`, a third party's build: for this check, not for a product).
The driver (fake_neuralnetworks.c) takes every operation of its NNAPI feature level and computes
nothing. So the figures say what the delegate can hand over; a phone's driver may take less.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from edgevit.errors import ToolMissing

SOURCES = Path(__file__).resolve().parent
PACKAGE, LIBRARY = "pymicro_wakeword", "lib/libtensorflowlite_c.so"
TIMEOUT_S = 120
NO_LIMIT, DEFAULT_LIMIT = 0, -1
ANDROID_API = 31
LAST_OPERATION = {29: 94, 30: 101, 31: 101}
"""Android's API -> the highest operation code of its NNAPI; HARD_SWISH, 99, is new in 30."""


@dataclass(frozen=True)
class Partitions:
    """What the interpreter's execution plan says before and after the delegate.

    nodes           operators of the model
    partitions      parts that NNAPI gets, one call of the driver each
    delegated       operators in them
    left_out        TFLite's name of each operator that stays on the CPU -> how many
    compiled        NNAPI operations in each part, as the driver was given them
    max_partitions  the delegate's limit, 0 for none
    """

    nodes: int
    partitions: int
    delegated: int
    left_out: dict[str, int]
    compiled: tuple[int, ...]
    max_partitions: int
    tflite: str


class NnapiCheck:
    """The two programs built into `folder`, for one of Android's APIs (29 to 31).

    Raises ToolMissing without TensorFlow Lite's library or a compiler.
    """

    def __init__(self, folder: Path, android_api: int = ANDROID_API) -> None:
        self.tflite = tflite_library()
        self.nnapi, self.program = folder / "libneuralnetworks.so", folder / "partitions"
        # TFLite asks for the library by this name, which is why the file has it inside too.
        shared = ["-shared", "-fPIC", f"-Wl,-soname,{self.nnapi.name}"]
        level = f"-DFEATURE_LEVEL={android_api}", f"-DLAST_OPERATION={LAST_OPERATION[android_api]}"
        _compile(
            "cc", "-std=gnu11", *level, *shared, SOURCES / "fake_neuralnetworks.c", "-o", self.nnapi
        )
        _compile("c++", "-std=c++17", SOURCES / "partitions.cpp", "-o", self.program, "-ldl")

    def __call__(self, model: Path, max_partitions: int = NO_LIMIT) -> Partitions:
        """Raises RuntimeError with the program's words where the delegate cannot be applied."""
        command = [self.program, self.tflite, self.nnapi, model, max_partitions]
        done = subprocess.run(
            [str(part) for part in command], capture_output=True, text=True, timeout=TIMEOUT_S
        )
        if done.returncode:
            raise RuntimeError(f"{model}: {done.stderr.strip()[-1000:]}")
        found = json.loads(done.stdout)
        return Partitions(
            nodes=found["nodes"],
            partitions=found["partitions"],
            delegated=found["delegated"],
            left_out={_name(int(code)): n for code, n in found["left_out"].items()},
            compiled=tuple(found["compiled_operations"]),
            max_partitions=found["max_partitions"],
            tflite=found["tflite"],
        )


def tflite_library() -> Path:
    """TensorFlow Lite's C library. Raises ToolMissing with the command that installs it."""
    spec = importlib.util.find_spec(PACKAGE)
    path = Path(spec.origin).parent / LIBRARY if spec is not None and spec.origin else None
    if path is None or not path.exists():
        raise ToolMissing(
            "the NNAPI check needs TensorFlow Lite's C library: "
            "pip install -c constraints.txt -e '.[nnapi]'"
        )
    return path


def _compile(compiler: str, *arguments: str | Path) -> None:
    if shutil.which(compiler) is None:
        raise ToolMissing(f"the NNAPI check needs {compiler}: apt-get install -y gcc g++")
    flags = ["-O1", "-Wall", "-Wextra", "-Werror"]
    subprocess.run([compiler, *flags, *map(str, arguments)], check=True, timeout=TIMEOUT_S)


def _name(code: int) -> str:
    from ai_edge_litert.schema_py_generated import BuiltinOperator

    return next(k for k, v in vars(BuiltinOperator).items() if v == code and k.isupper())
