"""A stand-in of what `edgevit compile --target qnn` writes, and of the library that runs it.

The portable file is real. A program for an SoC is a .tflite with one DISPATCH_OP, as LiteRT's
compiler plugins leave it, whose program is 64 bytes that mean nothing: the stand-in of the NPU's
library (tests/npu_standin/dispatch.cpp) answers with the first bytes of the input.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

from edgevit.files import read_tree, sha256_bytes, write_tree
from tests.cpp.make_tiny_tflite import Edge, build_for_npu

SOCS = ("SM8750", "SM8650")
DISPATCH = "libLiteRtDispatch_Qualcomm.so"
_STANDIN = Path(__file__).resolve().parent / "npu_standin/dispatch.cpp"


def npu_program(manifest: dict[str, Any]) -> bytes:
    """A program with the edges that a manifest tells, both int8."""
    edges = [
        Edge(edge["name"], tuple(edge["shape"]), edge["scale"], edge["zero_point"])
        for edge in (manifest["input"], *manifest["outputs"])
    ]
    return build_for_npu(*edges)


def write_npu_artifact(tflite: Path, folder: Path, socs: tuple[str, ...] = SOCS) -> Path:
    """The folder `folder` of target qnn, made of a folder of target tflite."""
    manifest = json.loads((tflite / "manifest.json").read_text())
    program = npu_program(manifest)
    files = {"portable.tflite": (tflite / "model.tflite").read_bytes()}
    files |= {f"Qualcomm_{soc}.tflite": program for soc in socs}
    folder.mkdir(parents=True)
    write_tree(folder / "model.litert", files)
    manifest["target"] = "qnn"
    manifest["options"] = {"io": "int8", "soc": ",".join(socs), "precision": "int8"}
    manifest["reference"] = None
    (folder / "manifest.json").write_text(json.dumps(manifest))
    seal(folder)
    return folder


def seal(folder: Path, **changes: Any) -> None:
    """Make the manifest fit the folder's files, with these top-level values changed."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text()) | changes
    files = read_tree(folder / "model.litert")
    size = sum(map(len, files.values()))
    manifest["artifact"] = {
        "file": "model.litert",
        "sha256": sha256_bytes(files),
        "size_bytes": size,
    }
    path.write_text(json.dumps(manifest))


def build_dispatch(folder: Path) -> Path:
    """The stand-in of the NPU's library, in a folder that LiteRT may be told."""
    compiler = shutil.which("c++")
    assert compiler is not None
    folder.mkdir(parents=True, exist_ok=True)
    library = folder / DISPATCH
    flags = ["-std=c++17", "-shared", "-fPIC"]
    subprocess.run([compiler, *flags, str(_STANDIN), "-o", str(library)], check=True)
    return folder
