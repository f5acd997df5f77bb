"""The ONNX target's artifact under other readers: ONNX Runtime untold, and OpenVINO on the CPU.

    python benchmarks/onnx_readers.py --program M.evq [--program N.evq] [--openvino SITE_PACKAGES]

Each program's artifact, with int8 and with uint8 activations, answers the embedded 1,000 validation
images: under ONNX Runtime as edgevit opens it, under ONNX Runtime with its defaults, and under
OpenVINO where that is installed. OpenVINO is no dependency: `pip install --no-deps openvino` into
an environment of its own, whose site-packages are named here. Without it its rows are left out.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from common import machine, write_result

TYPES = ("int8", "uint8")
Answer = Callable[[np.ndarray], np.ndarray]


def onnxruntime_answers(model: bytes, settings: dict[str, str] | None) -> tuple[str, Answer]:
    """Under ONNX Runtime's CPU provider, with these session configuration entries."""
    import onnxruntime

    from edgevit.targets.qdq.runner import open_session

    session = open_session(model, "the artifact", settings)
    name = f"ONNX Runtime {onnxruntime.__version__}" + ("" if settings else ", its defaults")
    return name, lambda image: session.run(None, {"input": image})[0]


def openvino_answers(model: bytes) -> tuple[str, Answer] | None:
    """Under OpenVINO on the CPU, with float32 for what is not quantized; None without it."""
    try:
        import openvino  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        print(f"SKIPPED: OpenVINO, for it is not installed here ({error})", flush=True)
        return None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(model)
        hints = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
        compiled = openvino.Core().compile_model(str(path), "CPU", hints)
    name = f"OpenVINO {openvino.get_version().split('-')[0]} on the CPU"
    return name, lambda image: compiled(image)[0]


def figures(
    found: np.ndarray, expected: np.ndarray, labels: np.ndarray, step: float
) -> dict[str, Any]:
    """How far a reader's logits are from the program's."""
    off = np.abs(found - expected) / step
    return {
        "agreement_percent": 100 * float((found.argmax(1) == expected.argmax(1)).mean()),
        "top1_percent": 100 * float((found.argmax(1) == labels).mean()),
        "images_with_another_logit": int((off.max(1) >= 0.5).sum()),
        "max_steps": float(off.max()),
        "mean_steps": float(off.mean()),
    }


def _step(program: Any) -> float:
    graph = program.graph()
    return graph.quantizer(graph.output_name).scale


def one_program(path: Path, count: int) -> dict[str, Any]:
    from edgevit.data.images import ImageSet
    from edgevit.program import Program
    from edgevit.project import EMBEDDED
    from edgevit.targets.onnx import TARGET
    from edgevit.targets.onnx.options import OnnxOptions
    from edgevit.targets.onnx.session import settings_of

    program = Program.load(path)
    images, rules = ImageSet.open(EMBEDDED / "val.tar"), program.info.preprocessing
    order = [place * len(images.entries) // count for place in range(count)]
    pixels = images.pixels(order, rules)
    labels = np.array([images.entries[place][1] for place in order])
    normalised = rules.normalise(pixels)
    chunks = [program.run(normalised[i : i + 50]).numpy() for i in range(0, count, 50)]
    expected, step = np.concatenate(chunks), _step(program)
    rows: dict[str, Any] = {
        "program_top1_percent": 100 * float((expected.argmax(1) == labels).mean())
    }
    for kind in TYPES:
        options = OnnxOptions(activation_type=kind)
        model = TARGET.write(program, options)
        readers = [
            onnxruntime_answers(model, settings_of(options)),
            onnxruntime_answers(model, None),
            openvino_answers(model),
        ]
        for reader in readers:
            if reader is None:
                continue
            name, answer = reader
            found = np.concatenate([answer(image[None].numpy()) for image in normalised])
            rows[f"{kind}, {name}"] = figures(found, expected, labels, step)
            print(path.parent.name, kind, name, rows[f"{kind}, {name}"], flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--program", type=Path, action="append", required=True)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--openvino", type=Path, help="site-packages that have it")
    given = parser.parse_args()
    if given.openvino is not None:
        sys.path.append(str(given.openvino))  # last: only what is missing here comes from there
    before = machine()
    found = {path.parent.name: one_program(path, given.images) for path in given.program}
    write_result("onnx-readers", {"images": given.images, "programs": found}, before)


if __name__ == "__main__":
    main()
