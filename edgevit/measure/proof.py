"""What validation.json and parity.json prove of the artifact that lies beside them, if anything.

Either file may be of other bytes: of a float artifact, of an earlier compilation, or of a model
that was overwritten since. Only one that names this artifact and its program says anything of it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from edgevit.errors import GateFailed, InputError
from edgevit.files import read_file
from edgevit.measure.parity import KIND as PARITY_KIND
from edgevit.measure.parity import Parity
from edgevit.schema import check_json, parse_json, read_json
from edgevit.targets.artifact import load_artifact
from edgevit.targets.manifest import PARITY_FILE, VALIDATION_FILE, Manifest

MAX_BYTES = 64 * 2**20
NOT_VALIDATED, NO_GATE = "not validated", "no gate"


@dataclass(frozen=True)
class Proof:
    """What is known of an artifact.

    validation  validation.json where it is of this artifact, else None
    parity      parity.json, likewise
    passed      whether its gates held; None: nobody knows
    problem     why there is no `validation`, or why it proves nothing, in words; None: it does
    """

    manifest: Manifest
    validation: dict[str, Any] | None
    parity: Parity | None
    passed: bool | None
    problem: str | None

    def require(self, folder: Path, advice: str) -> None:
        """Raises GateFailed where the validation failed, InputError where there is none."""
        if self.passed:
            return
        if self.passed is False:
            failures = "; ".join((self.validation or {}).get("failures", ())) or "see the file"
            raise GateFailed(f"{folder / VALIDATION_FILE}: a gate failed: {failures}; {advice}")
        raise InputError(f"{folder}: {self.problem}; {advice}")


def proof_of(folder: Path, program_sha256: str | None = None) -> Proof:
    """The proof of an artifact folder.

    program_sha256  of the program that the artifact has to be compiled from; None: any
    Raises InputError, naming the file, for a manifest.json, validation.json or parity.json that
    cannot be read.
    """
    manifest = Manifest.load(folder)
    validation, parity = _validation(folder), _parity(folder)
    problem = _other_artifact(folder, manifest, program_sha256)
    if parity is not None and (problem or not _is_of(_parity_names(parity), manifest)):
        parity = None
    if problem is not None:
        return Proof(manifest, None, parity, None, problem)
    if validation is None:
        return Proof(manifest, None, parity, None, NOT_VALIDATED)
    result = validation["result"]
    names = tuple(result.get(key, {}).get("sha256") for key in ("artifact", "program"))
    if not _is_of(names, manifest):
        other = "artifact" if names[0] != manifest.artifact.sha256 else "program"
        problem = f"{NOT_VALIDATED}: {VALIDATION_FILE} is of another {other}"
        return Proof(manifest, None, parity, None, problem)
    gates = [validation.get(name) for name in ("accuracy_gate", "agreement_gate", "output_gate")]
    if not validation["passed"] or not all(gate["passed"] for gate in gates if gate):
        return Proof(manifest, validation, parity, False, None)
    if gates[0] is None and gates[2] is None:
        return Proof(manifest, validation, parity, None, NO_GATE)
    return Proof(manifest, validation, parity, True, None)


def _parity_names(parity: Parity) -> tuple[str, str]:
    """sha256 of the artifact and of the program that were compared."""
    return parity.artifact_sha256, parity.program_sha256


def _is_of(names: tuple[str | None, ...], manifest: Manifest) -> bool:
    return names == (manifest.artifact.sha256, manifest.program.sha256)


def _other_artifact(folder: Path, manifest: Manifest, program_sha256: str | None) -> str | None:
    """Why the artifact is not the manifest's, or not of the program; None where it is both."""
    try:
        load_artifact(folder)
    except InputError as error:
        return f"{NOT_VALIDATED}: {error}"
    if program_sha256 not in (None, manifest.program.sha256):
        return f"{NOT_VALIDATED}: it was compiled from another program"
    return None


def _validation(folder: Path) -> dict[str, Any] | None:
    path = folder / VALIDATION_FILE
    if not path.exists():
        return None
    value = parse_json(read_file(path, MAX_BYTES, "a validation"), str(path))
    check_json(value, str(path), _rules())
    return value


def _parity(folder: Path) -> Parity | None:
    path = folder / PARITY_FILE
    if not path.exists():
        return None
    value = parse_json(read_file(path, MAX_BYTES, "a comparison"), str(path))
    if not isinstance(value, dict) or value.pop("kind", None) != PARITY_KIND:
        raise InputError(f"{path}: is not what `edgevit parity` writes")
    value.pop("schema_version", None)
    return read_json(Parity, value, str(path))


@cache
def _rules() -> dict[str, Any]:
    """JSON Schema of what is read of a validation; earlier ones lack some of the other keys."""
    text = resources.files("edgevit").joinpath("schemas/result.schema.json").read_text("utf-8")
    full = json.loads(text)
    number, count = {"type": "number"}, {"type": "integer", "minimum": 0}
    named = _object(sha256={"type": "string"})
    share = {"anyOf": [{"type": "null"}, _object(top1_percent=number)]}
    gate = {"anyOf": [{"type": "null"}, _object(passed={"type": "boolean"})]}
    result = _object(
        accuracy={"anyOf": [{"type": "null"}, _object(top1_percent=number, count=count)]},
        agreement=share,
        agreement_float=share,
        latency_us=_object(invoke=_object(p50=number, p90=number)),
        machine=_object(cpu={"type": "string"}, cores=count),
        runtime=_object(name={"type": "string"}),
        threads=count,
    )
    result["properties"] |= {
        "artifact": named, "program": named, "long_run": full["properties"]["long_run"]
    }  # fmt: skip
    failures = {"type": "array", "items": {"type": "string"}}
    rules = _object(
        passed={"type": "boolean"}, failures=failures, accuracy_gate=gate, result=result
    )
    rules["properties"]["agreement_gate"] = gate
    figures = _object(name={"type": "string"}, sqnr_db=number, cosine=number)
    outputs = _object(
        passed={"type": "boolean"},
        count=count,
        agreement=number,
        outputs={"type": "array", "items": figures},
    )
    rules["properties"]["output_gate"] = {"anyOf": [{"type": "null"}, outputs]}
    return rules | {"$defs": full["$defs"]}


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}
