"""NNAPI gets a GELU net in pieces, and a net with another activation whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgevit.errors import ToolMissing
from edgevit.program import Program
from edgevit.targets.tflite import TARGET
from edgevit.targets.tflite.options import IO_TYPES, IoType, TfliteOptions
from tests.nnapi.check import DEFAULT_LIMIT, NnapiCheck, Partitions
from tests.programs import m0_9, make_program


def _build(folder: Path, android_api: int) -> NnapiCheck:
    try:
        return NnapiCheck(folder, android_api)
    except ToolMissing as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def check(tmp_path_factory: pytest.TempPathFactory) -> NnapiCheck:
    return _build(tmp_path_factory.mktemp("nnapi"), 31)


def divided(
    check: NnapiCheck, folder: Path, program: Program, io: IoType = "int8", **limit: int
) -> Partitions:
    (folder / "model.tflite").write_bytes(
        TARGET.write(program, TfliteOptions(io, activations="operator"))
    )
    return check(folder / "model.tflite", **limit)


@pytest.mark.parametrize("io", IO_TYPES)
@pytest.mark.parametrize("activation", ["hard-swish", "quick-gelu"])
def test_a_net_without_gelu_is_one_partition(
    check: NnapiCheck, tmp_path: Path, activation: str, io: str
) -> None:
    found = divided(check, tmp_path, make_program(activation=activation), io)
    assert (found.partitions, found.left_out) == (1, {})
    assert found.delegated == found.nodes and len(found.compiled) == 1
    assert found.compiled[0] >= found.nodes  # some operators take NNAPI two


def test_every_gelu_is_left_out_and_cuts_the_graph(check: NnapiCheck, tmp_path: Path) -> None:
    found = divided(check, tmp_path, make_program())
    assert found.left_out == {"GELU": 12} and found.partitions == 13 == len(found.compiled)
    assert found.delegated == found.nodes - 12


def test_the_delegates_own_limit_drops_most_of_a_gelu_net(
    check: NnapiCheck, tmp_path: Path
) -> None:
    """By default the delegate keeps its three largest partitions; the rest stays on the CPU."""
    found = divided(check, tmp_path, make_program(), max_partitions=DEFAULT_LIMIT)
    assert (found.max_partitions, found.partitions) == (3, 3)
    assert found.delegated < found.nodes / 2
    whole = make_program(activation="quick-gelu")
    found = divided(check, tmp_path, whole, max_partitions=DEFAULT_LIMIT)
    assert (found.partitions, found.left_out) == (1, {})


def test_repvit_m0_9_is_cut_by_its_27_gelus(check: NnapiCheck, tmp_path: Path) -> None:
    found = divided(check, tmp_path, make_program(config=m0_9()))
    assert (found.partitions, found.left_out) == (28, {"GELU": 27})
    found = divided(check, tmp_path, make_program(config=m0_9(), activation="quick-gelu"))
    assert (found.partitions, found.left_out) == (1, {})


def test_android_10_has_no_hard_swish(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The figures come from what the driver has: an older one gets the net in pieces again."""
    old = _build(tmp_path_factory.mktemp("nnapi29"), 29)
    found = divided(old, tmp_path, make_program(activation="hard-swish"))
    assert (found.partitions, found.left_out) == (13, {"HARD_SWISH": 12})
    found = divided(old, tmp_path, make_program(activation="quick-gelu"))
    assert (found.partitions, found.left_out) == (1, {})


def test_a_file_that_is_no_model_is_an_error(check: NnapiCheck, tmp_path: Path) -> None:
    (tmp_path / "bad.tflite").write_bytes(b"not a model")
    with pytest.raises(RuntimeError, match="not a model"):
        check(tmp_path / "bad.tflite")
