"""What one run of the harness is asked for: a dataclass here, one JSON file for the harness.

The file is described by schemas/request.schema.json and read by targets/harness/request.cpp, on
this machine and on a device alike. `edgevit validate` takes its options from the classes here.
"""

from __future__ import annotations

import json
import re
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any

from edgevit.data.options import DamageOptions
from edgevit.errors import InputError
from edgevit.limits import MAX_DURATION_S, MAX_RUN_IMAGES, MAX_THREADS, MAX_WARMUP
from edgevit.options import OptionField, check, option, option_fields

SCHEMA_VERSION = 1
KIND = "edgevit-request"
BUCKET_S = 10.0
MIN_SQNR_DB, MIN_COSINE = 10.0, 0.95
"""What each output of features must reach against the program's, where nobody asks for more: as
`edgevit quantize` asks of the program."""
_BACKEND = re.compile("[a-z0-9_]{1,32}")


@dataclass(frozen=True)
class GateLimits:
    """What an artifact must reach.

    max_drop        top-1 points below the float net
    min_agreement   percent of predictions equal to the quantized program's
    """

    max_drop: float = option(
        help="Gate: top-1 points that the artifact may lose against float.",
        minimum=-100,
        maximum=100,
    )
    min_agreement: float = option(
        help="Gate: percentage of predictions that must equal the program's.",
        minimum=0,
        maximum=1000,
    )

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class HarnessRequest:
    """One run of an artifact over labelled images. A path may be given as text.

    artifact          folder with its manifest.json
    out               where the harness writes its result; None: `run_harness` returns it only
    leave_out         names of images that are passed over, as `ImageSet.entries` has them
    reference         the program's logits (.safetensors); None: those that the manifest names
    logits            file to write: logits float32 (N, C), labels, predictions, paths; where the
                      task has no classes samples float32 (N, K), as `Task.kept` gives them, paths
    dump_inputs       file to write: the input tensor of every image
    profile           file to write: the time of each op (JSON)
    runtime           a file, or else a bare name that the system's loader finds; None: the one of
                      the installed wheel; for Core ML a compiled model (.mlmodelc), None: the
                      artifact, compiled for the run
    early_stop        end the run when gates with these limits are decided
    maps_last         outputs that are maps have their channels last (`Target.maps_last`)

    The other fields are options of `edgevit validate`. Raises InputError for a value of another
    type or out of range, naming the option.
    """

    artifact: Path = option(help="Artifact folder.")
    data: Path = option(help="Labelled images: a folder or tar of class folders.", metavar="DIR")
    out: Path | None = option(None, "Where the harness writes its result.")
    leave_out: Path | None = option(
        None, "Text file of images to pass over, one CLASS/IMAGE a line.", metavar="FILE"
    )
    reference: Path | None = option(None, "The program's logits (.safetensors).")
    logits: Path | None = option(
        None,
        "File to write every image's logits, or samples of its outputs, to (.safetensors).",
        metavar="FILE",
    )
    dump_inputs: Path | None = option(
        None, "File to write every image's input tensor to (.safetensors).", metavar="FILE"
    )
    profile: Path | None = option(
        None,
        "File to write the time of each operation to (JSON), from 50 extra runs.",
        metavar="FILE",
    )
    backend: str | None = option(
        None,
        "Back-end that runs the artifact, for example onnxruntime for an ONNX file.",
        metavar="NAME",
        default_text="the artifact's target",
    )
    runtime: Path | None = option(
        None,
        "Library of the runtime.",
        metavar="LIB",
        default_text="the one in its installed Python package",
    )
    runtime_options: dict[str, str] = option(
        factory=dict,
        help="Option of the back-end, for example compute_units=cpu; repeat it for several.",
        cli_name="runtime-option",
        short="-O",
    )
    threads: int = option(1, "Threads of the runtime.", minimum=1, maximum=MAX_THREADS, metavar="N")
    warmup: int = option(
        10, "Inferences before the timing starts.", minimum=0, maximum=MAX_WARMUP, metavar="N"
    )
    limit: int | None = option(
        None, "Images to run, spread evenly over the set.", minimum=1, maximum=MAX_RUN_IMAGES,
        metavar="N",
        default_text="all",
    )  # fmt: skip
    duration_s: float | None = option(
        None,
        "Seconds to repeat the images for, at least one pass; shows the latency over time.",
        minimum=0.001,
        maximum=MAX_DURATION_S,
        metavar="S",
        cli_name="duration",
        default_text="each image once",
    )
    bucket_s: float | None = option(
        None,
        "Seconds that each row of the latency over time covers.",
        minimum=0.01,
        maximum=MAX_DURATION_S,
        metavar="S",
        cli_name="bucket",
        default_text=f"{BUCKET_S:g}",
    )
    mlperf: bool = option(
        False, "Run for at least 60 s and 1024 inferences, as MLPerf does; its figure is the P90."
    )
    maps_last: bool = option(False, "Outputs that are maps have their channels last.")
    early_stop: GateLimits | None = None

    def __post_init__(self) -> None:
        check(self)
        if self.backend is not None and not _BACKEND.fullmatch(self.backend):
            raise InputError(f"--backend {self.backend!r} is not the name of a back-end")
        if self.bucket_s is not None and not self.is_long:
            raise InputError("--bucket needs --duration or --mlperf")

    @property
    def is_long(self) -> bool:
        """True when the images may be run more than once."""
        return self.duration_s is not None or self.mlperf

    def to_json(self) -> dict[str, Any]:
        """The document of schemas/request.schema.json; its paths are those of the harness."""
        document = {"schema_version": SCHEMA_VERSION, "kind": KIND}
        document |= {f.name: _plain(getattr(self, f.name)) for f in fields(self)}
        if self.is_long and self.bucket_s is None:
            document["bucket_s"] = BUCKET_S
        return document

    def write(self, path: Path) -> None:
        """Write the JSON file. Raises InputError for a path whose bytes are not UTF-8."""
        document = self.to_json()
        for key, value in document.items():
            try:
                json.dumps(value, ensure_ascii=False).encode()
            except UnicodeEncodeError as error:
                raise InputError(
                    f"--{key.replace('_', '-')} {value!r} is not UTF-8, which a request must be: "
                    "rename it, or make a link with another name"
                ) from error
        path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", "utf-8")


