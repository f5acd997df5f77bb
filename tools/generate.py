"""Writes what is generated from Python: JSON Schemas of dataclasses, and edgevit/limits.py in C++
and Swift. Run it from the repository's root after a change of either:

    .venv/bin/python -m tools.generate

tests/test_generated.py fails where that was forgotten.
"""

from __future__ import annotations

import ast
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgevit import limits
from edgevit.measure.benchmark_rows import Benchmark
from edgevit.measure.request import request_schema
from edgevit.schema import json_schema
from edgevit.targets.manifest import Manifest

ROOT = Path(__file__).resolve().parent.parent
SCHEMAS = {
    "benchmark": (Benchmark, "What edgevit benchmark measured"),
    "manifest": (Manifest, "manifest.json of an edgevit artifact folder"),
}
CPP_FILE = Path("targets/core/limits.h")
SWIFT_FILE = Path("targets/coreml/deploy/Sources/RepViTClassifier/Limits.swift")
SWIFT_NAMES = (
    "MANIFEST_SCHEMA_VERSION", "MAX_MANIFEST_BYTES", "MAX_IMAGE_SIZE", "MAX_RESIZE_SIZE",
    "MAX_IMAGE_PIXELS",
)  # fmt: skip
NOTICE = "// Generated from edgevit/limits.py by tools/generate.py: change them there."


@dataclass(frozen=True)
class Limit:
    """name as in limits.py, its value, and the sentence that explains it."""

    name: str
    value: int
    meaning: str


def read_limits() -> Iterator[Limit]:
    """Every limit of edgevit/limits.py, in its order."""
    body = ast.parse(Path(limits.__file__).read_text(encoding="utf-8")).body
    for line, after in itertools.pairwise(body):
        if not isinstance(line, ast.Assign) or not isinstance(line.targets[0], ast.Name):
            continue
        if not isinstance(after, ast.Expr) or not isinstance(after.value, ast.Constant):
            raise SystemExit(f"{limits.__file__}:{line.lineno}: a limit needs its docstring")
        name = line.targets[0].id
        yield Limit(name, getattr(limits, name), str(after.value.value))


def grouped(value: int, mark: str) -> str:
    return str(value) if value < 10_000 else f"{value:,}".replace(",", mark)


def cpp_text() -> str:
    """targets/core/limits.h"""
    lines = [NOTICE, "#pragma once", "", "#include <cstdint>", "", "namespace edgevit {", ""]
    for limit in read_limits():
        name = "k" + "".join(word.capitalize() for word in limit.name.split("_"))
        lines += [f"// {limit.meaning}"]
        lines += [f"inline constexpr std::int64_t {name} = {grouped(limit.value, chr(39))};", ""]
    return "\n".join([*lines, "}  // namespace edgevit", ""])


def swift_text() -> str:
    """Limits.swift of the Swift package."""
    lines = [NOTICE, "", "enum Limits {"]
    for limit in read_limits():
        if limit.name in SWIFT_NAMES:
            first, *rest = limit.name.lower().split("_")
            name = first + "".join(word.capitalize() for word in rest)
            value = grouped(limit.value, "_")
            lines += [f"    /// {limit.meaning}", f"    static let {name} = {value}"]
    return "\n".join([*lines, "}", ""])


def generated() -> dict[Path, str]:
    """Path below the repository -> contents of every generated file."""
    files = {CPP_FILE: cpp_text(), SWIFT_FILE: swift_text()}
    schemas = {name: json_schema(cls, title) for name, (cls, title) in SCHEMAS.items()}
    for name, schema in (schemas | {"request": request_schema()}).items():
        text = json.dumps(schema, indent=2, ensure_ascii=False)
        files[Path(f"edgevit/schemas/{name}.schema.json")] = text + "\n"
    return files


def main() -> None:
    for path, text in generated().items():
        (ROOT / path).write_text(text, encoding="utf-8")
        print(path)


if __name__ == "__main__":
    main()
