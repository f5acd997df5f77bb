"""The ONNX Runtime back-end: its logits are those of onnxruntime's Python, bit for bit."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from edgevit.data.images import Preprocessing
from edgevit.errors import InputError, ToolMissing
from edgevit.measure.harness import find_runtime, run_harness
from edgevit.measure.request import HarnessRequest
from edgevit.measure.validate import limits_of_target
from tests.test_harness import LABELS, edit_manifest, picture, write_artifact

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

SIDE = 8


def tiny_onnx(dtype: str, rng: np.random.Generator, shape: list[Any] | None = None) -> bytes:
    """A convolution between Q/DQ pairs, GELU, a global mean and a linear layer."""
    from onnx import TensorProto, helper, numpy_helper

    kind = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16}[dtype]
    real = np.dtype(dtype)
    constants = {
        "x_scale": np.array(0.03125, real),
        "x_zero": np.array(0, np.int8),
        "w": rng.integers(-127, 128, (4, 3, 3, 3)).astype(np.int8),
        "w_scale": (rng.uniform(0.5, 1.5, 4) / 128).astype(real),
        "w_zero": np.zeros(4, np.int8),
        "b": rng.normal(size=4).astype(real),
        "head": rng.normal(size=(4, len(LABELS))).astype(real),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["input", "x_scale", "x_zero"], ["x_q"], "q"),
        helper.make_node("DequantizeLinear", ["x_q", "x_scale", "x_zero"], ["x"], "dq"),
        helper.make_node("DequantizeLinear", ["w", "w_scale", "w_zero"], ["w_dq"], "wdq", axis=0),
        helper.make_node("Conv", ["x", "w_dq", "b"], ["c"], "conv"),
        helper.make_node("Gelu", ["c"], ["g"], "gelu"),
        helper.make_node("GlobalAveragePool", ["g"], ["m"], "mean"),
        helper.make_node("Flatten", ["m"], ["f"], "flatten"),
        helper.make_node("MatMul", ["f", "head"], ["logits"], "matmul"),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("input", kind, shape or [1, 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("logits", kind, [1, len(LABELS)])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", 20)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()


def write_onnx_artifact(folder: Path, model: bytes, dtype: str) -> Path:
    """An artifact folder as the tensorrt target writes it, around `model`."""
    settings = Preprocessing(image_size=SIDE, resize_size=SIDE)
    write_artifact(folder, image_size=SIDE, resize_size=SIDE)
    (folder / "model.bin").unlink()
    (folder / "model.onnx").write_bytes(model)
    plain = {"dtype": dtype, "scale": None, "zero_point": None}
    table = settings.table().astype(dtype).astype(np.float64).tolist()
    edit_manifest(
        folder,
        target="tensorrt",
        artifact={
            "file": "model.onnx",
            "sha256": hashlib.sha256(model).hexdigest(),
            "size_bytes": len(model),
        },
        options={"io": dtype},
        input={
            "name": "input", "shape": [1, 3, SIDE, SIDE], "layout": "NCHW", "table": table, **plain
        },
        outputs=[{"name": "logits", "shape": [1, len(LABELS)], **plain}],
    )  # fmt: skip
    return folder


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    for i, label in enumerate(LABELS):
        (folder / label).mkdir(parents=True)
        picture(i).save(folder / label / "a.png")
        picture(i + 10, 30, 50).save(folder / label / "b.png")
    return folder


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_the_logits_are_those_of_onnxruntime(
    tmp_path: Path, images: Path, dtype: str, threads: int
) -> None:
    model = tiny_onnx(dtype, np.random.default_rng(1))
    artifact = write_onnx_artifact(tmp_path / "artifact", model, dtype)
    files = {"logits": tmp_path / "l", "dump_inputs": tmp_path / "i", "profile": tmp_path / "p"}
    result = run_harness(
        HarnessRequest(artifact, images, backend="onnxruntime", threads=threads, **files)
    )

    inputs = load_file(tmp_path / "i")["inputs"]
    assert inputs.dtype == dtype
    assert inputs.shape == (6, 3, SIDE, SIDE)
    assert len(np.unique(inputs)) > 50
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    expected = np.concatenate([session.run(None, {"input": x[None]})[0] for x in inputs])
    logits = load_file(tmp_path / "l")["logits"]
    assert expected.dtype == dtype
    assert np.array_equal(logits, expected.astype(np.float32))
    assert len(np.unique(logits)) > 10

    assert (result["target"], result["backend"]) == ("tensorrt", "onnxruntime")
    runtime = result["runtime"]
    assert (runtime["name"], runtime["version"]) == ("ONNX Runtime", ort.__version__)
    assert runtime["accelerator_requested"] == "cpu"
    library = find_runtime("onnxruntime")
    assert library is not None
    assert runtime["library"] == library.name
    assert runtime["library_sha256"] == hashlib.sha256(library.read_bytes()).hexdigest()
    assert result["latency_us"]["device"] is None


def test_each_op_is_counted_and_timed(tmp_path: Path, images: Path) -> None:
    model = tiny_onnx("float32", np.random.default_rng(1))
    artifact = write_onnx_artifact(tmp_path / "artifact", model, "float32")
    result = run_harness(
        HarnessRequest(artifact, images, backend="onnxruntime", profile=tmp_path / "p")
    )
    times = json.loads((tmp_path / "p").read_text())["op_times"]
    ops = result["ops"]
    assert ops["total"] == len(times) > 3
    assert (ops["delegated"], ops["not_delegated"]) == (None, None)
    assert ops["reason"] == "ONNX Runtime's CPU provider runs every op itself"
    assert {op["runs"] for op in times} == {50}
    assert {"GlobalAveragePool", "QuantizeLinear"} <= {op["type"] for op in times}
    assert [op["index"] for op in times] == list(range(len(times)))
    assert not [op for op in times if op["delegated"] or op["precision"]]


def test_the_pixels_are_the_tables_halves(tmp_path: Path, images: Path) -> None:
    artifact = write_onnx_artifact(
        tmp_path / "artifact", tiny_onnx("float16", np.random.default_rng(1)), "float16"
    )
    run_harness(HarnessRequest(artifact, images, backend="null", dump_inputs=tmp_path / "i"))
    stored = load_file(tmp_path / "i")["inputs"]
    table = np.array(json.loads((artifact / "manifest.json").read_text())["input"]["table"])
    for channel in range(3):
        assert np.isin(stored[:, channel], table[channel].astype(np.float16)).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m["input"]["table"][1].__setitem__(7, 0.1), r"table holds 0\.1.*no float16"),
        (lambda m: m["input"]["table"][0].__setitem__(0, 70000), "table holds 70000"),
        (lambda m: m["input"].update(scale=0.5, zero_point=0), "null for floats"),
        (lambda m: m["outputs"][0].update(dtype="float32"), "its output is float16"),
        (lambda m: m["input"].update(dtype="float32"), "its input is float16.*float32"),
    ],
)
def test_a_manifest_that_does_not_fit_the_model_is_refused(
    tmp_path: Path, images: Path, change: Any, message: str
) -> None:
    model = tiny_onnx("float16", np.random.default_rng(1))
    artifact = write_onnx_artifact(tmp_path / "artifact", model, "float16")
    manifest = json.loads((artifact / "manifest.json").read_text())
    change(manifest)
    (artifact / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=message):
        run_harness(HarnessRequest(artifact, images, backend="onnxruntime"))


def test_a_model_with_open_sides_is_refused(tmp_path: Path, images: Path) -> None:
    model = tiny_onnx("float32", np.random.default_rng(1), ["n", 3, SIDE, SIDE])
    artifact = write_onnx_artifact(tmp_path / "artifact", model, "float32")
    with pytest.raises(InputError, match=r"its input is float32 \[-1, 3, 8, 8\]"):
        run_harness(HarnessRequest(artifact, images, backend="onnxruntime"))


@pytest.mark.parametrize("cut", [0, 10, 200])
def test_a_file_that_is_no_model_is_refused(tmp_path: Path, images: Path, cut: int) -> None:
    model = tiny_onnx("float32", np.random.default_rng(1))[:cut]
    artifact = write_onnx_artifact(tmp_path / "artifact", model, "float32")
    with pytest.raises(InputError, match=r"model\.onnx: ONNX Runtime cannot open it|has 0 inputs"):
        run_harness(HarnessRequest(artifact, images, backend="onnxruntime"))


def test_an_artifact_of_another_kind_is_refused(tmp_path: Path, images: Path) -> None:
    artifact = write_artifact(tmp_path / "artifact")
    with pytest.raises(InputError, match=r"model\.bin: the onnxruntime back-end runs \.onnx files"):
        run_harness(HarnessRequest(artifact, images, backend="onnxruntime"))


def test_a_missing_or_wrong_library_is_named(
    tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_onnx("float32", np.random.default_rng(1))
    artifact = write_onnx_artifact(tmp_path / "artifact", model, "float32")
    with pytest.raises(ToolMissing, match=r"no such ONNX Runtime library.*pip install onnxruntime"):
        run_harness(
            HarnessRequest(artifact, images, backend="onnxruntime", runtime=tmp_path / "none.so")
        )
    (tmp_path / "text.so").write_text("no library")
    with pytest.raises(ToolMissing, match="cannot load ONNX Runtime"):
        run_harness(
            HarnessRequest(artifact, images, backend="onnxruntime", runtime=tmp_path / "text.so")
        )
    litert = find_runtime("tflite")
    if litert is not None:
        with pytest.raises(ToolMissing, match="it lacks OrtGetApiBase"):
            run_harness(HarnessRequest(artifact, images, backend="onnxruntime", runtime=litert))
    library = find_runtime("onnxruntime")
    monkeypatch.setenv("EDGEVIT_ONNXRUNTIME_LIB", str(tmp_path / "gone.so"))
    with pytest.raises(ToolMissing, match=r"gone\.so: no such ONNX Runtime library"):
        run_harness(HarnessRequest(artifact, images, backend="onnxruntime"))
    monkeypatch.setenv("EDGEVIT_ONNXRUNTIME_LIB", str(library))
    run_harness(HarnessRequest(artifact, images, backend="onnxruntime"))


def test_it_is_a_runtime_and_no_target(tmp_path: Path, images: Path) -> None:
    with pytest.raises(InputError, match="takes no runtime option 'plan_cache'"):
        artifact = write_onnx_artifact(
            tmp_path / "artifact", tiny_onnx("float32", np.random.default_rng(1)), "float32"
        )
        run_harness(
            HarnessRequest(
                artifact,
                images,
                backend="onnxruntime",
                runtime_options={"plan_cache": str(tmp_path)},
            )
        )
    assert limits_of_target("tensorrt").max_drop == 0.5
