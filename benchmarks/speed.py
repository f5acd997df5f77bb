"""Where the INT8 artifact's time goes, and what was tried to take it: whole files and operators.

    python benchmarks/speed.py [--rounds 30] [--image-size 224] [--peer DIR]

RepViT-M0.9 as in latency.py, one thread, LiteRT's interpreter with XNNPACK. Times are of the
processor (`time.process_time`), the least of a few inferences, the files in turn: other work on the
machine moves them little. A round's ratio compares the times of that round.

files       the artifact in both forms of its activations, float32, quick-GELU and hard-swish (other
            nets), a peer's file of the same net; and what a form could be at best: files with
            operators left out, which compute something else and show a bound
operators   every different convolution alone in a file, int8 and float32: the bound that XNNPACK's
            own kernels set
channels    1x1 convolutions of widths around a multiple of 16
stem        the first convolution with 3, 4 and 8 input channels, and over pairs of columns
runtime     LiteRT's options on the artifact: XNNPACK's flags, the CompiledModel
products    how near x * sigmoid(k x) in int8 comes to each GELU's 256 values, at the best k

DIR is where `pip install --target DIR --no-deps ai-edge-quantizer immutabledict litert-lm-builder`
put the peer; without it there is no row of it.
"""

from __future__ import annotations

import argparse
import importlib
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import numpy as np
from common import machine, write_result
from latency import make_program

INVOKES, OPERATOR_INVOKES, CALIBRATION_IMAGES = 3, 12, 2
XNNPACK_FLAGS = {
    "dynamic fully connected": 0x8, "transient indirection buffer": 0x20,
    "latest operators": 0x40, "slinky": 0x100, "no subgraph reshaping": 0x400,
}  # fmt: skip
"""Of TFLite's XNNPACK delegate, over its defaults (int8, uint8)."""
DEFAULT_FLAGS = 0x3
Run = Callable[[], Any]


# -- measuring --------------------------------------------------------------------------------


def interpreter(data: bytes) -> Run:
    """An inference of a file on values that fill int8's range."""
    from ai_edge_litert.interpreter import Interpreter

    made = Interpreter(model_content=data, num_threads=1)
    made.allocate_tensors()
    random = np.random.default_rng(0)
    for source in made.get_input_details():
        values = random.integers(-128, 128, source["shape"])
        scaled = values / 64 if source["dtype"] == np.float32 else values
        made.set_tensor(source["index"], scaled.astype(source["dtype"]))
    return made.invoke


def least_us(run: Run, count: int) -> float:
    """The least processor time of some inferences."""
    times = []
    for _ in range(count):
        start = time.process_time_ns()
        run()
        times.append(time.process_time_ns() - start)
    return min(times) / 1e3


def in_turn(runs: Mapping[str, Run], rounds: int, against: str) -> dict[str, Any]:
    """Least time by name, and the median of the rounds' ratios of `against`'s time to it."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    for _ in range(rounds):
        for name, run in runs.items():
            times[name].append(least_us(run, INVOKES))
    found = {}
    for name, own in times.items():
        ratios = [base / each for base, each in zip(times[against], own, strict=True)]
        found[name] = {
            "least_us": round(min(own), 1),
            "of_least": round(min(times[against]) / min(own), 3),
            "of_rounds": round(statistics.median(ratios), 3),
        }
    return found


# -- files ------------------------------------------------------------------------------------


def written(program: Any, **options: str) -> bytes:
    from edgevit.targets.tflite import TARGET
    from edgevit.targets.tflite.options import TfliteOptions

    return TARGET.write(program, TfliteOptions(**options))  # type: ignore[arg-type]


def without(program: Any, *kinds: type) -> bytes:
    """The file with operations left out: what they make is the last map of its shape they read.

    Its tensors have one quantizer, as XNNPACK wants it of a padded one.
    """
    from edgevit.ops import Quantizer
    from edgevit.program import Program
    from edgevit.targets.tflite import write

    graph = program.graph()
    owners = {n: graph.fixed(n) or Quantizer(0.0625, 0) for n in graph.quantizers}
    alike = Program(replace(graph, quantizers=owners), program.info)

    def left_out(e: Any, node: Any) -> None:
        shape = e.graph.shape(node.name)
        (*_, source) = [name for name in node.inputs if e.graph.shape(name) == shape]
        e.tensors[node.name] = e.tensors[source]

    emitters = write.EMITTERS | {kind: left_out for kind in kinds}
    with patch.object(write, "EMITTERS", emitters):
        return written(alike)


def peers_file(folder: str, float_file: bytes) -> bytes:
    """ai-edge-quantizer's static int8 file of the float32 one."""
    sys.path.insert(0, folder)
    quantizer = importlib.import_module("ai_edge_quantizer.quantizer")
    recipe = importlib.import_module("ai_edge_quantizer.recipe")
    random = np.random.default_rng(0)
    shape = interpreter_shape(float_file)
    images = [random.normal(size=shape).astype(np.float32) for _ in range(CALIBRATION_IMAGES)]
    made = quantizer.Quantizer(float_file, recipe.static_wi8_ai8())
    ranges = made.calibrate({"serving_default": [{"input": image} for image in images]})
    return bytes(
        made.quantize(calibration_result=ranges, enable_progress_report=False).quantized_model
    )


