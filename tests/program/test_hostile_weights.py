"""Scales and weights that somebody made to do harm: refused, by name.

Each file is a good one with one thing changed, checksums set right again, so that the check meant
is the one that answers.
"""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgevit.program.tensors import read_tensors, tensor_bytes
from tests.program.hostile import JUNK, opens, places, put, refused, without
from tests.program.test_hostile_graph import GATE, GRAPH, good, graph, node, random_member
from tests.program.version1 import repacked

pytestmark = pytest.mark.filterwarnings("error")
WEIGHTS = "weights.safetensors"
METADATA = {"schema_version": "2"}


def tensors() -> dict[str, np.ndarray]:
    found, metadata = read_tensors(good()[WEIGHTS], WEIGHTS)
    assert metadata == METADATA
    return {name: values.copy() for name, values in found.items()}


def weights(change: Callable[[dict[str, np.ndarray]], Any], metadata: Any = None) -> bytes:
    """The file with its tensors, arrays by name, changed."""
    found = tensors()
    change(found)
    data = tensor_bytes(found, METADATA if metadata is None else metadata)
    return repacked(good() | {WEIGHTS: data})


def quantizer(value: dict, name: str) -> dict:
    return next(row for row in value["quantizers"] if row["name"] == name)


def test_the_helpers_themselves_change_nothing(tmp_path: Path) -> None:
    assert opens(tmp_path, weights(lambda found: None))


# -- quantizers -------------------------------------------------------------------------------


ACT = "stem.act1"


def scale_of(name: str, **changes: Any) -> Callable[[dict], Any]:
    return lambda value: quantizer(value, name).update(changes)


def another_row(name: str, scale: float = 0.5) -> Callable[[dict], Any]:
    row = {"name": name, "scale": scale, "zero_point": 0, "how": "learned"}
    return lambda value: value["quantizers"].append(row)


QUANTIZERS: dict[str, tuple[Callable[[dict], Any], str]] = {
    "scale 0": (scale_of(ACT, scale=0.0), f"{ACT}: a quantizer's scale must be a positive"),
    "a negative scale": (scale_of(ACT, scale=-0.5), f"{ACT}: a quantizer's scale must be"),
    "negative 0": (scale_of(ACT, scale=-0.0), f"{ACT}: a quantizer's scale must be"),
    "a scale that is not fp16's": (scale_of(ACT, scale=0.1), f"{ACT}: scale 0.1 is not float16"),
    "a scale of no value of fp16": (scale_of(ACT, scale=1e300), f"{ACT}: scale 1e.300 is not"),
    "a tiny scale": (scale_of(ACT, scale=5e-324), f"{ACT}: scale 5e-324 is not float16-exact"),
    "an integer": (scale_of(ACT, scale=1), f"{ACT}: scale 1, zero-point 0 are no quantizer"),
    "a boolean": (scale_of(ACT, scale=True), f"{ACT}: scale True"),
    "text": (scale_of(ACT, scale="0.5"), f"{ACT}: scale '0.5'"),
    "no scale": (scale_of(ACT, scale=None), f"{ACT}: scale None"),
    "the input's scale 0": (scale_of("input", scale=0.0), "input: a quantizer's scale must be"),
    "the input's large scale": (scale_of("input", scale=1e308), "input: scale 1e.308 is not"),
    "a zero-point of the other profile": (
        scale_of(ACT, zero_point=3), f"{ACT}: zero-point 3; the portable profile is symmetric"),
    "a zero-point over int8": (scale_of(ACT, zero_point=128), f"{ACT}: zero-point 128 is outside"),
    "a zero-point under int8": (scale_of(ACT, zero_point=-129), f"{ACT}: zero-point -129 is out"),
    "a huge zero-point": (scale_of(ACT, zero_point=2**62), f"{ACT}: zero-point {2**62} is outside"),
    "a zero-point with a point": (scale_of(ACT, zero_point=0.0), f"{ACT}: .* are no quantizer"),
    "a zero-point of truth": (scale_of(ACT, zero_point=False), f"{ACT}: .* are no quantizer"),
    "an unknown how": (scale_of(ACT, how="guessed"), f"{ACT}: how must be one of"),
    "a how of another type": (scale_of(ACT, how=["learned"]), f"{ACT}: how must be one of"),
    "a fixed scale changed": (scale_of(GATE, scale=1 / 128), f"{GATE}: a sigmoid's output is"),
    "a fixed zero-point changed": (scale_of(GATE, zero_point=0), f"{GATE}: a sigmoid's output is"),
    "of a tensor that shares another's": (another_row("flatten"), "flatten: it has a quantizer"),
    "of no tensor": (another_row("nothing"), "nothing: it has a quantizer, but no such tensor"),
    "twice, the same": (another_row(ACT), f"{ACT}: it has two quantizers"),
    "missing": (lambda v: v["quantizers"].pop(), "head: tensor has no quantizer"),
    "the input's missing": (lambda v: v["quantizers"].pop(0), "input: tensor has no quantizer"),
    "none at all": (lambda v: v["quantizers"].clear(), "tensor has no quantizer"),
    "an unknown key": (scale_of(ACT, quant_min=-127), "quantizers: expected the keys"),
    "a missing key": (lambda v: quantizer(v, ACT).pop("how"), "quantizers: expected the keys"),
    "of another type": (lambda v: v.update(quantizers={}), "quantizers is not a list"),
    "a row of another type": (lambda v: v["quantizers"].append(7), "quantizers: expected the keys"),
}  # fmt: skip


