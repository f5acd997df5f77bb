import os
import pickle
import struct
from pathlib import Path

import pytest
import torch

from edgevit.models import inert, tensorfile, torchfile, weights
from tests.saved_nets import STATE, refusal, saved


class _Exploit:
    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self):
        return os.mkdir, (str(self.victim),)


@pytest.mark.parametrize("old_format", [True, False])
def test_code_in_a_pickle_is_never_run(tmp_path, old_format):
    victim = tmp_path / "owned"
    path = tmp_path / "evil.pth"
    value = {"model": STATE, "extra": _Exploit(victim)}
    torch.save(value, path, _use_new_zipfile_serialization=not old_format)
    message = refusal(path)
    assert "mkdir, which is code" in message and "save the weights alone" in message
    assert not victim.exists()


def test_a_plain_pickle_is_refused(tmp_path):
    path = tmp_path / "evil.pth"
    path.write_bytes(pickle.dumps(_Exploit(tmp_path / "owned")))
    assert "pickle" in refusal(path)
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("name", ["net.pth", "net.safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.0001, 0.5, 0.9999])
def test_a_truncated_file(tmp_path, name, share):
    path = saved(tmp_path, STATE, name)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    message = refusal(path)
    assert "download it again" in message


def test_a_truncated_file_of_the_old_format(tmp_path):
    path = tmp_path / "old.pth"
    torch.save(STATE, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:-1000])
    assert "truncated or damaged" in refusal(path)


@pytest.mark.parametrize("place", [0.3, 0.5, 0.8])
def test_a_flipped_byte_is_noticed(tmp_path, place):
    path = saved(tmp_path, STATE)
    data = bytearray(path.read_bytes())
    data[int(len(data) * place)] ^= 0xFF
    path.write_bytes(data)
    assert "checksum" in refusal(path)


@pytest.mark.parametrize(
    ("name", "content", "part"),
    [
        ("net.pth", b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        ("net.pth", b"<!DOCTYPE html><html>", "web page"),
        ("net.pth", b"hello", "68 65 6c 6c"),
        ("net.pth", b"PK\x05\x06" + bytes(18), "not a torch checkpoint"),
        ("net.pth", struct.pack("<Q", 2) + b"{}", "no tensors"),
        ("net.safetensors", b"PK\x03\x04", "truncated or damaged"),
        ("net.safetensors", struct.pack("<Q", 2**60) + b"{}", "header would take"),
        ("net.safetensors", struct.pack("<Q", 500) + b"{}", "inside its header"),
        ("net.safetensors", struct.pack("<Q", 2) + b"xx", "not a valid safetensors"),
        ("net.safetensors", struct.pack("<Q", 2) + b"{}", "no tensors"),
        ("net.safetensors", bytes(100), "not a valid safetensors"),
        ("net.pth", bytes(100), "begins with 00 00 00 00"),
        ("net.pth", b"\x1f\x8b\x08", "gzip archive; unpack it"),
        ("net.pth.tar", bytes(257) + b"ustar" + bytes(250), "tar archive; unpack it"),
        ("net.pth", b"\x08\x07\x12\x07pytorch\x1a\x05", "ONNX model"),
        ("net.pth", b"\x1c\0\0\0TFL3" + bytes(20), "TFLite model"),
        ("net.pth", b"\x89HDF\r\n\x1a\n", "HDF5"),
        ("net.pth", b"\xff\xd8\xff\xe0", "JPEG image"),
        ("net.pth", b'{"architecture": "repvit_m0_9"}', "JSON text"),
        ("net.pth", b"[1, 2]", "JSON text"),
        ("net.onnx", b"x", "this is text, beginning 'x' (78)"),
    ],
)
def test_a_file_of_another_kind(tmp_path, name, content, part):
    (tmp_path / name).write_bytes(content)
    assert part in refusal(tmp_path / name)


def test_a_torchscript_program(tmp_path):
    torch.jit.save(torch.jit.script(torch.nn.ReLU()), tmp_path / "net.pt")
    assert "TorchScript" in refusal(tmp_path / "net.pt")


def test_no_file_and_a_folder(tmp_path):
    assert "no such file" in refusal(tmp_path / "gone.pth")
    (tmp_path / "dir.pth").mkdir()
    assert "not a file" in refusal(tmp_path / "dir.pth")


@pytest.mark.parametrize(
    ("module", "limit", "value", "part"),
    [
        (tensorfile, "MAX_FILE_BYTES", 1000, "more than"),
        (weights, "MAX_TENSORS", 10, "tensors, more than"),
        (torchfile, "MAX_PICKLE_BYTES", 1000, "its structure alone takes"),
        (torchfile, "MAX_ZIP_MEMBERS", 10, "more than any RepViT"),
        (inert, "MAX_OPCODES", 100, "more than 100 steps"),
    ],
)
def test_sizes_are_limited(tmp_path, monkeypatch, module, limit, value, part):
    path = saved(tmp_path, STATE)
    monkeypatch.setattr(module, limit, value)
    assert part in refusal(path)
