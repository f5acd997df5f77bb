"""`edgevit lint`."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
from click.testing import CliRunner, Result
from onnx import ModelProto

from edgevit.commands.lint import lint_command
from edgevit.errors import EdgevitError
from edgevit.targets.tensorrt.lint import lint
from tests.lint.faults import (
    float_convolution,
    unsigned,
)
from tests.lint.nets import CHANNELS, Net, repvit
from tests.test_harness import edit_manifest, write_artifact


def run(*arguments: object) -> Result:
    return CliRunner().invoke(lint_command, [str(argument) for argument in arguments])


def exit_code(result: Result) -> int:
    """The code that `edgevit` ends with: cli.main turns edgevit's errors into theirs."""
    error = result.exception
    return error.exit_code if isinstance(error, EdgevitError) else result.exit_code


def saved(model: ModelProto, folder: Path) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def test_exit_codes(tmp_path: Path) -> None:
    net, output = repvit()
    good = run(saved(net.model(output), tmp_path))
    assert exit_code(good) == 0 and "none of 18 rules" in good.output
    warned = run(saved(float_convolution(), tmp_path))
    assert exit_code(warned) == 0 and "TRT009" in warned.output
    strict = run(saved(float_convolution(), tmp_path), "--strict")
    assert exit_code(strict) == 3 and "1 error(s)" in str(strict.exception)
    assert exit_code(run(tmp_path / "gone.onnx")) == 2
    assert exit_code(run(tmp_path)) == 2


def test_an_artifact_folder_is_read_by_its_manifest(tmp_path: Path) -> None:
    folder = write_artifact(tmp_path / "tensorrt")
    result = run(folder)
    assert exit_code(result) == 2 and "model.bin" in str(result.exception)
    data = saved(float_convolution(), folder).read_bytes()
    entry = {"file": "model.onnx", "sha256": hashlib.sha256(data).hexdigest()}
    edit_manifest(folder, target="tensorrt", artifact=entry | {"size_bytes": len(data)})
    result = run(folder)
    assert exit_code(result) == 0 and "TRT009" in result.output
    (folder / "model.onnx").write_bytes(data + b"\0")
    result = run(folder)
    assert exit_code(result) == 2 and "compile it again" in str(result.exception)


def test_the_report_has_every_rule_and_every_node(tmp_path: Path) -> None:
    net = Net()
    model = net.model(net.conv(net.conv(net.qdq("x", kind=np.uint8), float_c(net)), float_c(net)))
    result = run(saved(model, tmp_path))
    assert exit_code(result) == 3
    for finding in lint(model):
        for text in (finding.rule, finding.node, finding.what, finding.why, finding.fix):
            assert text in result.output
    assert result.output.count("  at   ") == 3


def float_c(net: Net) -> str:
    return net.const(np.ones([CHANNELS, CHANNELS, 1, 1], np.float32))


def test_json_holds_the_findings(tmp_path: Path) -> None:
    path = saved(unsigned(), tmp_path)
    result = run(path, "--json")
    assert exit_code(result) == 3
    found = json.loads(result.stdout)
    assert (found["path"], found["errors"], found["warnings"]) == (str(path), 1, 0)
    (row,) = found["findings"]
    assert row.keys() == {"rule", "level", "node", "what", "why", "fix"}
    assert row["rule"] == "TRT004"


def test_help_has_an_example() -> None:
    assert "Example:\n" in run("--help").output
