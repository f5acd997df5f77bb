"""Builds with TensorRT-RTX on a CPU: not a TensorRT result (see tools/build_with_rtx.py)."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from edgevit.targets.tensorrt import TARGET as tensorrt
from tests.conftest import ROOT
from tests.programs import make_program, real_images, trained_program

pytestmark = pytest.mark.skipif(
    find_spec("tensorrt_rtx") is None, reason="TensorRT-RTX is not installed: make test-rtx"
)

# float16 scales become float32 ones inside a fused node: exact, and unavoidable in opset 20.
HARMLESS = ("Converting conv activation scales to fp32", "Converting conv weight scales to fp32")


def build(path: Path) -> dict[str, object]:
    # A process of its own: the library crashes where Python would raise.
    command = [sys.executable, str(ROOT / "tools" / "build_with_rtx.py"), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.stdout, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    "options",
    [{}, {"io": "float32"}, {"io": "float32", "compute_precision": "float32"}],
    ids=["float16", "float32-edges", "float32"],
)
def test_a_program_parses_without_a_word_and_builds(
    tmp_path: Path, options: dict[str, str]
) -> None:
    tensorrt.compile(make_program(), tmp_path / "out", **options)
    found = build(tmp_path / "out" / "model.onnx")
    assert found["parsed"] and not found["parser_errors"] and not found["parser_messages"]
    messages = [text for _, text in found["builder_messages"]]
    assert [text for text in messages if not any(known in text for known in HARMLESS)] == []
    assert found["engine_bytes"] > 0


def test_the_trained_net_builds(
    tmp_path: Path, embedded_checkpoint: Path, embedded_val: Path
) -> None:
    images = real_images(embedded_val, 16, 64)
    program = trained_program(embedded_checkpoint, images, "portable")
    tensorrt.compile(program, tmp_path / "out")
    found = build(tmp_path / "out" / "model.onnx")
    assert not found["parser_messages"] and found["engine_bytes"] > 1_000_000


def test_a_graph_it_cannot_parse_is_seen(tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    tensorrt.compile(make_program(), tmp_path / "out")
    broken.write_bytes((tmp_path / "out" / "model.onnx").read_bytes()[:2000])
    assert not build(broken)["parsed"]
