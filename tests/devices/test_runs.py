"""Whole runs over a real sshd on the loopback interface, and what is refused on the way."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from edgevit.errors import EdgevitError, InputError, ToolMissing
from edgevit.measure.devices import open_device, run_on_device
from edgevit.measure.devices.base import DeviceGone
from edgevit.measure.devices.packing import check_machine
from edgevit.measure.harness import build_harness, run_harness
from edgevit.measure.request import HarnessRequest
from tests.devices.support import asked, broken_connections, program
from tests.test_harness import edit_manifest, picture, write_artifact


def test_a_run_over_ssh_is_the_local_run_and_sends_nothing_twice(sshd, artifact, images, tmp_path):
    local = run_harness(HarnessRequest(artifact, images, logits=tmp_path / "local", warmup=0))
    device = open_device(sshd.address)
    there = run_on_device(device, asked(artifact, images, tmp_path / "there"))
    assert there["accuracy"] == local["accuracy"]
    assert there["dataset"] == local["dataset"]
    ours, theirs = load_file(tmp_path / "local"), load_file(tmp_path / "there")
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)
    assert sshd.runs() == []
    sent = sshd.blobs()
    assert len(sent) == 4 and all(len(name) == 64 for name in sent)
    size = build_harness().stat().st_size
    assert sshd.proxy.sent_bytes > size
    sshd.proxy.sent_bytes = 0
    (artifact / "validation.json").write_text("written by the first run")
    run_on_device(device, asked(artifact, images, tmp_path / "again"))
    assert sshd.proxy.sent_bytes < 100_000 < size
    assert sshd.blobs() == sent
    run_on_device(device, asked(artifact, images, tmp_path / "again"), keep=False)
    assert sshd.blobs() == set()


def test_no_name_reaches_a_shell(sshd, tmp_path):
    evil = "$(touch pwned)`touch pwned`;touch pwned;'\"\\ &|>x"
    images = tmp_path / evil.replace("/", "")
    for label in (evil, "-rf", "a\tb"):
        (images / label).mkdir(parents=True)
        picture(1).save(images / label / f"{evil}.png")
    artifact = write_artifact(tmp_path / f"artifact {evil}", (evil, "-rf", "a\tb"))
    os.rename(artifact / "model.bin", artifact / evil)
    manifest = json.loads((artifact / "manifest.json").read_text())
    edit_manifest(artifact, artifact=manifest["artifact"] | {"file": evil})
    harness = Path(shutil.copy(build_harness(), tmp_path / evil))
    there = run_on_device(
        open_device(sshd.address), asked(artifact, images, tmp_path / "l"), harness=harness
    )
    assert there["accuracy"]["count"] == 3
    assert there["dataset"]["name"] == images.name
    everything = [p.name for p in sshd.folder.rglob("*")] + os.listdir() + os.listdir(Path.home())
    assert "pwned" not in everything and "x" not in everything
    with pytest.raises(InputError, match="not the name of a back-end"):
        run_on_device(
            open_device(sshd.address),
            asked(artifact, images, tmp_path / "l", backend="null;touch pwned"),
        )


def test_the_whole_request_reaches_the_device(sshd, artifact, images, tmp_path):
    """What the harness over there is asked for is what it is asked for here, but for the paths."""
    seen = tmp_path / "seen.json"
    telling = program(tmp_path / "telling", f'cat "$2" > {shlex.quote(str(seen))}')
    files = {"logits": tmp_path / "l", "dump_inputs": tmp_path / "i", "profile": tmp_path / "p"}
    request = HarnessRequest(
        artifact, images, out=tmp_path / "r", threads=2, warmup=3, limit=4, duration_s=0.2,
        bucket_s=0.1, **files,
    )  # fmt: skip
    there = run_on_device(open_device(sshd.address), request, harness=telling)
    assert (there["threads"], there["warmup"], there["limit"]) == (2, 3, 4)
    assert there["long_run"]["bucket_s"] == 0.1
    assert json.loads((tmp_path / "r").read_text()) == there
    document, ours = json.loads(seen.read_text()), request.to_json()
    assert (document.pop("artifact"), document.pop("out")) == ("artifact", "result.json")
    assert re.fullmatch(r"\.\./\.\./blobs/[0-9a-f]{64}", document.pop("data"))
    assert [document.pop(key) for key in files] == ["logits", "inputs", "profile"]
    assert document.items() <= ours.items() and len(ours) == len(document) + 6
    assert load_file(files["dump_inputs"])["inputs"].shape[0] == 4
    assert len(load_file(files["logits"])["logits"]) == 4
    assert json.loads(files["profile"].read_text())["kind"] == "edgevit-profile"


def test_runtime_options_reach_the_device_and_no_shell(sshd, artifact, images, tmp_path):
    seen = tmp_path / "seen.json"
    telling = program(tmp_path / "telling", f'cat "$2" > {shlex.quote(str(seen))}')
    options = {"compute_units": "$(touch pwned)';\n", "x.y-z": "`touch pwned`"}
    request = HarnessRequest(artifact, images, runtime_options=options)
    with pytest.raises(InputError, match="takes no runtime option 'compute_units'"):
        run_on_device(open_device(sshd.address), request, harness=telling)
    assert json.loads(seen.read_text())["runtime_options"] == options
    assert "pwned" not in [p.name for p in sshd.folder.rglob("*")] + os.listdir()
    request = HarnessRequest(artifact, images, runtime_options={"plan_cache": str(tmp_path)})
    with pytest.raises(InputError, match="--plan-cache names a folder of this machine"):
        run_on_device(open_device(sshd.address), request)


def test_the_harnesss_own_error_comes_back_and_nothing_is_left(sshd, artifact, images, tmp_path):
    (images / "crop" / "x.jpg").write_text("text")
    with pytest.raises(InputError, match=r"crop/x\.jpg.*neither a JPEG nor a PNG"):
        run_on_device(open_device(sshd.address), asked(artifact, images, tmp_path / "l"))
    assert sshd.runs() == []
    assert not (tmp_path / "l").exists()


@broken_connections
def test_a_crash_over_there_is_named_with_its_signal(sshd, artifact, images, tmp_path):
    crashing = program(tmp_path / "crash", "echo last words >&2; kill -SEGV $$")
    with pytest.raises(EdgevitError, match=r"(?s)killed by SIGSEGV.*last words"):
        run_on_device(
            open_device(sshd.address), asked(artifact, images, tmp_path / "l"), harness=crashing
        )
    broken = tmp_path / "broken"
    broken.write_bytes(b"\x7fELF no program")
    with pytest.raises(ToolMissing, match="cannot run there"):
        run_on_device(
            open_device(sshd.address), asked(artifact, images, tmp_path / "l"), harness=broken
        )
    assert sshd.runs() == []


@broken_connections
def test_what_ssh_refuses_is_explained_at_once(sshd, artifact, images, tmp_path):
    def attempt() -> str:
        with pytest.raises(DeviceGone) as caught:
            run_on_device(open_device(sshd.address), asked(artifact, images, tmp_path / "l"))
        assert caught.value.exit_code == 4
        return str(caught.value)

    sshd.use_key("stranger")
    assert "accepts none of your keys" in attempt()
    assert sshd.proxy.connections == 1
    sshd.use_key("user")
    known = (sshd.folder / "known").read_text()
    (sshd.folder / "known").write_text("")
    try:
        assert "its host key is not known" in attempt()
    finally:
        (sshd.folder / "known").write_text(known)
    sshd.proxy.refusing = True
    assert "failed, after 2 attempts" in attempt()


def test_programs_for_another_machine_are_refused(sshd, artifact, images, tmp_path, monkeypatch):
    head = bytearray(build_harness().read_bytes()[:64])
    head[18:20] = (183).to_bytes(2, "little")
    other = tmp_path / "aarch64"
    other.write_bytes(head)
    check_machine(other, "aarch64", "the harness")
    device = open_device(sshd.address)
    with pytest.raises(ToolMissing, match="is for aarch64, the device is x86_64"):
        run_on_device(device, asked(artifact, images, tmp_path / "l"), harness=other)
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    with pytest.raises(ToolMissing, match=r"cross-compile it.*x86_64-linux-gnu-g\+\+"):
        run_on_device(device, asked(artifact, images, tmp_path / "l"))


def test_a_result_that_is_none_is_refused(sshd, artifact, images, tmp_path):
    for text, message in (
        ("{", "not valid JSON"),
        ("{}", "does not fit its schema"),
        ("", "0 bytes"),
    ):
        fake = tmp_path / "fake"
        fake.write_text(f"#!/bin/sh\nprintf '%s' '{text}' > result.json; echo l > logits\n")
        with pytest.raises(EdgevitError, match=message):
            run_on_device(
                open_device(sshd.address), asked(artifact, images, tmp_path / "l"), harness=fake
            )
    assert sshd.runs() == []