@pytest.mark.parametrize("name", QUANTIZERS)
def test_another_quantizer_is_refused(tmp_path: Path, name: str) -> None:
    change, message = QUANTIZERS[name]
    refused(tmp_path, graph(change), message)


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "0x10", "01"])
def test_a_scale_that_is_no_number_of_json_is_refused(tmp_path: Path, text: str) -> None:
    found = good()[GRAPH].decode()
    before = f'"scale": {json.loads(found)["quantizers"][3]["scale"]!r}'
    assert before in found
    changed = found.replace(before, f'"scale": {text}').encode()
    refused(tmp_path, repacked(good() | {GRAPH: changed}), "graph.json is not valid JSON")


def test_a_key_twice_is_refused(tmp_path: Path) -> None:
    found = good()[GRAPH].decode()
    changed = found.replace('"zero_point": 0', '"zero_point": 0, "zero_point": 0', 1).encode()
    refused(tmp_path, repacked(good() | {GRAPH: changed}), "a key occurs twice")


# -- weights ----------------------------------------------------------------------------------


HEAD = "head.weight"


def item(name: str, value: Any) -> Callable[[dict[str, np.ndarray]], Any]:
    return lambda found: found[name].reshape(-1).__setitem__(0, value)


def other(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[dict], Any]:
    return lambda found: found.update({name: change(found[name])})


TENSORS: dict[str, tuple[Callable[[dict[str, np.ndarray]], Any], str]] = {
    "a weight of -128": (item(HEAD, -128), "head: weights must be int8 in -127..127"),
    "a weight missing": (lambda t: t.pop(HEAD), "head.weight: weights.safetensors lacks it"),
    "a scale missing": (lambda t: t.pop("head.weight_scale"), "head.weight_scale: .* lacks it"),
    "a bias missing": (lambda t: t.pop("head.bias"), "head.bias: .* lacks it"),
    "one too many": (lambda t: t.update(odd=np.zeros(3, np.int8)), "odd: no operation reads this"),
    "a real weight": (other(HEAD, lambda w: w.astype(np.float32)), "is float32 .* expected int8"),
    "an unsigned weight": (other(HEAD, lambda w: w.view(np.uint8)), "it is uint8"),
    "a half scale": (other("head.weight_scale", np.float16), "it is float16 .* expected float32"),
    "an int8 bias": (other("head.bias", lambda b: b.astype(np.int8)), "it is int8 .* int32"),
    "a real bias": (other("head.bias", np.float32), "it is float32 .* expected int32"),
    "a weight of one row less": (other(HEAD, lambda w: w[:-1]), "head: weight .* do not fit"),
    "a weight of one column less": (other(HEAD, lambda w: w[:, 1:]), "head: linear .* cannot read"),
    "a weight of another rank": (other(HEAD, lambda w: w[:, :, None]), "head: weight .* not fit"),
    "a weight of rank 0": (other(HEAD, lambda w: w[0, 0].reshape(())), "head: weight .* not fit"),
    "a weight of nothing": (other(HEAD, lambda w: w[:, :0]), "head: weight .* do not fit"),
    "no channels": (
        lambda t: t.update({name: t[name][:0] for name in t if name.startswith("head.")}),
        "head: weight .* do not fit"),
    "a kernel of nothing": (
        other("stem.conv1.weight", lambda w: w[:, :, :0, :0]), "stem.conv1: weight .* do not fit"),
    "a bias of another length": (other("head.bias", lambda b: b[:-1]), "head: weight .* not fit"),
    "one scale": (other("head.weight_scale", lambda s: s[:1]), "head: one float32 weight scale"),
    "a scale of another rank": (
        other("head.weight_scale", lambda s: s[:, None]), "head: one float32 weight scale"),
    "scale 0": (item("head.weight_scale", 0), "head: its weights are not int8 with float16-exact"),
    "a negative scale": (item("head.weight_scale", -0.5), "head: its weights are not int8 with"),
    "scale NaN": (item("head.weight_scale", np.nan), "head: its weights are not int8 with"),
    "scale infinity": (item("head.weight_scale", np.inf), "head: its weights are not int8 with"),
    "a scale that is not fp16's": (item("head.weight_scale", 0.1), "head: its weights are not"),
    "a huge scale": (item("stem.conv1.weight_scale", 3e38), "stem.conv1: its weights are not"),
}  # fmt: skip


@pytest.mark.parametrize("name", TENSORS)
def test_other_weights_are_refused(tmp_path: Path, name: str) -> None:
    change, message = TENSORS[name]
    refused(tmp_path, weights(change), message)


