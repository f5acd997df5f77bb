"""One page to read and one JSON to gate on, from what the other steps wrote."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from edgevit import console
from edgevit.errors import InputError
from edgevit.files import atomic_path, check_target
from edgevit.measure.proof import NOT_VALIDATED, Proof, proof_of
from edgevit.measure.report.long_run import section
from edgevit.measure.report.text_forms import Columns, failures, junit, markdown
from edgevit.program import Program
from edgevit.schema import read_json
from edgevit.targets.manifest import Manifest
from edgevit.targets.placement import Placement
from edgevit.tasks.classification import STAGES

SCHEMA_VERSION = 1
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em }
table { border-collapse: collapse; margin: 1em 0 } th, td { padding: .3em .9em; text-align: left }
th { border-bottom: 2px solid #888 } td { border-bottom: 1px solid #ddd }
td.n { text-align: right; font-variant-numeric: tabular-nums }
.passed { color: #1a7f37 } .failed { color: #cf222e; font-weight: 600 }
.unknown { color: #9a6700; font-weight: 600 }
code { word-break: break-all }
figure { margin: 1em 0 } figure > svg { width: 100%; height: auto }
"""


@dataclass(frozen=True)
class Row:
    """One net in the table: a stage of the quantization, or an artifact as the harness ran it.

    passed, problem     of an artifact, as `measure.proof.Proof` has them
    """

    name: str
    top1: float | None = None  # percent
    images: int | None = None
    program_agreement: float | None = None  # percent of the predictions
    float_agreement: float | None = None
    invoke_p50_us: float | None = None
    threads: int | None = None
    size_bytes: int | None = None
    passed: bool | None = None
    problem: str | None = None


def collect(folder: Path) -> dict[str, Any]:
    """Everything known in a run folder: its one program (.evq) and its artifact folders.

    "passed" is true when every INT8 artifact has a validation of its own bytes that passed, false
    when one failed, and null when one was not validated: "not_validated" then says which, and why.
    Raises InputError when there is neither program nor artifact, or more than one program, and for
    a file that cannot be read.
    """
    programs = sorted(folder.glob("*.evq")) if folder.is_dir() else []
    artifacts = sorted(p.parent for p in folder.glob("*/manifest.json"))
    artifacts = [each for each in artifacts if not each.name.startswith(".")]
    if (folder / "manifest.json").exists():
        artifacts = [folder]
    if len(programs) > 1 or not (programs or artifacts):
        found = f"{len(programs)} programs" if programs else "no program and no artifact"
        raise InputError(
            f"{folder} holds {found}; expected one M.evq and artifact folders beside it"
        )
    rows: list[Row] = []
    program: dict[str, Any] | None = None
    if programs:
        loaded = Program.load(programs[0])
        program = {"file": programs[0].name, "sha256": loaded.sha256, **loaded.info.to_json()}
        rows += _stages(loaded, programs[0].stat().st_size)
    details = {}
    sha256 = program["sha256"] if program else None
    proofs = {path.name: proof_of(path, sha256) for path in artifacts}
    for name, proof in proofs.items():
        rows.append(_artifact_row(name, proof))
        details[name] = {
            "manifest": _without_table(proof.manifest),
            "validation": proof.validation,
            "parity": proof.parity and proof.parity.to_json(),
        }
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "edgevit-report",
        **_verdict(proofs),
        "rows": [vars(row) for row in rows],
        "program": program,
        "artifacts": details,
    }


def _verdict(proofs: Mapping[str, Proof]) -> dict[str, Any]:
    """What all artifacts come to. A float one is there to compare with: it need not pass a gate."""
    judged = {
        name: proof
        for name, proof in proofs.items()
        if proof.manifest.audit is not None or proof.passed is not None
    }
    unknown = {name: proof.problem for name, proof in judged.items() if proof.passed is None}
    failed = any(proof.passed is False for proof in judged.values())
    passed = False if failed else None if unknown or not judged else True
    return {
        "passed": passed,
        "passed_artifacts": [name for name, proof in judged.items() if proof.passed],
        "not_validated": unknown,
    }


def _stages(program: Program, size_bytes: int) -> list[Row]:
    metrics = {m.name: m for m in program.info.metrics}
    rows = []
    for key, name in STAGES.items():
        if key in metrics:
            metric, last = metrics[key], key == "program_top1"
            agreement = metrics.get("program_float_agreement") if last else None
            rows.append(
                Row(
                    name,
                    top1=100 * metric.value,
                    images=metric.count,
                    float_agreement=agreement and 100 * agreement.value,
                    size_bytes=size_bytes if last else None,
                )
            )
    return rows


