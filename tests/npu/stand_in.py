"""A stand-in for ai-edge-litert's apply_plugin_main with a vendor's compiler behind it.

It divides a model as the real one does and writes the same kind of file, with a few bytes in place
of the context binary: nothing could run that. Its log has the real one's lines. What it does beside
that is told by EDGEVIT_STAND_IN: "cpu=GELU" leaves the GELUs to the CPU, "fail", "crash", "hang",
"nothing", "garbage" and "soc=SM1" (stamped for another SoC) are what their names say.
"""

from __future__ import annotations

import os
import signal
import stat
import sys
import time
from pathlib import Path

import pytest

_BYTECODE = b"stand-in for a context binary"


def install(monkeypatch: pytest.MonkeyPatch, folder: Path, behaviour: str = "") -> Path:
    """Puts the stand-in in the real program's place; returns a folder that passes for every SDK."""
    from edgevit.targets import load_target, target_names
    from edgevit.targets.npu import compiler, vendor

    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "apply_plugin_main"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {Path(__file__)} "$@"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    sdk = folder / "sdk"
    (sdk / "lib").mkdir(parents=True, exist_ok=True)
    for name in target_names():
        known = getattr(load_target(name), "vendor", None)
        if known is not None:
            for library in (known.library, *known.stand_ins.values()):
                (sdk / "lib" / library).write_bytes(b"")
    monkeypatch.setattr(compiler, "applier", lambda: program)
    monkeypatch.setattr(vendor.Vendor, "_installed", lambda self: sdk / "lib")
    monkeypatch.setenv("EDGEVIT_STAND_IN", behaviour)
    return sdk


def main() -> None:
    flags = dict(each.removeprefix("--").split("=", 1) for each in sys.argv[1:])
    how, _, what = os.environ.get("EDGEVIT_STAND_IN", "").partition("=")
    print(
        "INFO: [compiler_plugin.cc:948] Applying plugin with SDK version: v0.stand-in", flush=True
    )
    if how == "hang":
        Path(what).write_text(str(os.getpid()))
        time.sleep(600)
    if how == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if how == "fail":
        print("INFO: nothing to see\nERROR: [plugin.cc:1] the graph could not be finalized")
        sys.exit(3)
    if how == "nothing":
        return
    model, total, kept, parts = divided(
        Path(flags["model"]).read_bytes(), what if how == "cpu" else ""
    )
    print(
        "INFO: [compiler_plugin.cc:742] Partitioned subgraph<0>, "
        f"selected {total - kept} ops, from a total of {total} ops. "
        f"resulted in {parts} partitions."
    )
    soc = what if how == "soc" else flags["soc_model"]
    data = b"junk" if how == "garbage" else finished(model, flags["soc_manufacturer"], soc)
    Path(flags["o"]).write_bytes(data)


def divided(data: bytes, left: str):
    """The model with every run of operators that are not `left` as one; and the counts."""
    from ai_edge_litert import schema_py_generated as s

    model = s.ModelT.InitFromObj(s.Model.GetRootAs(data, 0))
    names = {value: name for name, value in vars(s.BuiltinOperator).items()}
    graph = model.subgraphs[0]
    code = s.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = s.BuiltinOperator.CUSTOM
    code.customCode, code.version = b"DISPATCH_OP", 1
    model.operatorCodes.append(code)
    constant = {i for i, t in enumerate(graph.tensors) if model.buffers[t.buffer].data is not None}
    runs: list[list] = []
    kept = 0
    for operator in graph.operators:
        found = model.operatorCodes[operator.opcodeIndex]
        stays = names[max(found.builtinCode, found.deprecatedBuiltinCode)] == left
        kept += stays
        if stays or not runs or runs[-1][0] is None:
            runs.append([None, operator] if stays else [operator])
        else:
            runs[-1].append(operator)
    total = len(graph.operators)
    graph.operators = []
    for index, run in enumerate(runs):
        if run[0] is None:
            graph.operators.append(run[1])
            continue
        later = {i for other in runs[index + 1 :] for op in other if op for i in op.inputs}
        made = [i for op in run for i in op.outputs]
        one = s.OperatorT()
        one.opcodeIndex = len(model.operatorCodes) - 1
        one.inputs = sorted({i for op in run for i in op.inputs} - set(made) - constant)
        one.outputs = [i for i in made if i in later or i in graph.outputs]
        one.customOptions = list(_BYTECODE)
        graph.operators.append(one)
    return model, total, kept, sum(run[0] is not None for run in runs)


def finished(model, manufacturer: str, soc: str) -> bytes:
    import flatbuffers
    from ai_edge_litert import schema_py_generated as s

    stamp, entry = s.BufferT(), s.MetadataT()
    stamp.data = list(manufacturer.encode().ljust(125, b"\0") + soc.encode().ljust(125, b"\0"))
    model.buffers.append(stamp)
    entry.name, entry.buffer = b"LiteRtStamp", len(model.buffers) - 1
    model.metadata = [*(model.metadata or []), entry]
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


if __name__ == "__main__":
    main()
