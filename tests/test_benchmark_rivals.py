"""benchmarks/rivals.py: what it says of times, and of files that are not there."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
import rivals
from rivals import KINDS, OWN_INT8, PEER_INT8, RIVALS, Measured, Peers, ratio, row_of, verdicts


def measured(name: str, own: list[float] | None, peer: list[float] | None) -> Measured:
    (rival,) = (each for each in RIVALS if each.name == name)
    found = Measured(rival)
    found.times_us = {
        kind: times for kind, times in ((OWN_INT8, own), (PEER_INT8, peer)) if times is not None
    }
    return found


def test_the_goals_say_where_they_fail_and_what_is_not_known() -> None:
    base = measured("repvit_m0_9", [100.0, 300.0], [120.0, 390.0])
    nets = [
        base,
        measured("mobileone_s2", [90.0, 270.0], [80.0, 330.0]),  # 77.4, not distilled: its class
        measured("efficientformerv2_s1", None, [150.0, 390.0]),  # 79.0, distilled
        measured("swiftformer_s", None, None),
        measured("mobilenetv3_large_100", [50.0, 50.0], [40.0, 50.0]),  # of no class of M0.9's
    ]
    found = verdicts(nets, base)
    assert set(found["own_int8_slower_than_peer_int8"]) == {"mobilenetv3_large_100"}
    assert found["without_both_int8_files"] == ["efficientformerv2_s1", "swiftformer_s"]
    against = found["m0_9_int8_against_its_accuracy_class"]
    assert list(against) == ["mobileone_s2", "efficientformerv2_s1", "swiftformer_s"]
    mobileone = against["mobileone_s2"]
    assert (mobileone["best_int8"], mobileone["m0_9_is_faster"]) == (OWN_INT8, False)
    hybrid = against["efficientformerv2_s1"]
    assert (hybrid["best_int8"], hybrid["m0_9_is_faster"]) == (PEER_INT8, True)
    assert hybrid["time_over_m0_9"] == {"median": 1.4, "min": 1.3, "max": 1.5}
    assert against["swiftformer_s"]["m0_9_is_faster"] is None


def test_a_row_has_no_figure_that_was_not_measured() -> None:
    base = measured("repvit_m0_9", [100.0], None)
    lacking = measured("swiftformer_s", None, None)
    lacking.problems["float32"] = "not run: no --peers"
    row = row_of(lacking, base)
    assert row["p50_us"] == row["size_bytes"] == {} and row["parameters"] is None
    assert row["time_over_m0_9"] == dict.fromkeys(KINDS)
    assert row["float32_over_int8"] is row["own_int8_over_peer_int8"] is None
    assert row["problems"] == {"float32": "not run: no --peers"}
    assert row["iphone12_over_m0_9"] == round(1.2 / 0.9, 2)
    assert ratio([2.0, 4.0], [1.0, 1.0]) == {"median": 3.0, "min": 2.0, "max": 4.0}


def test_without_peers_their_files_are_not_run(tmp_path: Path) -> None:
    none = Peers(None, {})
    with pytest.raises(RuntimeError, match="no --peers"):
        none.float32(RIVALS[0], None, tmp_path)
    with pytest.raises(SystemExit, match="is no environment"):
        Peers(tmp_path, {})


def test_a_tool_that_fails_leaves_its_reason_and_no_file(tmp_path: Path, monkeypatch) -> None:
    """The failing tool is this interpreter with a worker that is not there."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    peers = Peers(tmp_path, {224: tmp_path / "images.npy"})
    monkeypatch.setattr(rivals, "__file__", str(tmp_path / "elsewhere.py"))
    with pytest.raises(RuntimeError, match="rivals_peer.py"):
        peers.int8(RIVALS[0], tmp_path / "float.tflite")
    assert list((tmp_path / "rivals").iterdir()) == []
