"""The contract of the targets for phones' NPUs, over a stand-in of the vendors' compilers."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from edgevit.program import Program
from edgevit.targets.artifact import ArtifactData
from edgevit.targets.manifest import Manifest
from edgevit.targets.npu.write import PORTABLE
from tests.npu.stand_in import install
from tests.target_contract import TargetContract
from tests.targets.tflite_files import Places, next_float, replaced


class NpuContract(TargetContract):
    home = "npu"
    toolkit_modules = ("tflite.schema",)

    @pytest.fixture(autouse=True)
    def compiler(self, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
        """Of its own, so that `fresh.undo()` leaves it."""
        with pytest.MonkeyPatch.context() as patched:
            yield install(patched, tmp_path_factory.mktemp("compiler"))

    def same(self, manifest: Manifest) -> Manifest:
        placement = tuple(replace(found, compile_s=0) for found in manifest.placement)
        return replace(manifest, placement=placement)

    def tamper(
        self, data: Mapping[str, bytes], program: Program
    ) -> Iterator[tuple[str, ArtifactData]]:
        portable = data[PORTABLE]
        places = Places(portable)

        def with_portable(changed: bytes) -> ArtifactData:
            return {**data, PORTABLE: changed}

        for name in ("input", "stages.0.blocks.0.channel_mixer.act", "logits"):
            yield name, with_portable(next_float(portable, places.scale(name)))
            at = places.zero_point(name)
            yield name, with_portable(replaced(portable, at, struct.pack("<q", 5)))
        if len(data) > 1:
            yield PORTABLE, {name: each for name, each in data.items() if name != PORTABLE}
        yield "more.txt", {**data, "more.txt": b""}
        for name in set(data) - {PORTABLE}:
            compiled = data[name]
            inside = Places(compiled)
            for tensor in ("input", "logits"):
                changed = next_float(compiled, inside.scale(tensor))
                yield f"{name}: scale audit: {tensor}", {**data, name: changed}
            manufacturer, _, _ = name.partition("_")
            yield "it was compiled for", {**data, f"{manufacturer}_XX1.tflite": compiled}
            yield f"{name}: scale audit: the file is not", {**data, name: compiled[:100]}
            stamp = compiled.replace(b"LiteRtStamp", b"LiteRtStomp")
            yield f"{name}: scale audit: LiteRtStamp", {**data, name: stamp}
            labels = compiled[: compiled.index(b"PK\x03\x04")]
            yield f"{name}: scale audit: labels", {**data, name: labels}
