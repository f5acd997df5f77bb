"""An artifact folder and a target's app template into a package that an app project takes in.

A template is the folder targets/TARGET/deploy/. Its deploy.toml, which is not copied, says what
goes where; no target is named here. Every path is relative and stays inside its folder:

    name = "Library"            the library's name in the template's paths and text, for --name
    reserved_names = ["..."]    names that --name may not take
    compile = "edgevit compile ..."     makes an artifact for this template; "-o DIR" is added

    [artifact]                  the artifact (a file or folder), files beside it = where they go
    [sources]                   file of this repository = where it goes; "folder/" = "place/" stands
                                for the C++ files (.h, .cpp) in that folder, not below it
    [[requires]]                the artifact is refused unless the manifest's value is among these
    key = "options.input"
    values = ["image"]
    reason = "..."

A template may stand on another target's: extends = "TARGET" takes its files, sources, requirements
and names, and what is here goes on top. One whose artifact is a folder of programs, one for each
kind of device, says in [device_groups] where they go (edgevit.device_groups); [artifact] then names
files beside it alone. note = "..." is what must be said of every package.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path, PurePosixPath
from typing import Any

from edgevit import __version__
from edgevit.device_groups import DeviceGroups
from edgevit.errors import InputError, ToolMissing
from edgevit.files import atomic_path, check_target, read_file, write_tree
from edgevit.measure.proof import proof_of
from edgevit.project import SOURCES
from edgevit.schema import check_json, parse_json, read_json
from edgevit.targets.artifact import Artifact, load_artifact

SCHEMA_VERSION, KIND = 1, "edgevit-package"
MARKER_FILE, DESCRIPTION_FILE = "edgevit-package.json", "deploy.toml"
MAX_MARKER_BYTES = 4 * 2**20
_CPP = (".cpp", ".h")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")


@dataclass(frozen=True)
class Requirement:
    """What the manifest must say at `key` (dotted), and why this template cannot do without."""

    key: str
    values: tuple[Any, ...]
    reason: str


@dataclass(frozen=True)
class Template:
    """A deploy.toml, checked. `artifact` and `sources` map each file to where it goes.

    folders     of the template's files; one of the first goes before one of that name in the next
    note        what must be said of the package; empty: nothing
    """

    folders: tuple[Path, ...]
    name: str
    compile: str
    artifact: Mapping[str, str]
    sources: Mapping[str, str]
    requires: tuple[Requirement, ...] = ()
    reserved_names: tuple[str, ...] = ()
    device_groups: DeviceGroups | None = None
    note: str = ""

    @property
    def folder(self) -> Path:
        """The target's own."""
        return self.folders[0]

    def on_top_of(self, base: Template) -> Template:
        """This template with what the base has besides."""
        return replace(
            self,
            folders=self.folders + base.folders,
            name=self.name or base.name,
            artifact=self.artifact if self.artifact or self.device_groups else base.artifact,
            sources={**base.sources, **self.sources},
            requires=base.requires + self.requires,
            reserved_names=base.reserved_names + self.reserved_names,
        )

    def places(self) -> list[str]:
        """Where everything goes, before a library of another name."""
        own = [
            file.relative_to(folder).as_posix()
            for folder in self.folders
            for file in folder.rglob("*")
        ]
        return [*own, *self.artifact.values(), *self.sources.values()]


def template_names() -> list[str]:
    """The targets that have a template, sorted.

    Raises ToolMissing where edgevit was installed without its sources.
    """
    if not (SOURCES / "targets").is_dir():
        raise ToolMissing(
            f"the app templates are not where they were installed ({SOURCES}): install edgevit "
            "again"
        )
    found = (SOURCES / "targets").glob(f"*/deploy/{DESCRIPTION_FILE}")
    return sorted(path.parent.parent.name for path in found)


def read_template(target: str) -> Template:
    """Raises InputError for a target without a template, and naming what deploy.toml has wrong."""
    return _read_template(target, ())


def _read_template(target: str, above: tuple[str, ...]) -> Template:
    """`above`: the targets whose templates stand on this one."""
    if target not in (names := template_names()):
        raise InputError(f"target {target!r} has no app template; there is: {', '.join(names)}")
    path = SOURCES / "targets" / target / "deploy" / DESCRIPTION_FILE
    value = _description(path)
    groups = value.get("device_groups")
    template = Template(
        (path.parent,),
        name=value.get("name", ""),
        compile=value["compile"],
        artifact=value.get("artifact", {}),
        sources=_expand(value["sources"], path),
        requires=tuple(
            Requirement(row["key"], tuple(row["values"]), row["reason"])
            for row in value.get("requires", ())
        ),
        reserved_names=tuple(value.get("reserved_names", ())),
        device_groups=None if groups is None else read_json(DeviceGroups, groups, str(path)),
        note=value.get("note", ""),
    )
    if "extends" not in value:
        return template
    if target in above:
        raise InputError(f"{path}: extends leads from {target} back to {target}")
    return template.on_top_of(_read_template(value["extends"], (*above, target)))