@pytest.mark.parametrize("value", [-(2**31), 2**31 - 1])
def test_the_largest_biases_there_are_run(tmp_path: Path, value: int) -> None:
    assert opens(tmp_path, weights(item("stem.conv1.bias", value)))


def test_a_subnormal_scale_runs(tmp_path: Path) -> None:
    """2**-24 is a value of fp16, though no scale that edgevit writes."""
    assert opens(tmp_path, weights(item("stem.conv1.weight_scale", 2.0**-24)))


@pytest.mark.parametrize(
    "metadata", [{}, {"schema_version": "3"}, {"schema_version": "2", "more": "x"}]
)
def test_other_metadata_is_refused(tmp_path: Path, metadata: dict[str, str]) -> None:
    refused(tmp_path, weights(lambda found: None, metadata), "weights.safetensors: its metadata is")


# -- the safetensors file itself --------------------------------------------------------------


def with_header(change: Callable[[dict], Any], tail: bytes = b"") -> bytes:
    """The file with the header of its weights changed, and bytes behind the data."""
    data = good()[WEIGHTS]
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    change(header)
    head = json.dumps(header).encode()
    changed = struct.pack("<Q", len(head)) + head + data[8 + size :] + tail
    return repacked(good() | {WEIGHTS: changed})


HEADERS: dict[str, Callable[[dict], Any]] = {
    "a type that numpy lacks": lambda h: h[HEAD].update(dtype="BF16"),
    "an unknown type": lambda h: h[HEAD].update(dtype="I3"),
    "a shape over its bytes": lambda h: h[HEAD].update(shape=[10, 1000]),
    "a shape of 2**62": lambda h: h[HEAD].update(shape=[2**62, 4]),
    "a negative shape": lambda h: h[HEAD].update(shape=[-1, 32]),
    "offsets behind the end": lambda h: h[HEAD].update(data_offsets=[0, 2**40]),
    "offsets that overlap": lambda h: h[HEAD].update(
        data_offsets=h["stem.conv1.weight"]["data_offsets"]),
    "offsets backwards": lambda h: h[HEAD].update(data_offsets=[100, 0]),
    "an unknown key": lambda h: h[HEAD].update(extra=1),
    "a missing key": lambda h: h[HEAD].pop("dtype"),
    "metadata that is no text": lambda h: h["__metadata__"].update(schema_version=2),
    "metadata that is no object": lambda h: h.update(__metadata__=[]),
    "deep nesting": lambda h: h.update(odd=json.loads("[" * 500 + "]" * 500)),
}  # fmt: skip


@pytest.mark.parametrize("name", HEADERS)
def test_a_damaged_header_is_refused(tmp_path: Path, name: str) -> None:
    refused(tmp_path, with_header(HEADERS[name]), "weights.safetensors|head|stem")


def test_bytes_that_belong_to_no_tensor_are_refused(tmp_path: Path) -> None:
    refused(tmp_path, with_header(lambda header: None, b"\0" * 8), "weights.safetensors is damaged")


@pytest.mark.parametrize(
    "data",
    [b"", b"\0" * 7, b"\0" * 8, b"\xff" * 8, b"\xff" * 100, struct.pack("<Q", 2**40) + b"{}",
     struct.pack("<Q", 2) + b"{}", struct.pack("<Q", 2) + b"[]", struct.pack("<Q", 4) + b"null"],
)  # fmt: skip
def test_what_is_no_safetensors_is_refused(tmp_path: Path, data: bytes) -> None:
    refused(tmp_path, repacked(good() | {WEIGHTS: data}), "weights.safetensors|lacks it")


def test_a_header_with_a_tensor_twice_is_refused(tmp_path: Path) -> None:
    data = good()[WEIGHTS]
    size = int.from_bytes(data[:8], "little")
    head = data[8 : 8 + size].rstrip()
    entry = json.dumps(json.loads(head)[HEAD])
    doubled = head[:-1] + f', "{HEAD}": {entry}'.encode() + b"}"
    changed = struct.pack("<Q", len(doubled)) + doubled + data[8 + size :]
    refused(tmp_path, repacked(good() | {WEIGHTS: changed}), "a key occurs twice")


# -- junk everywhere --------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_no_junk_at_any_place_of_the_graph_is_another_error(tmp_path: Path, seed: int) -> None:
    """Every second place of a random net's graph.json, with junk drawn for it, or without it."""
    members = random_member(seed)
    value = json.loads(members[GRAPH])
    chance = random.Random(seed)
    ran = 0
    for place in list(places(value))[seed % 2 :: 2]:
        for junk in chance.sample(JUNK, 2):
            changed = put(value, place, junk)
            ran += opens(tmp_path, repacked(members | {GRAPH: json.dumps(changed).encode()}))
        changed = without(value, place)
        ran += opens(tmp_path, repacked(members | {GRAPH: json.dumps(changed).encode()}))
    assert node(value, value["nodes"][0]["name"]) and ran < 40
