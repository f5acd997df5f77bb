"""The vendors' compilers from our side: what they say, the gate, and every way in which they fail.

A stand-in is in their place (stand_in.py).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgevit.commands.compile import compile_command
from edgevit.errors import EdgevitError, GateFailed, InputError, ToolMissing
from edgevit.files import read_tree, write_tree
from edgevit.measure.report.page import write_report
from edgevit.targets import load_target
from edgevit.targets.artifact import load_artifact
from edgevit.targets.npu.compiler import compile_model
from edgevit.targets.npu.vendor import Vendor
from edgevit.targets.qnn import reasons, versions
from tests.npu import NPU_TARGETS
from tests.npu.stand_in import install
from tests.programs import make_program, seeded_pixels

QNN = load_target("qnn")
REFUSED = """\
7942000.0ms [  INFO ]  validate OpConfig with QERROR: [qnn_manager.cc:480]
QNN op validation failed: 'ElementWiseUnary_18' (type=ElementWiseUnary, operation=Sign)
  Inputs:
    [0] name="0_litert_37" dtype=QNN_DATATYPE_SFIXED_POINT_8 dims=[1,16,16,96] per-tensor-quant
  QNN error=3110. See the QNN validator log lines above for the specific reason.
ERROR: [qnn_compiler_plugin.cc:538]
LiteRT Op #17 'Sign' (code=158) is not supported in Qualcomm Compiler.
  Inputs:
    [0] name="stages.0.conv1"  tensor_idx=37
  Outputs:
    [0] name="stages.0.act"  tensor_idx=38
ateOpConfig started, backend = 0x1
ERROR: [qnn_compiler_plugin.cc:538]
LiteRT Op #19 'Custom' (code=32) is not supported in Qualcomm Compiler.
  Inputs:
    [0] name="stages.0.act"  tensor_idx=38
  Outputs:
    [0] name="stages.0.more"  tensor_idx=39