def write_package(
    target: str,
    build: Path,
    out: Path | None = None,
    *,
    name: str | None = None,
    force: bool = False,
    unvalidated: bool = False,
) -> dict[str, Any]:
    """Writes the package of `build`/`target`, whole or not at all; returns what its marker holds.

    out     default: `build`/`target`-package; with `force`, an earlier package there is replaced
    name    of the library instead of the template's own
    unvalidated     take an artifact whose validation is missing or failed, too; the marker says so

    Hidden files of the template stay behind: an editor's, or a build's. Raises InputError when
    the artifact folder is missing, damaged, of another target or compiled with options that the
    template cannot use, for one without a validation of its bytes, and when `out` may not be
    written; GateFailed for one whose validation failed.
    """
    template = read_template(target)
    folder = build / target
    out = build / f"{target}-package" if out is None else out
    name = template.name if name is None else name
    _check_name(name, template)
    again = f"{template.compile} -o {build}"
    if not folder.is_dir():
        raise InputError(f"{folder}: no such artifact folder; make it with `{again}`")
    for made_of in (folder, *template.folders):
        if out.resolve().is_relative_to(made_of.resolve()):
            raise InputError(f"{out} is inside {made_of}, which the package is made of: give -o")
    check_target(out, force, listing=written_package)
    artifact = load_artifact(folder)
    _check_artifact(artifact, template, target, f"compile it again: `{again} --force`")
    manifest = artifact.manifest
    proof = proof_of(folder)
    if not unvalidated:
        proof.require(
            folder, f"run `edgevit validate {folder}`, or pack it as it is: --unvalidated"
        )
    marker = {
        "schema_version": SCHEMA_VERSION,
        "kind": KIND,
        "target": target,
        "name": name,
        "artifact": {"file": manifest.artifact.file, "sha256": manifest.artifact.sha256},
        "program": {"sha256": manifest.program.sha256},
        "validated": proof.passed is True,
        "edgevit": __version__,
    }
    if template.note:
        marker["note"] = template.note
    groups = template.device_groups
    parts = groups.renamed(template.name, name).parts(artifact) if groups else {}
    with atomic_path(out, force, listing=written_package) as temporary:
        _copy_template(template, temporary, name)
        for source, place in template.sources.items():
            _copy(SOURCES / source, temporary / place.replace(template.name, name))
        for source, place in template.artifact.items():
            to = temporary / place.replace(template.name, name)
            if source == manifest.artifact.file:
                _write_artifact(artifact, to)
            else:
                _copy(folder / source, to)
        for place, data in parts.items():
            _prepare(artifact.path, temporary / place)
            (temporary / place).write_bytes(data)
        files = [p.relative_to(temporary).as_posix() for p in temporary.rglob("*") if p.is_file()]
        marker["files"] = sorted([*files, MARKER_FILE])
        (temporary / MARKER_FILE).write_text(json.dumps(marker, indent=1) + "\n", encoding="utf-8")
    return marker


def written_package(folder: Path) -> list[str]:
    """The files in a package's folder that edgevit wrote, as its marker lists them."""
    path = folder / MARKER_FILE
    try:
        marker = parse_json(read_file(path, MAX_MARKER_BYTES, "a package's marker"), str(path))
    except InputError:
        return []
    if not isinstance(marker, dict) or marker.get("kind") != KIND:
        return []
    files = marker.get("files")
    return [each for each in files if isinstance(each, str)] if isinstance(files, list) else []


def _description(path: Path) -> dict[str, Any]:
    """A deploy.toml, checked by itself."""
    try:
        value = tomllib.loads(path.read_text(encoding="utf-8"))
        check_json(value, str(path), _DESCRIPTION_RULES)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    if "extends" not in value:
        for needed in ("name", "artifact"):
            if needed not in value:
                raise InputError(f"{path}: {needed} is missing, and it extends no template")
    places = value.get("device_groups", {}).get("places", {})
    for section, found in (
        ("artifact", value.get("artifact", {})),
        ("sources", value["sources"]),
        ("device_groups", places if isinstance(places, dict) else {}),
    ):
        for each in (*found, *found.values()):
            _check_inside(each, f"{path}: {section}")
    return value


def _expand(sources: Mapping[str, str], path: Path) -> dict[str, str]:
    """`sources` with each folder replaced by the C++ files in it."""
    files: dict[str, str] = {}
    for source, place in sources.items():
        if source.endswith("/") != place.endswith("/"):
            raise InputError(f"{path}: sources: {source!r} and {place!r}: both or neither end in /")
        if not source.endswith("/"):
            files[source] = place
            continue
        found = [each for each in sorted((SOURCES / source).glob("*")) if each.suffix in _CPP]
        if not found:
            raise InputError(f"{path}: sources: the folder {source} holds no .h or .cpp file")
        files |= {source + each.name: place + each.name for each in found}
    return files