@dataclass(frozen=True)
class ValidateOptions(DamageOptions):
    """Where a validation runs and what it gates; `edgevit validate` has the same options.

    Raises InputError for options that do not go together.
    """

    program: Path | None = option(
        None,
        "Quantized program; required for images whose logits the artifact does not hold.",
        metavar="M.evq",
    )
    min_sqnr: float | None = option(
        None,
        "Gate of features: signal-to-noise of each output against the program's.",
        minimum=-100,
        maximum=200,
        metavar="DB",
        default_text=f"{MIN_SQNR_DB:g}",
    )
    min_sqnr_of: dict[str, str] = option(
        factory=dict,
        help="The same for one output, for example stage3=20; repeat it for several.",
    )
    min_cosine: float | None = option(
        None,
        "Gate of features: mean cosine of each output with the program's.",
        minimum=-1,
        maximum=1,
        metavar="COSINE",
        default_text=f"{MIN_COSINE:g}",
    )
    max_drop: float | None = option(
        None,
        "Gate: top-1 points that the artifact may lose against float.",
        minimum=-100,
        maximum=100,
        metavar="POINTS",
        default_text="target.toml",
    )
    min_agreement: float | None = option(
        None,
        "Gate: percentage of predictions that must equal the program's.",
        minimum=0,
        maximum=1000,
        metavar="PERCENT",
        default_text="target.toml",
    )
    gate: bool = option(True, "Fail when a gate does not hold; --no-gate measures only.")
    early_stop: bool = option(False, "End the run as soon as the gates are decided.")
    device: str = option(
        "local",
        "Device that runs the artifact; files sent to it stay for the next run.",
        metavar="local|ssh://USER@HOST[:PORT]|adb:SERIAL",
    )
    keep: bool = option(True, "Leave the files that were sent on the device.")
    harness: Path | None = option(
        None,
        "edgevit-harness program built for the device.",
        metavar="PROGRAM",
        default_text="the one built here",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("min_sqnr", "min_sqnr_of", "min_cosine"):
            if getattr(self, name) not in (None, {}) and not self.gate:
                raise InputError(f"--{name.replace('_', '-')} is a gate's; --no-gate has none")
        if self.early_stop and not self.gate:
            raise InputError(
                "--early-stop ends a run when its gates are decided; --no-gate has none"
            )


def request_schema() -> dict[str, Any]:
    """The JSON Schema of a request (draft 2020-12): schemas/request.schema.json holds it."""
    schema = _object_schema(HarnessRequest)
    schema["properties"]["out"]["type"] = "string"  # `run_harness` always names one
    schema["properties"]["backend"]["pattern"] = f"^{_BACKEND.pattern}$"
    limits = _object_schema(GateLimits) | {"type": ["object", "null"]}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "What edgevit-harness --request is asked for",
        "description": "Paths are relative to the harness's working folder. A key that is missing, "
        "or null where it may be, has the default that `edgevit-harness --help` names.",
        **schema,
        "properties": {
            "schema_version": {"const": SCHEMA_VERSION},
            "kind": {"const": KIND},
            **schema["properties"],
            "early_stop": limits,
        },
        "required": ["schema_version", "kind", "artifact", "data", "out"],
    }


def _object_schema(cls: type) -> dict[str, Any]:
    known = option_fields(cls)
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {each.name: _value_schema(each) for each in known},
        "required": [each.name for each in known if each.default is MISSING],
    }


def _value_schema(each: OptionField) -> dict[str, Any]:
    if each.form == "mapping":
        schema: dict[str, Any] = {"type": "object", "additionalProperties": {"type": "string"}}
    else:
        name = {bool: "boolean", int: "integer", float: "number"}.get(each.kind, "string")
        bounds = {"minimum": each.option.minimum, "maximum": each.option.maximum}
        schema = {"type": name, **{k: v for k, v in bounds.items() if v is not None}}
        schema |= {"minLength": 1} if name == "string" else {}
    if each.optional or each.form == "mapping":
        schema["type"] = [schema["type"], "null"]
    return schema | {"description": each.option.help}


def _plain(value: Any) -> Any:
    if isinstance(value, GateLimits):
        return asdict(value)
    return str(value) if isinstance(value, Path) else value
