"""validation.json files for tests that ran no harness."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def validation_of(folder: Path, *, passed: bool = True, **result: Any) -> dict[str, Any]:
    """What a validation of the artifact in the folder holds, as far as anyone reads it."""
    manifest = json.loads((folder / "manifest.json").read_text())
    return {
        "schema_version": 1,
        "kind": "edgevit-validation",
        "passed": passed,
        "failures": [] if passed else ["accuracy against float: it dropped"],
        "accuracy_gate": {"passed": passed},
        "agreement_gate": {"passed": True},
        "result": {
            "artifact": {"file": "m", "sha256": manifest["artifact"]["sha256"]},
            "program": {"sha256": manifest["program"]["sha256"]},
            "accuracy": {"top1_percent": 90.0, "count": 6},
            "agreement": None,
            "agreement_float": None,
            "latency_us": {"invoke": {"p50": 500.0, "p90": 600.0}},
            "threads": 1,
            "machine": {"cpu": "a CPU", "cores": 2},
            "runtime": {"name": "null"},
        }
        | result,
    }


def write_validation(folder: Path, **changes: Any) -> None:
    """Write validation.json as `validation_of` has it."""
    (folder / "validation.json").write_text(json.dumps(validation_of(folder, **changes)))