def interpreter_shape(data: bytes) -> tuple[int, ...]:
    from ai_edge_litert.interpreter import Interpreter

    (source,) = Interpreter(model_content=data).get_input_details()
    return tuple(source["shape"])


def whole_files(program: Any, size: int, rounds: int, peer: str | None) -> dict[str, Any]:
    from edgevit.ops import Add, Gelu, Mul

    swapped, hard = make_program(size, "quick-gelu"), make_program(size, "hard-swish")
    data = {
        "float32": written(program, precision="float32"),
        "activations as operators": written(program, activations="operator"),
        "activations as tables (the default)": written(program),
        "quick-GELU": written(swapped),
        "hard-swish as operators": written(hard, activations="operator"),
        "hard-swish as tables": written(hard),
        "bound: no activations": without(program, Gelu),
        "bound: no activations, sums, products": without(program, Gelu, Add, Mul),
    }
    if peer is not None:
        data["peer: ai-edge-quantizer 0.10 int8"] = peers_file(peer, data["float32"])
    runs = {name: interpreter(each) for name, each in data.items()}
    return in_turn(runs, rounds, "float32")


# -- operators --------------------------------------------------------------------------------


def alone(node: Any, shape: tuple[int, ...], quantized: bool = True) -> bytes:
    """A file of one convolution, with quantizers of ordinary size."""
    from edgevit.graph import Graph, float_graph, quantize_graph
    from edgevit.graph.ties import to_fp16_grid
    from edgevit.ops import Quantizer
    from edgevit.quantize.place import weight_scale
    from edgevit.targets.tflite.emit import EMITTERS
    from edgevit.targets.tflite.emitter import Emitter

    node = replace(node, inputs=("input",))
    graph = Graph(shape, (node,), (node.name,))
    if quantized:
        places = {name: Quantizer(0.0625, 0) for name in graph.owners()}
        scales = {node.module: to_fp16_grid(weight_scale(node))}
        graph = quantize_graph(graph, places, scales, "portable", "calibrated")
    emitter = Emitter(float_graph(graph) if not quantized else graph)
    source = emitter.result("input")
    emitter.run(EMITTERS)
    return emitter.writer.finish(("input", source), [("y", emitter.tensors[node.name])], {})