def _artifact_row(name: str, proof: Proof) -> Row:
    """As the harness ran it; without a validation, as `parity` did, by whatever it has here."""
    size, validation, parity = proof.manifest.artifact.size_bytes, proof.validation, proof.parity
    if validation is None:
        label = f"artifact {name}" + (" (not by its runtime)" if parity else "")
        return Row(
            label,
            top1=parity and parity.top1_percent,
            images=parity and parity.images,
            program_agreement=parity and parity.agreement_percent,
            size_bytes=size,
            problem=proof.problem,
        )
    result = validation["result"]
    agreement, to_float = result["agreement"], result["agreement_float"]
    accuracy, outputs = result["accuracy"], validation.get("output_gate")
    if accuracy is None:  # no classes: an image agrees where every output is alike
        images, alike = (outputs["count"], outputs["agreement"]) if outputs else (None, None)
    else:
        images, alike = accuracy["count"], agreement and agreement["top1_percent"]
    return Row(
        f"artifact {name}",
        top1=accuracy and accuracy["top1_percent"],
        images=images,
        program_agreement=alike,
        float_agreement=to_float and to_float["top1_percent"],
        invoke_p50_us=result["latency_us"]["invoke"]["p50"],
        threads=result["threads"],
        size_bytes=size,
        passed=proof.passed,
        problem=proof.problem,
    )


def _without_table(manifest: Manifest) -> dict[str, Any]:
    value = manifest.to_json()
    del value["input"]["table"]
    return value


COLUMNS = (
    ("net", lambda r: r["name"]),
    ("top-1 %", lambda r: _number(r["top1"], 2)),
    ("images", lambda r: _number(r["images"], 0)),
    ("agrees with program %", lambda r: _number(r["program_agreement"], 2)),
    ("agrees with float %", lambda r: _number(r["float_agreement"], 2)),
    ("invoke p50 ms", lambda r: _number(r["invoke_p50_us"], 3, 1e-3)),
    ("MB", lambda r: _number(r["size_bytes"], 1, 1e-6)),
    ("gate", lambda r: _gate(r)),
)


def _gate(row: dict[str, Any]) -> str:
    """In a word or two: the page and `report.json` say more."""
    if row["passed"] is None:
        return (row["problem"] or "").partition(":")[0]
    return "passed" if row["passed"] else "FAILED"


def _number(value: float | None, digits: int, factor: float = 1.0) -> str:
    return "" if value is None else f"{value * factor:.{digits}f}"


def print_table(report: dict[str, Any], title: str) -> None:
    """The rows as a table on standard output."""
    headings = [heading for heading, _ in COLUMNS]
    rows = [[text(row) for _, text in COLUMNS] for row in report["rows"]]
    numbers = [i for i, heading in enumerate(headings) if heading not in ("net", "gate")]
    console.print_table(title, rows, headings, right=numbers, min_width=128)


def write_report(
    folder: Path, force: bool = False, forms: Sequence[str] = ("html",)
) -> dict[str, Any]:
    """Write report.json and these forms of it into the run folder, and return the report.

    forms   keys of FORMS
    """
    written = [FORMS[form] for form in dict.fromkeys(forms)]
    for name in ("report.json", *(name for name, _ in written)):
        check_target(folder / name, force)
    report = collect(folder)
    with atomic_path(folder / "report.json", force) as temporary:
        temporary.write_text(json.dumps(report, indent=2, allow_nan=False) + "\n", "utf-8")
    for name, form in written:
        with atomic_path(folder / name, force) as temporary:
            text = form(report, folder.resolve().name, COLUMNS)
            temporary.write_bytes(text.encode("utf-8", "backslashreplace"))
    return report


def _page(report: dict[str, Any], title: str, columns: Columns) -> str:
    heads = "".join(f"<th>{escape(heading)}</th>" for heading, _ in columns)
    body = ""
    for row in report["rows"]:
        cells = [escape(text(row)) for _, text in columns]
        body += f"<tr><td>{cells[0]}</td>" + "".join(f'<td class="n">{c}</td>' for c in cells[1:])
    verdict = {True: "passed", False: "failed", None: "unknown"}[report["passed"]]
    words = NOT_VALIDATED if verdict == "unknown" else verdict
    unknown = [f"{name}: {why}" for name, why in report["not_validated"].items()]
    parts = [
        "<!doctype html><meta charset=utf-8>",
        f"<title>edgevit: {escape(title)}</title><style>{STYLE}</style>",
        f"<h1>{escape(title)}: <span class={verdict}>{words}</span></h1>",
        "".join(f"<p class=failed>{escape(line)}</p>" for line in failures(report)),
        "".join(f"<p class=unknown>{escape(line)}</p>" for line in unknown),
        f"<table><tr>{heads}</tr>{body}</table>",
    ]
    if report["program"]:
        parts.append(_program_section(report["program"]))
    for name, part in report["artifacts"].items():
        parts.append(_artifact_section(name, part))
    return "\n".join(parts) + "\n"


