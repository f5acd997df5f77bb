"""Pickles with anything in them: what is harmless is passed over, and nothing is ever run."""

from __future__ import annotations

import argparse
import collections
import contextlib
import datetime
import decimal
import enum
import io
import pathlib
import pickle
import pickletools
import random
import time
import types
import uuid
import zipfile

import numpy as np
import pytest
import torch

from edgevit.errors import InputError
from edgevit.models import inert
from edgevit.models.inert import CodeInPickle, Global, PickleError, Standin, read_pickle
from edgevit.models.tensorfile import read
from edgevit.models.weights import choose

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

SMALL = {"stem.conv1.c.weight": torch.arange(6.0).reshape(2, 3)}


class Colour(enum.Enum):
    RED = 1


class Config(dict):
    __getattr__ = dict.get


class Trainer:
    def __init__(self, model):
        self.model, self.best = model, np.float64(0.5)


RAN: list[str] = []


def leaves_a_trace(*_):
    RAN.append("ran")


class Trap:
    def __reduce__(self):
        return leaves_a_trace, ("a",)

    def __setstate__(self, state):
        leaves_a_trace()


RIDERS = {
    "numpy scalar": np.float64(0.93),
    "numpy integer": np.int64(3),
    "numpy array": np.zeros((3, 3), int),
    "numpy object array": np.array([{}, None], dtype=object),
    "numpy dtype": np.dtype("float32"),
    "numpy random state": np.random.get_state(),
    "python random state": random.getstate(),
    "torch random state": torch.get_rng_state(),
    "path": pathlib.Path("runs"),
    "default dictionary": collections.defaultdict(list, loss=[1.0]),
    "counter": collections.Counter("aab"),
    "deque": collections.deque([1]),
    "ordered dictionary": collections.OrderedDict(a=1),
    "date": datetime.datetime(2024, 1, 1),
    "duration": datetime.timedelta(1),
    "torch version": torch.__version__,
    "arguments": argparse.Namespace(out=pathlib.Path("runs"), lr=np.float32(1)),
    "simple namespace": types.SimpleNamespace(a=1),
    "enum": Colour.RED,
    "set": {1, "a", (2, 3)},
    "frozen set": frozenset([1]),
    "complex": 1 + 2j,
    "decimal": decimal.Decimal("1.5"),
    "uuid": uuid.UUID(int=3),
    "large integer": 10**500,
    "tuple as key": {(1, 2): 3},
    "range and slice": [range(3), slice(1, 2)],
    "bytes": [b"abc", bytearray(b"abc")],
    "size, device, dtype": [torch.Size([1]), torch.device("cpu"), torch.float16],
    "function": torch.nn.functional.relu,
    "class": torch.optim.SGD,
    "dictionary of one's own": Config(a=Config(b=1)),
    "object of one's own": Trainer(None),
    "optimizer": torch.optim.AdamW([torch.nn.Parameter(torch.ones(2))]),
    "sparse tensor": torch.eye(3).to_sparse(),
    "csr tensor": torch.eye(3).to_sparse_csr(),
    "meta tensor": torch.zeros(2, device="meta"),
    "quantized tensor": torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8),
    "tensors of other types": [
        torch.zeros(2, dtype=t)
        for t in (torch.uint16, torch.float8_e4m3fn, torch.complex64, torch.bool, torch.int64)
    ],
}


def tensors_of(path) -> dict:
    """The one state dict of a file, under the key "model"."""
    found = read(path).value["model"]
    return {name: tensor.load() for name, tensor in found.items()}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("title", RIDERS)
def test_what_rides_beside_the_weights_is_passed_over(tmp_path, title, zipped):
    path = tmp_path / "net.pth"
    value = {"before": RIDERS[title], "model": SMALL, "after": [RIDERS[title]]}
    torch.save(value, path, _use_new_zipfile_serialization=zipped)
    assert torch.equal(tensors_of(path)["stem.conv1.c.weight"], SMALL["stem.conv1.c.weight"])


@pytest.mark.parametrize("protocol", range(2, 6))
def test_every_protocol_is_read(tmp_path, protocol):
    path = tmp_path / "net.pth"
    torch.save({"model": SMALL, "x": RIDERS["arguments"]}, path, pickle_protocol=protocol)
    assert torch.equal(tensors_of(path)["stem.conv1.c.weight"], SMALL["stem.conv1.c.weight"])


@pytest.mark.parametrize("protocol", range(2, 6))
def test_a_plain_pickle_of_tensors_is_read(tmp_path, protocol):
    path = tmp_path / "net.pkl"
    path.write_bytes(pickle.dumps({"model": SMALL, "a": np.float64(1)}, protocol))
    assert torch.equal(tensors_of(path)["stem.conv1.c.weight"], SMALL["stem.conv1.c.weight"])


@pytest.mark.parametrize("zipped", [True, False])
def test_no_code_of_a_file_is_run_where_it_is_passed_over(tmp_path, zipped):
    path = tmp_path / "net.pth"
    value = {"a": Trap(), "model": SMALL}
    torch.save(value, path, _use_new_zipfile_serialization=zipped)
    assert "stem.conv1.c.weight" in tensors_of(path)
    assert RAN == []


@pytest.mark.parametrize("name", ["os system", "posix system", "builtins eval", "__builtin__ exec",
                                  "subprocess Popen", "sys exit", "runpy run_path"])  # fmt: skip
def test_a_call_of_what_acts_on_the_machine_is_named(name):
    data = b"\x80\x02c" + name.replace(" ", "\n").encode() + b"\nX\x01\0\0\0a\x85R."
    with pytest.raises(CodeInPickle, match=name.replace(" ", ".")):
        read_pickle(io.BytesIO(data), {})


