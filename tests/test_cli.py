"""The command line as a user meets it, and the rules of the package's structure."""

from __future__ import annotations

import ast
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest

from edgevit.cli import COMMANDS, cli

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "edgevit"
TOOLKITS = {
    "torch", "nncf", "tensorflow", "ai_edge_litert", "flatbuffers", "coremltools", "onnx",
    "tensorrt", "onnxruntime", "google", "tqdm", "PIL", "rich", "safetensors", "jsonschema",
}  # fmt: skip

# Strictly downwards: a module may import only from layers above its own line.
LAYERS = [
    ["choices", "console", "errors", "leftovers", "limits", "project", "system"],
    ["device", "files", "options", "progress", "schema"],
    ["data"],
    ["kernels"],
    ["ops"],
    ["graph"],
    ["tasks"],
    ["models"],
    ["program", "repvit"],
    ["runs"],
    ["quantize"],
    ["train"],
    ["targets"],
    ["measure", "device_groups"],
    ["api", "apps", "doctor"],
    ["demo"],
    ["commands"],
    ["cli"],
    ["__main__"],
]


def edgevit(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "edgevit", *arguments], capture_output=True, text=True
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(name: str) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    text = command.get_help(click.Context(command, info_name=name))
    assert f"edgevit {name}" in text.split("Example:")[1]
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert all(option.startswith("-") for option in parameter.opts)


def test_importing_edgevit_imports_no_toolkit() -> None:
    code = "import sys, edgevit, edgevit.cli; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not TOOLKITS & set(done.stdout.split())


def test_modules_import_strictly_downwards() -> None:
    level = {name: i for i, layer in enumerate(LAYERS) for name in layer}
    wrong = []
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts == ("__init__",):
            continue
        own = parts[0]
        assert own in level, f"{path}: give the module its layer in LAYERS"
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            for name in names:
                found = name.split(".")
                if found[0] != "edgevit" or len(found) < 2 or found[1] == own:
                    continue
                if level[found[1]] >= level[own]:
                    wrong.append(f"{'.'.join(parts)} imports {name}")
    assert not wrong


def test_each_heavy_toolkit_is_imported_inside_functions() -> None:
    # torch is the language of the model side and stands at the top of its modules.
    heavy = TOOLKITS - {"torch", "safetensors"}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                assert not {n.split(".")[0] for n in names} & heavy, path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["inspect", "missing.pth"], "missing.pth"),
        (["fuse", "missing.pth", "-o", "x.safetensors"], "missing.pth"),
        (["quantize", "missing.pth", "--data", "nowhere", "-o", "m.evq"], "missing.pth"),
        (["compile", "missing.evq", "--target", "tflite"], "missing.evq"),
        (["compile", "missing.evq", "--target", "abacus"], "abacus"),
        (["run", "nowhere", "photo.jpg"], "nowhere is not an artifact folder"),
        (["parity", "nowhere", "--data", "nowhere"], "nowhere is not an artifact folder"),
        (["package", "--target", "coreml"], "build/coreml: no such artifact folder"),
        (["package", "--target", "abacus"], "abacus"),
        (["lint", "missing.onnx"], "missing.onnx"),
        (["validate", "nowhere", "--data", "nowhere"], "nowhere"),
        (
            ["validate", "nowhere", "--data", "x", "--device", "ssh://-oX@h"],
            "--device 'ssh://-oX@h'",
        ),
        (["report", "nowhere"], "nowhere"),
        (["quantize", "--unknown"], "--unknown"),
        (["frobnicate"], "frobnicate"),
    ],
)
def test_bad_input_is_named_and_exits_with_2(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = edgevit(*arguments)
    assert done.returncode == 2
    assert message in done.stderr and "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_doctor_lists_toolkits_and_targets() -> None:
    done = edgevit("doctor", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert {"torch", "nncf", "cmake", "ssh", "adb"} <= {row["name"] for row in found["tools"]}
    assert "tflite" in {row["name"] for row in found["targets"]}


def test_doctor_says_how_devices_are_reached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgevit.doctor import examine

    def states() -> dict[str, str]:
        return {row["name"]: row["state"] for row in examine()["tools"]}

    monkeypatch.setenv("PATH", str(tmp_path))
    assert states()["ssh"] == "not found: apt-get install -y openssh-client"
    assert states()["adb"] == "not found: apt-get install -y adb"
    for name, answer in (("ssh", "[ $1 = -V ] && echo OpenSSH_9 >&2"), ("adb", "echo Bridge 1")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{answer}\n")
        (tmp_path / name).chmod(0o755)
    assert (states()["ssh"], states()["adb"]) == ("OpenSSH_9", "Bridge 1")
    (tmp_path / "adb").write_bytes(b"\x7fELF of another machine")
    assert states()["adb"].startswith(f"{tmp_path}/adb does not run: ")
    assert "--device" in next(r["purpose"] for r in examine()["tools"] if r["name"] == "ssh")


def test_an_interrupt_leaves_no_output_and_exits_with_130(
    tmp_path: Path, embedded_checkpoint: Path, embedded_val: Path
) -> None:
    out = tmp_path / "fused.safetensors"
    process = subprocess.Popen(
        [sys.executable, "-m", "edgevit", "fuse", str(embedded_checkpoint), "-o", str(out),
         "--data", str(embedded_val), "--image-size", "224", "--images", "1000"],
        stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    time.sleep(4)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and "interrupted" in errors
    assert list(tmp_path.iterdir()) == []