def convolution(shape: tuple[int, int, int, int], side: int, stride: int = 1) -> tuple[Any, Any]:
    """A convolution of seeded weights (O, I, H, W), and the shape of its input."""
    from edgevit.ops import Conv2d, FloatWeights

    random = np.random.default_rng(0)
    weight = random.normal(size=shape).astype(np.float32)
    bias = random.normal(size=shape[0]).astype(np.float32)
    pad = (shape[2] // 2, shape[3] // 2)
    node = Conv2d(
        name="conv", inputs=("input",), module="conv", stride=(stride, stride), padding=pad,
        weights=FloatWeights(weight, bias),
    )  # fmt: skip
    return node, (1, shape[1], side, side)


def macs(node: Any, out: tuple[int, ...]) -> int:
    """Multiplications of a convolution that makes (1, C, H, W)."""
    return int(np.prod(node.weight.shape)) * int(np.prod(out[2:]))


def kind_of(node: Any) -> str:
    return "depthwise" if node.depthwise else "x".join(map(str, node.weight.shape[2:]))


def operators(program: Any) -> dict[str, Any]:
    """Every different convolution of the net alone: the sums by kind, and each by its shape."""
    from edgevit.graph import float_graph
    from edgevit.ops import Conv2d

    graph = float_graph(program.graph())
    found: dict[tuple[Any, ...], Any] = {}
    count: Counter[tuple[Any, ...]] = Counter()
    for node in graph.nodes:
        if isinstance(node, Conv2d):
            shape = graph.shape(node.inputs[0])
            key = (shape, node.weight.shape, node.stride)
            found[key] = (replace(node, activation=None), shape, graph.shape(node.name))
            count[key] += 1
    rows = []
    for key, (node, shape, out) in found.items():
        int8, real = (
            least_us(interpreter(alone(node, shape, quantized)), OPERATOR_INVOKES)
            for quantized in (True, False)
        )
        speed = macs(node, out) / int8 / 1e3
        rows.append({
            "kind": kind_of(node),
            "input": list(shape), "weight": list(node.weight.shape),
            "stride": list(node.stride), "count": count[key], "int8_us": round(int8, 1),
            "float32_us": round(real, 1), "int8_macs_per_ns": round(speed, 1),
        })  # fmt: skip
    kinds = {row["kind"] for row in rows}
    sums = {
        kind: {
            each: round(sum(r[each] * r["count"] for r in rows if r["kind"] == kind), 1)
            for each in ("int8_us", "float32_us")
        }
        for kind in sorted(kinds)
    }
    rows.sort(key=lambda row: -row["int8_us"] * row["count"])
    return {"sums": sums, "each": rows}


def channels() -> list[dict[str, Any]]:
    """1x1 convolutions on 28 x 28 of as many input as output channels."""
    rows = []
    for width in (40, 48, 56, 64, 80, 96, 112, 128, 192, 200):
        node, shape = convolution((width, width, 1, 1), 28)
        us = least_us(interpreter(alone(node, shape)), 4 * OPERATOR_INVOKES)
        speed = macs(node, shape) / us / 1e3
        rows.append({"channels": width, "us": round(us, 1), "macs_per_ns": round(speed, 1)})
    return rows


def stem(size: int) -> dict[str, float]:
    """Pairs: two columns of 3 channels read as one of 6, under a kernel of 3 x 2 (zeros filled)."""
    forms = {f"{n} channels": convolution((24, n, 3, 3), size, 2) for n in (3, 4, 8)}
    node, _ = convolution((24, 6, 3, 2), size, 2)
    paired = replace(node, stride=(2, 1), padding=(1, 0))
    forms["6 channels, pairs of columns"] = paired, (1, 6, size, size // 2 + 1)
    return {
        name: round(least_us(interpreter(alone(*form)), 2 * OPERATOR_INVOKES), 1)
        for name, form in forms.items()
    }


# -- the runtime ------------------------------------------------------------------------------


def compiled(data: bytes, flags: int | None) -> Run:
    """An inference of the CompiledModel with flags of XNNPACK."""
    from ai_edge_litert.compiled_model import CompiledModel
    from ai_edge_litert.options import Options

    options = Options()
    options.cpu_options.num_threads = 1
    options.cpu_options.xnnpack_flags = flags
    model = CompiledModel.from_buffer(data, options=options)
    inputs, outputs = model.create_input_buffers(0), model.create_output_buffers(0)
    values = np.random.default_rng(0).integers(-128, 128, interpreter_shape(data))
    inputs[0].write(values.astype(np.int8))
    return lambda: model.run_by_index(0, inputs, outputs)


def runtime(program: Any, rounds: int) -> dict[str, Any]:
    data = written(program)
    runs = {"interpreter": interpreter(data), "CompiledModel": compiled(data, None)}
    for name, flag in XNNPACK_FLAGS.items():
        runs[f"CompiledModel, {name}"] = compiled(data, DEFAULT_FLAGS | flag)
    return in_turn(runs, rounds, "interpreter")


# -- products of int8 -------------------------------------------------------------------------


def products(program: Any) -> dict[str, Any]:
    """How many of a GELU's 256 values x * sigmoid(k x) misses, in int8, at the k that misses least.

    The sigmoid's scale is 1/256, as TFLite fixes it; k stands for a scale of x that is declared
    otherwise than the convolution has it. XNNPACK makes one table of both operators.
    """
    from edgevit.ops import INT8_MAX, INT8_MIN, Gelu
    from edgevit.targets.tflite.emit_table import rounds_surely

    graph = program.graph()
    missed, worst, sure = [], 0, 0
    for node in graph.nodes:
        if not isinstance(node, Gelu):
            continue
        source, result = graph.quantizer(node.inputs[0]), graph.quantizer(node.name)
        x = (np.arange(INT8_MIN, INT8_MAX + 1) - source.zero_point) * source.scale

        def held(real: np.ndarray, to: Any = result) -> np.ndarray:
            return np.clip(np.rint(real / to.scale) + to.zero_point, INT8_MIN, INT8_MAX)

        wanted = held(Gelu.curve(x))
        sure += rounds_surely(Gelu, source, result)
        tried = []
        for k in np.linspace(1.4, 2.0, 241):
            gate = np.minimum(np.rint(256 / (1 + np.exp(-k * x))), 255) / 256
            off = np.abs(held(x * gate) - wanted)
            tried.append((int((off > 0).sum()), int(off.max())))
        fewest, steps = min(tried)
        missed.append(fewest)
        worst = max(worst, steps)
    return {
        "gelus": len(missed),
        "tables_that_round_surely": sure,
        "fewest_values_missed": min(missed),
        "median_values_missed": statistics.median(missed),
        "most_values_missed": max(missed),
        "largest_steps": worst,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--peer", metavar="DIR")
    given = parser.parse_args()
    before = machine()
    program = make_program(given.image_size)
    figures = {
        "image_size": given.image_size,
        "threads": 1,
        "rounds": given.rounds,
        "clock": "processor time of the process, least of a few inferences",
        "files": whole_files(program, given.image_size, given.rounds, given.peer),
        "operators": operators(program),
        "channels": channels(),
        "stem": stem(given.image_size),
        "runtime": runtime(program, given.rounds),
        "products": products(program),
    }
    for name, row in figures["files"].items():
        print(f"{name:40} {row['least_us']:9.1f} us  {row['of_least']:.3f}  {row['of_rounds']:.3f}")
    write_result("speed", figures, before)


if __name__ == "__main__":
    main()
