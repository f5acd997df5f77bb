"""Artifacts with several outputs of any rank, through libedgevit's C API.

Every output must be what the runtime's own Python gives: LiteRT's interpreter and onnxruntime.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgevit.data.images import Preprocessing
from edgevit.measure.harness import build_harness, find_runtime
from tests.test_harness import LABELS, edit_manifest, write_artifact

OK, BAD_INPUT, BAD_CALL = 0, 2, 3
DTYPES = ("int8", "uint8", "float16", "float32")
SIDE = 8


class CTensor(ctypes.Structure):
    """`edgevit_tensor` of edgevit.h."""

    _fields_ = (
        ("struct_size_bytes", ctypes.c_size_t),
        ("name", ctypes.c_char_p),
        ("rank", ctypes.c_size_t),
        ("shape", ctypes.c_int64 * 8),
        ("element_count", ctypes.c_size_t),
        ("size_bytes", ctypes.c_size_t),
        ("dtype", ctypes.c_int32),
        ("scale", ctypes.c_float),
        ("zero_point", ctypes.c_int32),
    )


class COption(ctypes.Structure):
    """`edgevit_runtime_option` of edgevit.h."""

    _fields_ = (("name", ctypes.c_char_p), ("value", ctypes.c_char_p))


class COptions(ctypes.Structure):
    """`edgevit_options` of edgevit.h."""

    _fields_ = (
        ("struct_size_bytes", ctypes.c_size_t),
        ("backend", ctypes.c_char_p),
        ("threads", ctypes.c_int32),
        ("runtime_library", ctypes.c_char_p),
        ("compute_units", ctypes.c_char_p),
        ("plan_cache", ctypes.c_char_p),
        ("runtime_options", ctypes.POINTER(COption)),
        ("runtime_option_count", ctypes.c_size_t),
    )


class CError(ctypes.Structure):
    """`edgevit_error` of edgevit.h."""

    _fields_ = (
        ("code", ctypes.c_int32),
        ("reserved", ctypes.c_int32 * 3),
        ("message", ctypes.c_char * 1008),
    )


@pytest.fixture(scope="module")
def library() -> ctypes.CDLL:
    """libedgevit.so, built beside the harness."""
    build = build_harness().parents[2]
    command = ["cmake", "--build", build, "--target", "edgevit", "--parallel", "2"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    loaded = ctypes.CDLL(str(build / "libedgevit.so"))
    loaded.edgevit_output_count.restype = ctypes.c_size_t
    return loaded


class Session:
    """An open session; each method raises AssertionError with the library's message."""

    def __init__(self, library: ctypes.CDLL, handle: ctypes.c_void_p) -> None:
        self.library, self.handle = library, handle

    def call(self, function: str, *arguments: Any) -> None:
        error = CError()
        status = getattr(self.library, function)(self.handle, *arguments, ctypes.byref(error))
        assert status == OK, error.message.decode()

    def infos(self) -> list[CTensor]:
        found = []
        for i in range(self.library.edgevit_output_count(self.handle)):
            tensor = CTensor(struct_size_bytes=ctypes.sizeof(CTensor))
            self.call("edgevit_output_info", ctypes.c_size_t(i), ctypes.byref(tensor))
            found.append(tensor)
        return found

    def run(self, tensor: np.ndarray) -> None:
        data = np.ascontiguousarray(tensor)
        size = ctypes.c_size_t(data.nbytes)
        self.call("edgevit_set_input", ctypes.c_void_p(data.ctypes.data), size)
        self.call("edgevit_invoke")

    def output(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """The output as it is stored and as float32, both in its shape."""
        index = ctypes.c_size_t()
        self.call("edgevit_find_output", name.encode(), ctypes.byref(index))
        info = self.infos()[index.value]
        shape = tuple(info.shape[: info.rank])
        stored = np.empty(shape, DTYPES[info.dtype])
        assert stored.nbytes == info.size_bytes
        place = ctypes.c_void_p(stored.ctypes.data)
        self.call("edgevit_output_bytes", index, place, ctypes.c_size_t(stored.nbytes))
        real = np.empty(shape, np.float32)
        place = ctypes.c_void_p(real.ctypes.data)
        self.call("edgevit_output", index, place, ctypes.c_size_t(real.size))
        return stored, real


@contextmanager
def opened(
    library: ctypes.CDLL, folder: Path, backend: str, runtime: str, **runtime_options: str
) -> Iterator[Session]:
    pairs = [(key.encode(), value.encode()) for key, value in runtime_options.items()]
    options = COptions(
        struct_size_bytes=ctypes.sizeof(COptions),
        backend=backend.encode(),
        runtime_library=os.fsencode(find_runtime(runtime)),
        runtime_options=(COption * len(pairs))(*(COption(*pair) for pair in pairs)),
        runtime_option_count=len(pairs),
    )
    handle, error = ctypes.c_void_p(), CError()
    status = library.edgevit_open(
        os.fsencode(folder), ctypes.byref(options), ctypes.byref(handle), ctypes.byref(error)
    )
    assert status == OK, error.message.decode()
    session = Session(library, handle)
    try:
        yield session
    finally:
        session.call("edgevit_close")


def output(name: str, shape: list[int], dtype: str, scale: float | None = None) -> dict[str, Any]:
    zero_point = None if scale is None else 0
    return {"name": name, "shape": shape, "dtype": dtype, "scale": scale, "zero_point": zero_point}


def write_outputs(folder: Path, model: Path, outputs: list[dict[str, Any]], **changes: Any) -> Path:
    """An artifact folder of schema version 2 around the file `model`."""
    labels = tuple(f"c{i}" for i in range(outputs[0]["shape"][-1]))
    write_artifact(folder, labels, image_size=SIDE, resize_size=SIDE)
    (folder / "model.bin").unlink()
    data = model.read_bytes()
    (folder / model.name).write_bytes(data)
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest.pop("output", None)
    path.write_text(json.dumps(manifest))
    sha256 = hashlib.sha256(data).hexdigest()
    edit_manifest(
        folder,
        schema_version=2,
        task="classification",
        artifact={"file": model.name, "sha256": sha256, "size_bytes": len(data)},
        outputs=outputs,
        **changes,
    )
    return folder


TFLITE = Path(__file__).resolve().parent / "cpp/data/outputs.tflite"
TFLITE_OUTPUTS = [
    output("logits", [1, 4], "int8", 0.00390625),
    output("grid", [1, 2, 2, 4, 8], "int8", 0.0625),
    output("best", [1], "int8", 0.00390625),
    output("map", [1, 4, 4, 8], "float32"),
]


def test_litert_hands_over_every_output(library: ctypes.CDLL, tmp_path: Path) -> None:
    litert = pytest.importorskip("ai_edge_litert.interpreter")
    table = [[pixel - 128 for pixel in range(256)]] * 3
    inputs = {
        "name": "input", "shape": [1, SIDE, SIDE, 3], "layout": "NHWC", "dtype": "int8",
        "scale": 0.0078125, "zero_point": 0, "table": table,
    }  # fmt: skip
    folder = write_outputs(tmp_path / "a", TFLITE, TFLITE_OUTPUTS, target="tflite", input=inputs)
    interpreter = litert.Interpreter(str(TFLITE))
    interpreter.allocate_tensors()
    details = {each["name"]: each for each in interpreter.get_output_details()}
    rng = np.random.default_rng(3)
    with opened(library, folder, "tflite", "tflite") as session:
        assert [each.name.decode() for each in session.infos()] == [
            "logits", "grid", "best", "map"
        ]  # fmt: skip
        for _ in range(5):
            tensor = rng.integers(-128, 128, (1, SIDE, SIDE, 3), np.int8)
            interpreter.set_tensor(interpreter.get_input_details()[0]["index"], tensor)
            interpreter.invoke()
            session.run(tensor)
            for name, detail in details.items():
                stored, real = session.output(name)
                expected = interpreter.get_tensor(detail["index"])
                assert (stored.dtype, stored.shape) == (expected.dtype, expected.shape)
                np.testing.assert_array_equal(stored, expected)
                scale = detail["quantization"][0] or 1.0
                np.testing.assert_array_equal(real, stored.astype(np.float32) * np.float32(scale))
            assert len(np.unique(session.output("map")[0])) > 10


def several_onnx(path: Path, dtype: str) -> Path:
    """Features, logits and a rank 5 view of an image [1, 3, 8, 8], in this order."""
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(7)
    kind = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16}[dtype]
    constants = {
        "w": rng.normal(size=(4, 3, 3, 3)).astype(dtype),
        "head": rng.normal(size=(4, len(LABELS))).astype(dtype),
        "sides": np.array([1, 2, 2, 6, 6]),
        "one": np.array([1]),
    }
    nodes = [
        helper.make_node("Conv", ["input", "w"], ["conv"]),
        helper.make_node("GlobalAveragePool", ["conv"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["features"]),
        helper.make_node("MatMul", ["features", "head"], ["logits"]),
        helper.make_node("Reshape", ["conv", "sides"], ["view"]),
        helper.make_node("ReduceMax", ["logits", "one"], ["top"], keepdims=0),
    ]
    shapes = {
        "features": [1, 4], "logits": [1, len(LABELS)], "view": [1, 2, 2, 6, 6], "top": [1]
    }  # fmt: skip
    graph = helper.make_graph(
        nodes,
        "several",
        [helper.make_tensor_value_info("input", kind, [1, 3, SIDE, SIDE])],
        [helper.make_tensor_value_info(name, kind, shape) for name, shape in shapes.items()],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
    return path


def onnx_artifact(tmp_path: Path, dtype: str, outputs: list[dict[str, Any]]) -> Path:
    model = several_onnx(tmp_path / "model.onnx", dtype)
    settings = Preprocessing(image_size=SIDE, resize_size=SIDE)
    inputs = {
        "name": "input", "shape": [1, 3, SIDE, SIDE], "layout": "NCHW", "dtype": dtype,
        "scale": None, "zero_point": None,
        "table": settings.table().astype(dtype).astype(np.float64).tolist(),
    }  # fmt: skip
    return write_outputs(tmp_path / "a", model, outputs, target="tensorrt", input=inputs)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_onnx_runtime_hands_over_every_output(
    library: ctypes.CDLL, tmp_path: Path, dtype: str
) -> None:
    ort = pytest.importorskip("onnxruntime")
    outputs = [
        output("logits", [1, len(LABELS)], dtype),
        output("top", [1], dtype),
        output("view", [1, 2, 2, 6, 6], dtype),
        output("features", [1, 4], dtype),
    ]
    folder = onnx_artifact(tmp_path, dtype, outputs)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    own = ort.InferenceSession(tmp_path / "model.onnx", options, providers=["CPUExecutionProvider"])
    names = [each.name for each in own.get_outputs()]
    assert names != [each["name"] for each in outputs]
    rng = np.random.default_rng(4)
    with opened(library, folder, "onnxruntime", "onnxruntime") as session:
        for _ in range(5):
            tensor = rng.normal(size=(1, 3, SIDE, SIDE)).astype(dtype)
            session.run(tensor)
            for name, expected in zip(names, own.run(None, {"input": tensor}), strict=True):
                stored, real = session.output(name)
                assert (stored.dtype, stored.shape) == (expected.dtype, expected.shape)
                np.testing.assert_array_equal(stored, expected)
                np.testing.assert_array_equal(real, expected.astype(np.float32))


def test_what_does_not_fit_is_refused_by_name(library: ctypes.CDLL, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    logits = output("logits", [1, len(LABELS)], "float32")
    top, view = output("top", [1], "float32"), output("view", [1, 2, 2, 6, 6], "float32")
    for outputs, message in (
        ([logits, top, view], "has 4 outputs, 3 are expected"),
        ([logits], "has 4 outputs, one is expected"),
        (
            [logits, top, view, output("feature", [1, 4], "float32")],
            "has no output 'feature' as the manifest says; it has 'features', 'logits', 'view'",
        ),
        (
            [logits, top, view, output("features", [1, 2, 2], "float32")],
            r"its output 'features' is float32 \[1, 4\], the manifest says float32 \[1, 2, 2\]",
        ),
    ):
        folder = onnx_artifact(tmp_path, "float32", outputs)
        with (
            pytest.raises(AssertionError, match=message),
            opened(library, folder, "onnxruntime", "onnxruntime"),
        ):
            pass
    with (
        pytest.raises(AssertionError, match="takes no runtime option 'strides'; it takes none"),
        opened(library, folder, "onnxruntime", "onnxruntime", strides="4"),
    ):
        pass
