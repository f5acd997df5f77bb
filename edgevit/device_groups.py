"""An artifact with a program for each kind of phone, laid out for Google Play's device targeting.

Such an artifact is a folder of files: one that runs on any phone (portable), and for each
system-on-chip (SoC) one that only phones with it can run, MANUFACTURER_SOC.tflite. In a package
each of them is an artifact of its own, with a manifest of its own. The portable one goes into the
module, so that it is always there. The others go into an AI pack, in folders whose names end in
"#group_GROUP": Play gives a phone the one folder of its group, without that end of the name. Which
phones are in which group stands in an XML file that the app's build names.

The layout is the one that LiteRT's own exporter writes (ai_edge_litert.aot.ai_pack); of the group
"other", every phone that is in none, the folder holds a placeholder, for the module has its file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any
from xml.etree import ElementTree

from edgevit.errors import InputError
from edgevit.files import sha256_bytes
from edgevit.schema import OMIT_DEFAULT, Rule
from edgevit.targets.artifact import Artifact
from edgevit.targets.base import require_folder
from edgevit.targets.manifest import ArtifactFile, Manifest

Text = Annotated[str, Rule(min_size=1)]
MODEL, MANIFEST = "model.tflite", "manifest.json"
"""The names in the folder of an artifact that is one file."""
GROUP_MARK = "#group_"
_SOC = re.compile("[A-Za-z0-9]{1,32}")
_XML = "http://schemas.android.com/apk/config"


@dataclass(frozen=True)
class Places:
    """Where it goes in the package; "{group}" stands for a group's name.

    portable    the folder of the portable file and its manifest
    program     a group's program and manifest, without ".tflite" and ".json"
    other       the placeholder of the phones that are in no group
    targeting   the XML that says which phones are in which group
    listing     a text for the module: where a phone finds its program, and each SoC that has one
    """

    portable: Text
    program: Text
    other: Text
    targeting: Text
    listing: Text


@dataclass(frozen=True)
class DeviceGroups:
    """The [device_groups] of a deploy.toml.

    artifact        the name of the artifact's folder
    portable        the file in it that every phone can run
    portable_target the target whose artifact that file is by itself
    option          the manifest's option that lists the SoCs
    manufacturer    of them all: the first part of a program's name, and of a group's
    selectors       what phones with them call the manufacturer
    no_phones       SoCs of that manufacturer that are in no phone: they get no group
    """

    artifact: Text
    portable: Text
    portable_target: Text
    option: Text
    manufacturer: Text
    selectors: Annotated[tuple[Text, ...], Rule(min_size=1)]
    no_phones: tuple[Text, ...]
    places: Places

    def renamed(self, old: str, new: str) -> DeviceGroups:
        """With another library's name in every place."""
        changed = {name: place.replace(old, new) for name, place in vars(self.places).items()}
        return replace(self, places=Places(**changed))

    def parts(self, artifact: Artifact) -> dict[str, bytes]:
        """What the package holds of the artifact, by place.

        Raises InputError for a folder that is not what its manifest says (such as a program for an
        SoC that the manifest does not name) and for one without an SoC of a phone.
        """
        manifest, files = artifact.manifest, require_folder(artifact.data, artifact.manifest.target)
        socs = self._socs(artifact)
        self._check_files(artifact, files, socs)
        of_phones = [soc for soc in socs if soc not in self.no_phones]
        if not of_phones:
            raise InputError(
                f"{artifact.folder}: {', '.join(socs)} is in no phone; compile it for one that is"
            )
        place = self.places
        options = {name: text for name, text in manifest.options.items() if name != self.option}
        portable = _alone(
            manifest, files[self.portable], target=self.portable_target, options=options
        )
        parts = {
            f"{place.portable}/{MODEL}": files[self.portable],
            f"{place.portable}/{MANIFEST}": portable.text(),
            place.other: b"",
            place.targeting: self._targeting(of_phones),
            place.listing: self._listing(of_phones),
        }
        for soc in of_phones:
            program = files[f"{self._group(soc)}.tflite"]
            to = place.program.format(group=self._group(soc))
            parts[f"{to}.tflite"] = program
            own = options | {self.option: soc}
            parts[f"{to}.json"] = _alone(manifest, program, options=own).text()
        return parts

    def _group(self, soc: str) -> str:
        return f"{self.manufacturer}_{soc}"

    def _socs(self, artifact: Artifact) -> list[str]:
        socs = artifact.manifest.options.get(self.option, "").split(",")
        if len(set(socs)) < len(socs) or not all(map(_SOC.fullmatch, socs)):
            raise InputError(
                f"{artifact.folder}: options.{self.option} is {','.join(socs)!r}, it must name the "
                "SoCs by comma, each once; compile it again"
            )
        return socs

    def _check_files(self, artifact: Artifact, files: Mapping[str, bytes], socs: list[str]) -> None:
        known = {self.portable, *(f"{self._group(soc)}.tflite" for soc in socs)}
        if more := sorted(set(files) - known):
            raise InputError(
                f"{artifact.path / more[0]} is none of the artifact's files: the manifest names "
                f"the SoCs {', '.join(socs)} of {self.manufacturer}; compile it again"
            )
        if missing := sorted(known - set(files)):
            raise InputError(f"{artifact.path / missing[0]} is missing; compile it again")

    def _targeting(self, socs: list[str]) -> bytes:
        ElementTree.register_namespace("config", _XML)
        root = ElementTree.Element(f"{{{_XML}}}device-targeting-config")
        for soc in socs:
            group = ElementTree.SubElement(
                root, f"{{{_XML}}}device-group", {"name": self._group(soc)}
            )
            for manufacturer in self.selectors:
                selector = ElementTree.SubElement(group, f"{{{_XML}}}device-selector")
                names = {"manufacturer": manufacturer, "model": soc}
                ElementTree.SubElement(selector, f"{{{_XML}}}system-on-chip", names)
        ElementTree.indent(root, "    ")
        return ElementTree.tostring(root, encoding="utf-8") + b"\n"

    def _listing(self, socs: list[str]) -> bytes:
        _, _, seen = self.places.program.rpartition("assets/")
        lines = [seen.replace(GROUP_MARK + "{group}", ""), *socs]
        return "".join(f"{line}\n" for line in lines).encode()


def _alone(manifest: Manifest, data: bytes, **changes: Any) -> Manifest:
    """The manifest of one of the folder's files by itself.

    The keys that a manifest may lack go: they tell of the folder and of what lies beside it.
    """
    kept: dict[str, Any] = {
        each.name: getattr(manifest, each.name)
        for each in fields(manifest)
        if each.metadata != OMIT_DEFAULT
    }
    kept["artifact"] = ArtifactFile(MODEL, sha256_bytes(data), len(data))
    return Manifest(**(kept | changes))
