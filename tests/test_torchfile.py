"""Tensors rebuilt from what a file says of them, which may be anything."""

from __future__ import annotations

import io
import zipfile

import pytest
import torch

from edgevit.errors import InputError
from edgevit.models.inert import Global, PickleError
from edgevit.models.tensorfile import read
from edgevit.models.torchfile import _BUILDERS, Storage, _storage_identity

BYTES = torch.arange(6.0).numpy().tobytes()


def rebuilt(size, stride, offset=0, count=6, dtype=torch.float32):
    storage = Storage(dtype, count, lambda: BYTES)
    return _BUILDERS["torch._utils._rebuild_tensor_v2"](storage, offset, size, stride, False, {})


@pytest.mark.parametrize(
    ("size", "stride", "offset", "expected"),
    [
        ((2, 3), (3, 1), 0, [[0, 1, 2], [3, 4, 5]]),
        ((3, 2), (1, 3), 0, [[0, 3], [1, 4], [2, 5]]),
        ((2,), (2,), 1, [1, 3]),
        ((), (), 5, 5),
        ((2, 2), (0, 1), 4, [[4, 5], [4, 5]]),
        ((0, 3), (3, 1), 0, torch.zeros(0, 3).tolist()),
    ],
)
def test_strides_and_offsets_are_kept(size, stride, offset, expected):
    assert rebuilt(size, stride, offset).load().tolist() == expected


@pytest.mark.parametrize(
    ("size", "stride", "offset"),
    [
        ((7,), (1,), 0),
        ((2, 3), (4, 1), 0),
        ((1,), (1,), 6),
        ((2,), (2**62,), 0),
        ((-1,), (1,), 0),
        ((2,), (-1,), 5),
        ((2, 3), (1,), 0),
        ((2,), (1,), -1),
        ((2,), (1,), True),
        ((2.0,), (1,), 0),
        ("ab", (1, 1), 0),
        ((1,) * 65, (1,) * 65, 0),
        ((2**63,), (0,), 0),
    ],
)
def test_a_tensor_beyond_its_storage_is_refused(size, stride, offset):
    with pytest.raises(PickleError):
        rebuilt(size, stride, offset)


def test_a_storage_shorter_than_it_says_is_refused():
    with pytest.raises(PickleError, match="fewer numbers"):
        rebuilt((7,), (1,), count=7).load()


@pytest.mark.parametrize(
    "identity",
    [
        "storage",
        ("storage",),
        ("other", Global("torch.FloatStorage"), "0", "cpu", 3),
        ("storage", "torch.FloatStorage", "0", "cpu", 3),
        ("storage", Global("torch.FloatStorage"), "0", "cpu", -3),
        ("storage", Global("torch.FloatStorage"), ("0",), "cpu", 3),
        ("storage", Global("torch.FloatStorage"), "0", "cpu", 3, ("1", 0, 3)),
    ],
)
def test_a_storage_described_wrongly_is_refused(identity):
    with pytest.raises(PickleError):
        _storage_identity(identity)


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("its storage '0' is missing", lambda n, d: None if n.endswith("data/0") else d),
        ("shorter than it says", lambda n, d: d[:-4] if n.endswith("data/0") else d),
        ("big-endian", lambda n, d: b"big" if n.endswith("byteorder") else d),
    ],
)
def test_an_archive_whose_parts_do_not_fit_is_refused(tmp_path, part, change):
    made = io.BytesIO()
    torch.save({"a": torch.ones(3)}, made)
    with zipfile.ZipFile(made) as old, zipfile.ZipFile(tmp_path / "net.pth", "w") as new:
        for name in old.namelist():
            data = change(name, old.read(name))
            if data is not None:
                new.writestr(name, data)
    with pytest.raises(InputError, match=part):
        read(tmp_path / "net.pth")


@pytest.mark.parametrize(
    ("names", "part"),
    [
        (["a.jpg", "b/c.png"], "holds 2 images"),
        (["evq.json", "graph.json"], "an edgevit program"),
        (["arr_0.npy"], "NumPy arrays"),
        (["x/net.pth"], "unpack 'x/net.pth'"),
        (["word/document.xml"], "holds 'word/document.xml'"),
    ],
)
def test_another_zip_says_what_it_is(tmp_path, names, part):
    with zipfile.ZipFile(tmp_path / "net.pth", "w") as archive:
        for name in names:
            archive.writestr(name, b"x")
    with pytest.raises(InputError, match=part):
        read(tmp_path / "net.pth")


@pytest.mark.parametrize("old", [True, False])
def test_shared_and_tied_tensors_keep_their_values(tmp_path, old):
    whole = torch.arange(12.0)
    state = {"a": whole[:6].view(2, 3), "b": whole[6:].view(3, 2).t(), "c": whole[:6].view(2, 3)}
    state["d"] = torch.nn.Parameter(whole[3:5])
    torch.save(state, tmp_path / "net.pth", _use_new_zipfile_serialization=not old)
    found = read(tmp_path / "net.pth").value
    for name, tensor in state.items():
        assert torch.equal(found[name].load(), tensor.detach()), name


class Named(torch.Tensor):
    pass


def test_a_subclass_and_attributes_leave_the_plain_tensor(tmp_path):
    tagged = torch.ones(2)
    tagged.tag = "x"
    torch.save({"a": torch.ones(2).as_subclass(Named), "b": tagged}, tmp_path / "net.pth")
    found = read(tmp_path / "net.pth").value
    assert all(torch.equal(tensor.load(), torch.ones(2)) for tensor in found.values())