def test_a_function_got_by_a_function_stays_a_name():
    # getattr(os.__dict__, "system")("id"), as an exploit hides it from a list of names.
    hidden = b"cbuiltins\ngetattr\ncos\n__dict__\nX\x06\0\0\0system\x86R"
    call = hidden + b"X\x02\0\0\0id\x85R."
    found = read_pickle(io.BytesIO(b"\x80\x02" + call), {})
    assert isinstance(found, Standin) and found.kind == "" and found.arguments == ("id",)


def test_what_is_unknown_keeps_its_name_and_parts():
    found = read_pickle(io.BytesIO(pickle.dumps(Config(a=1))), {})
    assert isinstance(found, Standin) and found.items == {"a": 1}
    found = read_pickle(io.BytesIO(pickle.dumps(Trainer(3))), {})
    assert found.kind.endswith("test_inert.Trainer") and found.state["model"] == 3
    assert read_pickle(io.BytesIO(pickle.dumps(Trainer)), {}) == Global(found.kind)


# --- hostile ---------------------------------------------------------------------------------


def timed(path, limit_s: float = 30.0) -> str:
    """The refusal, which must come within a time that leaves room for a busy machine."""
    start = time.process_time()
    with pytest.raises(InputError) as caught:
        choose(read(path), None)
    assert time.process_time() - start < limit_s
    return str(caught.value)


def as_archive(path, pickled: bytes) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("net/data.pkl", pickled)


def doubled(depth: int, last: bytes) -> bytes:
    """A tuple of itself twice, `depth` deep: 2^depth leaves in `depth` steps."""
    steps = b"".join(b"q%ch%ch%c\x86" % (i, i, i) for i in range(depth))
    return b"\x80\x02K\x01" + steps + last


@pytest.mark.parametrize(
    "last",
    [b"q\xff0}h\xffK\x01s.", b"q\xff0}X\x01\0\0\0ah\xffs.", b".",
     b"q\xff0ccollections\nOrderedDict\nh\xff\x85R."],
    ids=["key", "value", "root", "builder"],
)  # fmt: skip
def test_tuples_in_tuples_are_entered_once(tmp_path, last):
    as_archive(tmp_path / "net.pth", doubled(60, last))
    assert timed(tmp_path / "net.pth", 5.0)


def test_a_small_file_with_a_large_pickle_is_refused_at_once(tmp_path):
    as_archive(tmp_path / "net.pth", b"\x80\x02" + b"N0" * (50 * 2**20) + b"N.")
    assert (tmp_path / "net.pth").stat().st_size < 200_000
    assert "its structure alone takes 104857604 bytes" in timed(tmp_path / "net.pth", 5.0)


def test_a_pickle_of_many_steps_ends():
    with pytest.raises(PickleError, match="2,000,000 steps"):
        read_pickle(io.BytesIO(b"\x80\x02" + b"N0" * 1_500_000 + b"N."), {})


def test_copies_of_one_text_are_counted(tmp_path):
    text = b"X" + (2**20).to_bytes(4, "little") + b"a" * 2**20
    call = b"c_codecs\nencode\nh\x01X\x06\0\0\0latin1\x86R0"
    as_archive(tmp_path / "net.pth", b"\x80\x02" + text + b"q\x01" + call * 1000 + b".")
    assert "unfolds to more" in timed(tmp_path / "net.pth", 5.0)


@pytest.mark.parametrize(
    ("steps", "part"),
    [
        (b".", "pop from empty list"),
        (b"(.", "mark"),
        (b"t.", "mark is missing"),
        (b"\x85.", "stack is empty"),
        (b"h\x07.", "7"),
        (b"K\x01K\x02a.", "appends to a int"),
        (b"K\x01K\x02K\x03s.", "sets an item of a int"),
        (b"K\x01Q.", "data outside"),
        (b"\x82\x01.", "EXT1"),
        (b"\x97.", "NEXT_BUFFER"),
        (b"N", "exhausted"),
        (b"X\xff\xff\xff\x7fabc.", "expected"),
        (b"\xff.", "opcode"),
        (b"}(K\x01u.", "shorter"),
        (b"K\x01K\x02\x93.", "name is no text"),
    ],
)
def test_a_damaged_pickle_is_a_pickle_error(steps, part):
    with pytest.raises(PickleError, match=part):
        read_pickle(io.BytesIO(b"\x80\x02" + steps), {})


def test_every_step_of_a_pickle_is_known_or_refused_by_name():
    for opcode in pickletools.opcodes:
        known = (
            opcode.name in inert._LITERALS
            or opcode.name in inert._CONSTANTS
            or opcode.name in inert._STEPS
        )
        refused = ("EXT1", "EXT2", "EXT4", "PERSID", "NEXT_BUFFER", "READONLY_BUFFER")
        assert known or opcode.name in ("PROTO", "FRAME", "STOP", *refused), opcode.name


@pytest.mark.parametrize("seed", range(4))
def test_flipped_bits_give_a_value_or_a_pickle_error(seed):
    value = {"model": collections.OrderedDict(a=[1.5, "x"]), "args": Trainer({"b": (1, 2)})}
    data, chance = pickle.dumps(value, 2 + seed % 4), random.Random(seed)
    for _ in range(500):
        flipped = bytearray(data)
        for _ in range(chance.randint(1, 3)):
            flipped[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        with contextlib.suppress(PickleError):
            read_pickle(io.BytesIO(bytes(flipped)), inert.PLAIN_BUILDERS)