def _program_section(program: dict[str, Any]) -> str:
    kept = {k: v for k, v in program.items() if k not in ("metrics", "labels")}
    return (
        f"<h2>Quantized program</h2><p>{escape(program['file'])}, sha256 "
        f"<code>{escape(program['sha256'])}</code>, profile {escape(program['profile'])}, "
        f"{len(program['labels'])} classes</p>{_program_outputs(program)}"
        "<details><summary>provenance</summary><pre>"
        f"{escape(json.dumps(kept, indent=1))}</pre></details>"
    )


def _program_outputs(program: dict[str, Any]) -> str:
    """Each output against float's, where the program's metrics name outputs."""
    values = {each["name"]: each["value"] for each in program["metrics"]}
    names = [
        name.removeprefix("program_").removesuffix("_sqnr_db")
        for name in values
        if name.startswith("program_") and name.endswith("_sqnr_db")
    ]
    figures = [
        {"name": name, **{kind: values[f"program_{name}_{kind}"] for kind in ("sqnr_db", "cosine")}}
        for name in names
        if f"program_{name}_cosine" in values
    ]
    return f"<p>Outputs against float's</p>{_output_table(figures)}" if figures else ""


def _artifact_section(name: str, part: dict[str, Any]) -> str:
    manifest, validation, parity = part["manifest"], part["validation"], part["parity"]
    lines = [
        f"<h2>Artifact {escape(name)}</h2><p>{escape(manifest['artifact']['file'])}, sha256 "
        f"<code>{escape(manifest['artifact']['sha256'])}</code></p>"
    ]
    for found in (
        read_json(Placement, each, "placement") for each in manifest.get("placement", ())
    ):
        lines.append(f"<p>{escape(found.name)}: {escape(str(found))}</p>")
    if validation:
        machine = validation["result"]["machine"]
        lines.append(
            f"<p>Measured on {escape(machine['cpu'])} ({escape(str(machine['cores']))} cores), "
            f"{escape(validation['result']['runtime']['name'])}</p>"
        )
        if outputs := validation.get("output_gate"):
            lines.append(_outputs_section(outputs))
        # Results written before there were long runs have no such key.
        if (run := validation["result"].get("long_run")) is not None:
            lines.append(section(run, validation["result"]["latency_us"]["invoke"]))
    if parity:
        lines.append(_parity_section(parity))
    lines.append(
        f"<details><summary>all figures</summary><pre>{escape(json.dumps(part, indent=1))}</pre>"
        "</details>"
    )
    return "".join(lines)


def _outputs_section(gate: dict[str, Any]) -> str:
    heading = f"<p>Outputs against the quantized program's, {gate['count']:d} images</p>"
    return heading + _output_table(gate["outputs"])


def _output_table(figures: list[dict[str, Any]]) -> str:
    rows = "".join(
        f"<tr><td>{escape(each['name'])}<td class=n>{each['sqnr_db']:.1f}"
        f"<td class=n>{each['cosine']:.4f}"
        for each in figures
    )
    return f"<table><tr><th>output<th>SQNR dB<th>cosine</tr>{rows}</table>"


def _parity_section(parity: dict[str, Any]) -> str:
    first = parity["first_departure"]
    what = "images are alike" if parity.get("outputs") else "predictions"
    rows = "".join(
        f"<tr><td>{escape(row['name'])}<td>{escape(row['op'])}"
        f"<td class=n>{'exact' if row['sqnr_db'] is None else format(row['sqnr_db'], '.1f')}"
        f"<td class=n>{row['max_steps']:.3g}<td class=n>{row['differing_percent']:.3g}"
        for row in parity["layers"]
    )
    return (
        f"<p>Parity with the program ({escape(parity['engine'])}): "
        f"{parity['agreement_percent']:.2f} % of {parity['images']:d} {what}; "
        + (f"departs first at <code>{escape(first)}</code>" if first else "every tensor is equal")
        + f"</p><details><summary>layer by layer, {parity['layer_images']:d} images</summary>"
        "<table><tr><th>layer<th>operation<th>SQNR dB<th>max steps<th>differ %</tr>"
        f"{rows}</table></details>"
    )


FORMS: dict[str, tuple[str, Callable[[dict[str, Any], str, Columns], str]]] = {
    "html": ("report.html", _page),
    "md": ("report.md", markdown),
    "junit": ("report.xml", junit),
}
"""What `edgevit report --format` takes -> the file's name, and what makes it."""