def _check_inside(path: str, where: str) -> None:
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts or not pure.parts or "\\" in path or "\0" in path:
        raise InputError(f"{where}: the path {path!r} must be relative, inside, and without '..'")


def _check_name(name: str, template: Template) -> None:
    if not _NAME.fullmatch(name):
        raise InputError(
            f"the name {name!r} must be a letter followed by up to 63 letters, digits or '_'"
        )
    if name == template.name:
        return
    paths = map(PurePosixPath, template.places())
    taken = {PurePosixPath(part).stem for path in paths for part in path.parts}
    taken |= {*template.reserved_names, template.name}
    if name.lower() in {each.lower() for each in taken}:
        raise InputError(f"the name {name!r} is taken in the package of this template")


def _check_artifact(artifact: Artifact, template: Template, target: str, advice: str) -> None:
    manifest, folder = artifact.manifest, artifact.folder
    if manifest.target != target:
        raise InputError(f"{folder} was compiled for {manifest.target}, not {target}; {advice}")
    groups = template.device_groups
    taken = [groups.artifact] if groups else list(template.artifact)
    if manifest.artifact.file not in taken:
        raise InputError(
            f"{folder}: the artifact is {manifest.artifact.file}, the template takes "
            f"{', '.join(taken)}; {advice}"
        )
    for requirement in template.requires:
        found: Any = manifest.to_json()
        for key in requirement.key.split("."):
            found = found.get(key) if isinstance(found, dict) else None
        if found not in requirement.values:
            wanted = " or ".join(repr(value) for value in requirement.values)
            raise InputError(
                f"{folder}: {requirement.key} is {found!r}, the package needs {wanted}: "
                f"{requirement.reason}; {advice}"
            )


def _copy_template(template: Template, out: Path, name: str) -> None:
    old, new = template.name.encode(), name.encode()
    out.mkdir()
    for base in template.folders:
        for folder, subfolders, files in os.walk(base):
            subfolders[:] = sorted(each for each in subfolders if not each.startswith("."))
            for each in (*subfolders, *files):
                if (Path(folder) / each).is_symlink():
                    raise InputError(
                        f"{Path(folder) / each} is a symbolic link: a template has none"
                    )
            for each in files:
                source = Path(folder) / each
                relative = source.relative_to(base)
                place = out / relative.as_posix().replace(template.name, name)
                is_ours = each.startswith(".") or relative == Path(DESCRIPTION_FILE)
                if is_ours or place.exists():
                    continue
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(source.read_bytes().replace(old, new))
                shutil.copymode(source, place)


def _write_artifact(artifact: Artifact, place: Path) -> None:
    # The bytes that were compared with the manifest, not a second reading of the file.
    _prepare(artifact.path, place)
    files = artifact.data if isinstance(artifact.data, Mapping) else {"": artifact.data}
    write_tree(place, files)


def _copy(source: Path, place: Path) -> None:
    _prepare(source, place)
    if not source.is_file():
        what = "is not a plain file" if source.exists() else "is missing"
        raise InputError(f"{source} {what}; the package needs it")
    try:
        shutil.copyfile(source, place)
    except OSError as error:
        raise InputError(f"{source} cannot be copied: {error.strerror}") from error


def _prepare(source: Path, place: Path) -> None:
    """Makes the folder above `place`; InputError for a link, and for a place that is taken."""
    if source.is_symlink():
        raise InputError(f"{source} is a symbolic link; a package holds files and folders only")
    if os.path.lexists(place):
        raise InputError(f"{place.name}: {DESCRIPTION_FILE} puts two files in the same place")
    place.parent.mkdir(parents=True, exist_ok=True)


_TEXT = {"type": "string", "minLength": 1}
_PLACES = {"type": "object", "minProperties": 1, "additionalProperties": _TEXT}
_REQUIREMENT = {
    "type": "object",
    "additionalProperties": False,
    "required": [field.name for field in fields(Requirement)],
    "properties": {"key": _TEXT, "values": {"type": "array", "minItems": 1}, "reason": _TEXT},
}
_DESCRIPTION_RULES = {
    "type": "object",
    "additionalProperties": False,
    "required": ["compile", "sources"],
    "properties": {
        "name": {"type": "string", "pattern": f"^{_NAME.pattern}$"},
        "extends": {"type": "string", "pattern": "^[a-z][a-z0-9]*$"},
        "compile": _TEXT,
        "note": _TEXT,
        "artifact": _PLACES,
        "device_groups": {"type": "object"},
        "sources": {**_PLACES, "minProperties": 0},
        "requires": {"type": "array", "items": _REQUIREMENT},
        "reserved_names": {"type": "array", "items": _TEXT},
    },
}