"""


def test_the_compilers_words_are_taken_by_the_tensors_name() -> None:
    """Lines of a real log, of a net in which two operators were replaced."""
    assert reasons(REFUSED) == {
        "stages.0.act": "QNN refuses ElementWiseUnary (Sign): error 3110",
        "stages.0.more": "not supported by Qualcomm's compiler",
    }
    assert reasons("") == {}


def test_versions_are_those_of_the_log() -> None:
    log = (
        "WARNING: [qnn_manager.cc:272] Qnn library version 2.40.0 is used. The version LiteRT "
        "using is 2.39.0.\nx Setting libnative architecture to v79 (requested arch is v75)\n"
    )
    assert versions(log) == {"qnn": "2.40.0", "qnn wanted": "2.39.0", "htp": "v75"}


def test_the_manifest_has_what_the_compiler_said_of_each_soc(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    install(monkeypatch, tmp_path / "tools")
    manifest = QNN.compile(make_program(), tmp_path / "out", soc=("SM8750", "SM8550"))
    assert manifest.options["soc"] == "SM8750,SM8550"
    files = read_tree(tmp_path / "out" / "model.litert")
    names = ["Qualcomm_SM8550.tflite", "Qualcomm_SM8750.tflite", "portable.tflite"]
    assert sorted(files) == names
    first, second = manifest.placement
    assert (first.soc, second.soc) == ("SM8750", "SM8550")
    assert (
        first.file == "Qualcomm_SM8750.tflite" and first.status == "compiled, not run on a device"
    )
    assert first.operators == first.npu_operators == sum(manifest.ops.values())
    assert first.size_bytes == len(files["Qualcomm_SM8750.tflite"])
    assert first.partitions == 1 and first.cpu == () and first.compile_s > 0
    assert first.compiler["sdk"] == "v0.stand-in"


def test_an_operator_on_the_cpu_fails_the_gate_by_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    install(monkeypatch, tmp_path / "tools", "cpu=GELU")
    program, out = make_program(), tmp_path / "out"
    gelus = [node.name for node in program.graph().nodes if node.kind == "gelu"]
    with pytest.raises(GateFailed, match="stay on the CPU") as error:
        QNN.compile(program, out)
    text = str(error.value)
    assert f"GELU {gelus[0]}: no reason given" in text and "Qualcomm SM8750" in text
    assert f"--allow-cpu {len(gelus)}" in text and "--target tflite" in text
    assert error.value.exit_code == 3 and not out.exists()
    with pytest.raises(GateFailed):
        QNN.compile(program, out, allow_cpu=len(gelus) - 1)
    manifest = QNN.compile(program, out, allow_cpu=len(gelus))
    (placement,) = manifest.placement
    assert [each.name for each in placement.cpu] == gelus
    assert placement.operators - placement.npu_operators == len(gelus)
    assert placement.partitions > 1
    QNN.check_artifact(out, program)


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        ("fail", "ended with exit code 3 for SM8750.*the graph could not be finalized"),
        ("crash", r"crashed \(SIGSEGV\)"),
        ("nothing", "gave no compiled model"),
    ],
)
def test_a_compiler_that_fails_is_exit_code_4_and_leaves_nothing(
    behaviour: str, message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    install(monkeypatch, tmp_path / "tools", behaviour)
    program = make_program().save(tmp_path / "m.evq")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    out = tmp_path / "build"
    arguments = [program, "--target", "qnn", "-o", out]
    result = CliRunner().invoke(compile_command, [str(each) for each in arguments])
    assert isinstance(result.exception, ToolMissing) and result.exception.exit_code == 4
    assert pytest.raises(ToolMissing, match=f"(?s){message}").matches(result.exception)
    assert not out.exists() and list(scratch.iterdir()) == []


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [("garbage", "not a readable model"), ("soc=SM8550", "compiled for Qualcomm SM8550")],
)
def test_a_file_that_is_not_what_was_asked_for_is_not_kept(
    behaviour: str, message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    install(monkeypatch, tmp_path / "tools", behaviour)
    with pytest.raises(EdgevitError, match=message):
        QNN.compile(make_program(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_file_of_another_soc_is_found_in_the_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A context binary that lies under another SoC's name, with a manifest made to fit."""
    install(monkeypatch, tmp_path / "tools")
    program, out = make_program(), tmp_path / "out"
    QNN.compile(program, out)
    folder = out / "model.litert"
    (folder / "Qualcomm_SM8750.tflite").rename(folder / "Qualcomm_SM8650.tflite")
    with pytest.raises(InputError, match="sha256"):
        load_artifact(out)
    from tests.target_contract import sha256_of

    manifest = json.loads((out / "manifest.json").read_text())
    manifest["artifact"]["sha256"] = sha256_of(read_tree(folder))
    (out / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(EdgevitError, match=r"Qualcomm_SM8650.tflite: it was compiled for .*SM8750"):
        QNN.check_artifact(out, program)


def test_an_interrupted_compiler_does_not_live_on(tmp_path: Path) -> None:
    """Ctrl-C while the compiler runs: its process is gone, and so are its files."""
    mark, scratch = tmp_path / "pid", tmp_path / "scratch"
    scratch.mkdir()
    make_program().save(tmp_path / "m.evq")
    code = (
        # Whoever runs the tests in the background has Ctrl-C ignored, and Python keeps that.
        "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "import sys, pytest\nfrom pathlib import Path\nfrom tests.npu.stand_in import install\n"
        f"install(pytest.MonkeyPatch(), Path({str(tmp_path / 'tools')!r}), 'hang={mark}')\n"
        "from edgevit.cli import main\n"
        f"sys.argv[1:] = ['compile', {str(tmp_path / 'm.evq')!r}, '--target', 'qnn', '-o', "
        f"{str(tmp_path / 'build')!r}]\nmain()\n"
    )
    environment = os.environ | {"TMPDIR": str(scratch)}
    running = subprocess.Popen([sys.executable, "-c", code], env=environment)
    deadline = time.monotonic() + 120
    while not (mark.exists() and mark.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    child = int(mark.read_text())
    running.send_signal(signal.SIGINT)
    assert running.wait(60) == 130
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)
    assert list(scratch.iterdir()) == [] and not (tmp_path / "build").exists()


def test_an_unknown_soc_gets_the_list(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install(monkeypatch, tmp_path / "tools")
    with pytest.raises(InputError, match="--soc .*'SM1'.*SM8350, SM8450.*SA8295"):
        QNN.compile(make_program(), tmp_path / "out", soc=("SM1",))
    with pytest.raises(InputError, match="twice"):
        QNN.compile(make_program(), tmp_path / "out", soc=("SM8750", "SM8750"))
    with pytest.raises(InputError, match="SM8350.*SA8295"):
        compile_model(b"", QNN.vendor, "SM1")


def test_each_target_takes_its_own_socs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install(monkeypatch, tmp_path / "tools")
    program = make_program().save(tmp_path / "m.evq")

    def run(*arguments: str) -> object:
        given = [program, "-o", tmp_path / "build", "--json", *arguments]
        return CliRunner().invoke(compile_command, [str(each) for each in given])

    both = ("--target", "qnn", "--target", "tensor")
    result = run(*both, "--soc", "SM8650", "--soc", "Tensor_G4")
    found = json.loads(result.stdout)
    assert {name: found[name]["options"]["soc"] for name in found} == {
        "qnn": "SM8650", "tensor": "Tensor_G4"
    }  # fmt: skip
    result = run("--target", "qnn", "--soc", "MT6991", "--force")
    assert isinstance(result.exception, InputError) and "MT6991" in str(result.exception)


@pytest.mark.parametrize("name", NPU_TARGETS)
def test_a_vendors_libraries_come_from_the_folder_that_is_named(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    sdk = install(monkeypatch, tmp_path / "tools")
    monkeypatch.setattr(Vendor, "_installed", lambda self: None)
    target, program = load_target(name), make_program()
    with pytest.raises(ToolMissing, match=r"compiler is not here: (get|pip install)"):
        target.compile(program, tmp_path / "out")
    with pytest.raises(InputError, match="is not a folder"):
        target.compile(program, tmp_path / "out", sdk=tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=f"there is no {target.vendor.library} in it"):
        target.compile(program, tmp_path / "out", sdk=tmp_path / "empty")
    manifest = target.compile(program, tmp_path / "out", sdk=sdk)
    assert "sdk" not in manifest.options  # where it lay is nobody else's
    compiled = sorted(read_tree(tmp_path / "out" / "model.litert"))
    assert compiled[-1] == "portable.tflite" and len(compiled) == (1 if name == "intel" else 2)


def test_a_float_artifact_is_one_to_compare_with(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    install(monkeypatch, tmp_path / "tools")
    manifest = QNN.compile(make_program(), tmp_path / "out", precision="float16")
    assert manifest.profile == "float16" and manifest.audit is None and not manifest.files
    assert manifest.input.dtype == "float32"
    with pytest.raises(InputError, match="--runner litert runs it on the CPU"):
        QNN.open_runner(load_artifact(tmp_path / "out"))
    runner = QNN.open_runner(load_artifact(tmp_path / "out"), runner="litert")
    assert runner.scores(seeded_pixels(2)).shape == (2, 10)
    with pytest.raises(InputError, match="--io uint8 needs --precision int8"):
        QNN.compile(make_program(), tmp_path / "more", precision="float16", io="uint8")


def test_several_outputs_go_through_a_compiler(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from dataclasses import replace

    from tests.programs import with_graph

    install(monkeypatch, tmp_path / "tools")
    program = make_program()
    graph = program.graph()
    gelu = next(node.name for node in graph.nodes if node.kind == "gelu")
    both = with_graph(program, replace(graph, outputs=(*graph.outputs, gelu)))
    manifest = QNN.compile(both, tmp_path / "out")
    assert [output.name for output in manifest.outputs] == ["logits", gelu]
    QNN.check_artifact(tmp_path / "out", both)


def test_the_list_of_socs_is_that_of_the_installed_plugins() -> None:
    """LiteRT's own enumerations, but for "ALL"."""
    from importlib import import_module

    folders = {"qnn": "qualcomm", "mediatek": "mediatek", "tensor": "google_tensor",
               "intel": "intel_openvino"}  # fmt: skip
    assert set(folders) == set(NPU_TARGETS)
    for name, folder in folders.items():
        module = import_module(f"ai_edge_litert.aot.vendors.{folder}.target")
        theirs = {model.value for model in module.SocModel} - {"ALL"}
        vendor = load_target(name).vendor
        assert set(vendor.socs) == theirs
        assert vendor.manufacturer in {each.value for each in module.SocManufacturer}


def test_a_folder_of_no_npu_artifact_is_refused(tmp_path: Path) -> None:
    write_tree(tmp_path / "x", {"a": b"b"})
    with pytest.raises(EdgevitError, match="portable.tflite: it is missing"):
        QNN.read(read_tree(tmp_path / "x"))


def test_what_the_compiler_said_stands_on_the_page(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    install(monkeypatch, tmp_path / "tools")
    manifest = QNN.compile(make_program(), tmp_path / "build" / "qnn")
    write_report(tmp_path / "build")
    page = (tmp_path / "build" / "report.html").read_text()
    (placement,) = manifest.placement
    assert f"<p>Qualcomm SM8750: {placement}</p>" in page
    assert "compiled, not run on a device" in str(placement)
