"""The back-end for a phone's NPU, by the harness: what it refuses here, and what it says of a run.

LiteRT is real. The NPU's library is a stand-in that answers with the first bytes of the input; the
programs are stand-ins too, but for one test, which has Qualcomm's compiler make one where it is
installed. No phone has run any of it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import load_file

from edgevit.commands.validate import validate_command
from edgevit.errors import InputError, ToolMissing
from edgevit.measure.harness import run_harness
from edgevit.measure.request import HarnessRequest
from edgevit.measure.validate import limits_of_target
from edgevit.targets import load_target
from edgevit.targets.artifact import load_artifact
from tests.npu_folders import DISPATCH, build_dispatch, seal, write_npu_artifact
from tests.programs import make_program
from tests.test_harness import picture

DISPATCH_VARIABLE = "EDGEVIT_LITERT_DISPATCH_DIR"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    build = tmp_path_factory.mktemp("npu") / "build"
    load_target("tflite").compile(make_program(), build / "tflite")
    return write_npu_artifact(build / "tflite", build / "qnn")


@pytest.fixture(scope="module")
def data(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    images = tmp_path_factory.mktemp("images")
    for number, label in enumerate(load_artifact(folder).manifest.labels[:3]):
        (images / label).mkdir()
        picture(number, 70, 66).save(images / label / "a.png")
    return images


@pytest.fixture(scope="module")
def dispatch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_dispatch(tmp_path_factory.mktemp("dispatch"))


@pytest.fixture(autouse=True)
def no_phone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(DISPATCH_VARIABLE, raising=False)


def validated(folder: Path, data: Path, *more: str) -> Exception:
    given = [str(folder), "--data", str(data), "--no-gate", *more]
    done = CliRunner().invoke(validate_command, given)
    assert isinstance(done.exception, Exception), done.output
    assert not (folder / "validation.json").exists()
    return done.exception


def test_validate_says_that_it_needs_the_phone(folder: Path, data: Path) -> None:
    error = validated(folder, data)
    assert isinstance(error, ToolMissing) and error.exit_code == 4
    message = str(error)
    assert "needs the phone" in message and "SM8750, SM8650" in message
    assert f"`edgevit validate {folder} --device adb:SERIAL`" in message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["soc=SM8550"], "has no program for the SoC SM8550; it has SM8750, SM8650"),
        (["soc=SM8750"], f"{DISPATCH}, by which LiteRT reaches .* {DISPATCH_VARIABLE}"),
        (["soc=SM8750", "dispatch_dir=/nowhere"], f"/nowhere: holds no {DISPATCH}"),
    ],
)
def test_what_is_missing_is_named_with_what_to_do(
    folder: Path, data: Path, options: list[str], message: str
) -> None:
    error = validated(folder, data, *(word for each in options for word in ("-O", each)))
    assert isinstance(error, ToolMissing) and re.search(message, str(error)), error


def test_a_library_that_is_none_ends_the_run(folder: Path, data: Path, tmp_path: Path) -> None:
    (tmp_path / DISPATCH).write_bytes(b"no library")
    error = validated(folder, data, "-O", "soc=SM8750", "-O", f"dispatch_dir={tmp_path}")
    assert isinstance(error, ToolMissing) and "nothing was run on the CPU" in str(error)


@pytest.mark.parametrize("step", ["initialize", "program", "invoke"])
def test_an_npu_that_fails_ends_the_run(
    folder: Path, data: Path, dispatch: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEVIT_STANDIN_FAILS", step)
    error = validated(folder, data, "-O", "soc=SM8750", "-O", f"dispatch_dir={dispatch}")
    assert isinstance(error, ToolMissing)
    assert "LiteRT cannot run all of the model on the accelerator here" in str(error)


@pytest.mark.parametrize("by_variable", [False, True])
def test_the_result_names_the_npu_that_ran(
    folder: Path,
    data: Path,
    dispatch: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    by_variable: bool,
) -> None:
    options = {"soc": "SM8650"}
    if by_variable:
        monkeypatch.setenv(DISPATCH_VARIABLE, str(dispatch))
    else:
        options["dispatch_dir"] = str(dispatch)
    logits, inputs = tmp_path / "logits", tmp_path / "inputs"
    result = run_harness(
        HarnessRequest(folder, data, logits=logits, dump_inputs=inputs, runtime_options=options)
    )
    assert (result["target"], result["backend"]) == ("qnn", "qnn")
    runtime = result["runtime"]
    assert runtime["name"] == "LiteRT" and runtime["accelerator_requested"] == "npu"
    assert runtime["device"] == "Qualcomm SM8650" and runtime["non_cpu_fully_accelerated"] is True
    assert result["ops"]["delegated"] == result["ops"]["total"] == 1
    # By the stand-in: the first bytes of what it was given, as logits.
    (output,) = load_artifact(folder).manifest.outputs
    given = load_file(inputs)["inputs"].reshape(3, -1)[:, : output.shape[1]]
    assert output.scale is not None and output.zero_point is not None
    expected = (given.astype(np.float32) - output.zero_point) * np.float32(output.scale)
    np.testing.assert_array_equal(load_file(logits)["logits"], expected)


def test_a_program_for_another_soc_in_the_folder_is_bad_input(
    folder: Path, data: Path, tmp_path: Path
) -> None:
    changed = tmp_path / "qnn"
    shutil.copytree(folder, changed)
    programs = changed / "model.litert"
    (programs / "Qualcomm_SM8650.tflite").rename(programs / "Qualcomm_SM8550.tflite")
    seal(changed)
    error = validated(changed, data)
    assert isinstance(error, InputError) and error.exit_code == 2
    assert "Qualcomm_SM8550.tflite: is none of the artifact's files" in str(error)


def test_a_file_without_an_npus_program_is_not_run_in_its_place(
    folder: Path, data: Path, dispatch: Path, tmp_path: Path
) -> None:
    changed = tmp_path / "qnn"
    shutil.copytree(folder, changed)
    portable = (changed / "model.litert/portable.tflite").read_bytes()
    (changed / "model.litert/Qualcomm_SM8650.tflite").write_bytes(portable)
    seal(changed)
    error = validated(changed, data, "-O", "soc=SM8650", "-O", f"dispatch_dir={dispatch}")
    assert isinstance(error, ToolMissing) and "cannot run all of the model" in str(error)


def test_the_budgets_are_the_targets() -> None:
    assert limits_of_target("qnn").min_agreement == 98.0


def compiled_by_qualcomm(model: Path, out: Path) -> None:
    """By LiteRT's plugin and QAIRT's compiler, as npu.md has it; skips where they are missing."""
    litert, qnn = find_spec("ai_edge_litert"), find_spec("onnxruntime_qnn")
    compiler = shutil.which("cc")
    if litert is None or qnn is None or compiler is None or qnn.origin is None:
        pytest.skip("needs onnxruntime-qnn (pip install 'edgevit[qnn]') and a C compiler")
    import onnxruntime_qnn

    libraries = Path(onnxruntime_qnn.get_library_path()).parent
    package = Path(litert.origin or "").parent
    stub = out.parent / "libQnnLpai.so"  # that the plugin is linked to and uses nothing of
    flags = ["-shared", "-fPIC", "-x", "c", "/dev/null"]
    subprocess.run([compiler, *flags, "-o", str(stub)], check=True)
    done = subprocess.run(
        [
            str(package / "tools/apply_plugin_main"),
            *["--cmd=apply", f"--model={model}", f"--o={out}"],
            *["--soc_manufacturer=Qualcomm", "--soc_model=SM8650"],
            f"--libs={package / 'vendors/qualcomm/compiler'}",
        ],
        env=os.environ | {"LD_LIBRARY_PATH": f"{libraries}:{stub.parent}"},
        capture_output=True,
        timeout=120,
    )
    assert done.returncode == 0 and out.is_file(), done.stderr[-2000:]


def test_a_real_context_binary_gets_as_far_as_the_npu(
    folder: Path, data: Path, dispatch: Path, tmp_path: Path
) -> None:
    """Compiled for a Snapdragon, not run on one: the stand-in takes the program and answers."""
    changed = tmp_path / "qnn"
    shutil.copytree(folder, changed)
    program = changed / "model.litert/Qualcomm_SM8650.tflite"
    compiled_by_qualcomm(changed / "model.litert/portable.tflite", tmp_path / "made.tflite")
    shutil.copyfile(tmp_path / "made.tflite", program)
    seal(changed)
    options = {"soc": "SM8650", "dispatch_dir": str(dispatch)}
    result = run_harness(HarnessRequest(changed, data, runtime_options=options))
    assert result["runtime"]["accelerator_requested"] == "npu"
    assert result["ops"]["total"] == 1, "an operator was left to the CPU"
    # Cut short, it is refused before LiteRT reads it.
    program.write_bytes(program.read_bytes()[:-1])
    seal(changed)
    with pytest.raises(InputError, match="an NPU's program lies behind its end"):
        run_harness(HarnessRequest(changed, data, runtime_options=options))
