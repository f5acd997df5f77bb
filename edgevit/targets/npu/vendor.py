"""A vendor of NPUs: its SoCs, the name of its plugin, and where its compiler's libraries lie."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from edgevit.errors import InputError, ToolMissing

LITERT = "ai_edge_litert"


def no_reasons(log: str) -> dict[str, str]:
    """For a compiler whose log names no operator."""
    return {}


@dataclass(frozen=True)
class Vendor:
    """A vendor, as LiteRT's plugins know it.

    title         for people
    manufacturer  as the plugin, file names and LiteRT's stamp spell it
    folder        of the plugin in ai_edge_litert/vendors
    socs          that the plugin compiles for
    library       that the plugin loads; it lies in the SDK's folder
    package       installed package that carries the library; "" where none does
    how_to_get    the library: one sentence
    stand_ins     library that the plugin links and uses nothing of -> one that stands in for it
    soc_argument  a SoC as the plugin wants it
    reasons       name of a tensor -> why its operator stays on the CPU, of the compiler's log
    versions      name -> version, of the compiler's log
    """

    title: str
    manufacturer: str
    folder: str
    socs: tuple[str, ...]
    library: str
    package: str
    how_to_get: str
    stand_ins: Mapping[str, str] = field(default_factory=dict)
    soc_argument: Callable[[str], str] = str
    reasons: Callable[[str], dict[str, str]] = no_reasons
    versions: Callable[[str], dict[str, str]] = no_reasons

    def libraries(self, sdk: Path | None = None) -> Path:
        """The folder with the compiler's libraries.

        sdk   given by the user; the library may lie below it
        Raises InputError for a folder without the library, ToolMissing where there is none to find.
        """
        if sdk is not None:
            return self._below(sdk)
        folder = self._installed()
        if folder is None:
            raise ToolMissing(f"{self.title}'s compiler is not here: {self.how_to_get}")
        return folder

    def state(self) -> str:
        """Whether a model can be compiled here, for `edgevit doctor`."""
        if plugin(self.folder) is None:
            return "ai-edge-litert carries no plugin for it here"
        return "compiles here" if self.is_here() else f"missing: {self.how_to_get}"

    def is_here(self) -> bool:
        """Whether the compiler is, without an SDK being named."""
        return plugin(self.folder) is not None and self._installed() is not None

    @property
    def for_people(self) -> str:
        """The SoCs in a line."""
        return ", ".join(self.socs)

    def _installed(self) -> Path | None:
        spec = find_spec(self.package) if self.package else None
        for folder in (spec.submodule_search_locations or []) if spec else []:
            for found in sorted(Path(folder).rglob(self.library)):
                return found.parent
        return None

    def _below(self, sdk: Path) -> Path:
        if not sdk.is_dir():
            raise InputError(f"--sdk {sdk} is not a folder")
        for folder, _, names in os.walk(sdk):
            if self.library in names:
                return Path(folder)
        raise InputError(f"--sdk {sdk}: there is no {self.library} in it; {self.how_to_get}")


def plugin(folder: str) -> Path | None:
    """The folder of a vendor's plugin in ai-edge-litert, looked up without importing it."""
    found = _litert(f"vendors/{folder}/compiler")
    return found if found is not None and any(found.glob("libLiteRtCompilerPlugin_*.so")) else None


def applier() -> Path:
    """The program that applies a plugin. Raises ToolMissing without it."""
    found = _litert("tools/apply_plugin_main")
    if found is None or not os.access(found, os.X_OK):
        raise ToolMissing(
            "ai-edge-litert's apply_plugin_main is not here (Linux on x86-64 has it): "
            "pip install ai-edge-litert==2.3.0"
        )
    return found


def _litert(name: str) -> Path | None:
    spec = find_spec(LITERT)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (path := Path(folder) / name).exists():
            return path
    return None
