"""`edgevit benchmark`: real runs of small nets, every bad input, and going on after Ctrl-C."""

from __future__ import annotations

import json
import logging
import os
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from torch import nn

import edgevit
from edgevit.cli import _run, cli
from edgevit.errors import InputError, Interrupted, ToolMissing
from edgevit.graph import trace
from edgevit.graph.count import count
from edgevit.measure import benchmark as module
from edgevit.measure.benchmark import BenchmarkInterrupted
from edgevit.measure.benchmark_nets import entries_of
from edgevit.measure.benchmark_rows import (
    HEADINGS,
    Accuracy,
    Benchmark,
    Ratio,
    Row,
    cells,
    notes,
    with_figures,
)
from edgevit.measure.timing_program import settle, timing_program
from edgevit.models.repvit import count_macs, count_parameters
from edgevit.models.variants import VARIANTS
from edgevit.program import Metric
from edgevit.schema import check_json
from tests.programs import SMALL, make_program, seeded_net, seeded_pixels
from tests.timm_compat import import_timm

QUICK = {"rounds": 2, "inferences": 2, "warmup": 0, "image_size": 32}
SCHEMA = json.loads(
    (Path(edgevit.__file__).parent / "schemas" / "benchmark.schema.json").read_text()
)


class Sine(nn.Module):
    """No operation of it but the last is known."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.sin(x).mean((2, 3))


@pytest.fixture(scope="module")
def program() -> edgevit.Program:
    return make_program(32)


@pytest.fixture(scope="module")
def found(program: edgevit.Program, tmp_path_factory: pytest.TempPathFactory) -> Benchmark:
    """A real run of a program, a net without one, and a net that nothing can compile."""
    out = tmp_path_factory.mktemp("benchmark") / "found.json"
    nets = {"given": program, "net": seeded_net(), "sine": Sine()}
    result = edgevit.benchmark(
        nets, ["tflite", "onnx"], ["int8", "float32"], out=out, command="edgevit b", **QUICK
    )
    assert Benchmark.load(out) == result
    return result


def test_every_net_target_and_precision_is_a_row(found: Benchmark) -> None:
    pairs = [(t, p) for t in ("tflite", "onnx") for p in ("int8", "float32")]
    names = [(n, t, p) for n in ("given", "net", "sine") for t, p in pairs]
    assert [(row.net, row.target, row.precision) for row in found.rows] == names
    for row in found.rows[:8]:
        assert row.problem is None and row.compile_s and row.size_bytes and row.operators
        assert len(row.rounds_us) == 2 and row.p50_us and row.ratio
        assert row.ratio.min <= row.ratio.median <= row.ratio.max
        assert row.least_us and row.least_us <= min(row.rounds_us)
        counted = count(make_program(32).graph())
        assert (row.parameters, row.macs) == (counted.parameters, counted.macs)
    assert found.rows[0].ratio == Ratio(1.0, 1.0, 1.0)
    tflite, onnx = found.row("net"), found.row("net", "onnx")
    assert tflite.operators and tflite.operators.total and tflite.operators.delegated
    assert onnx.operators and onnx.operators.total and onnx.operators.delegated is None
    assert tflite.runtime and tflite.runtime.startswith("LiteRT ")
    assert found.row("net", precision="float32").size_bytes > tflite.size_bytes
    assert [row.weights for row in (found.row("given"), tflite)] == ["program", "timing"]
    assert found.complete and found.command == "edgevit b" and found.machine["cores"]
    assert len(found.machine["load_averages"]) == 3
    with pytest.raises(InputError, match="no row net, tflite float16"):
        found.row("net", precision="float16")


def test_what_cannot_be_compiled_is_a_row_with_the_reason(found: Benchmark) -> None:
    for row in found.rows[8:]:
        assert row.problem and "sin" in row.problem
        assert (row.p50_us, row.ratio, row.size_bytes, row.rounds_us) == (None, None, None, ())
    assert [line for line in notes(found.rows) if line.startswith("sine, tflite int8: ")]


def test_the_json_fits_its_schema_and_nothing_else_does(found: Benchmark, tmp_path: Path) -> None:
    document = found.to_json()
    check_json(document, "a benchmark", SCHEMA)
    for wrong in ({"schema_version": 2}, {"rows": None}, {"extra": 1}, {"complete": "yes"}):
        with pytest.raises(InputError):
            check_json(document | wrong, "a benchmark", SCHEMA)
        path = tmp_path / "wrong.json"
        path.write_text(json.dumps(document | wrong))
        with pytest.raises(InputError):
            Benchmark.load(path)


def test_the_plot_is_a_picture_with_every_timed_net(found: Benchmark, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib, of edgevit[plot], is not installed")
    odd = replace(found.rows[0], net="a$b<&>\x1b_{", accuracy=Accuracy(75.0, 8, None, True))
    drawn = replace(found, rows=(odd, *found.rows[1:]))
    texts = []
    for result in (found, drawn, drawn):
        result.plot(tmp_path / "plot.svg", force=True)
        texts.append((tmp_path / "plot.svg").read_bytes())
    assert texts[1] == texts[2]
    plain, both = (
        ["".join(e.itertext()) for e in ET.fromstring(t).iter("{http://www.w3.org/2000/svg}text")]
        for t in texts[:2]
    )
    assert plain.count("given") == plain.count("net") == 4 and "sine" not in plain
    assert "top-1, %" not in plain and both.count("top-1, %") == 1
    assert both.count("a$b<&>\\x1b_{") == 2  # in both panels
    with pytest.raises(InputError, match="exists already"):
        found.plot(tmp_path / "plot.svg")
    with pytest.raises(InputError, match="nothing to draw"):
        replace(found, rows=found.rows[8:]).plot(tmp_path / "none.svg")
    assert os.listdir(tmp_path) == ["plot.svg"]


def test_ratios_are_taken_within_a_round() -> None:
    """A machine that is three times slower in one round changes no ratio."""
    rows = [
        Row("none", "tflite", "int8", "random", problem="why"),
        Row("first", "tflite", "int8", "random", rounds_us=(100.0, 300.0, 100.0)),
        Row("second", "tflite", "int8", "random", rounds_us=(50.0, 150.0, 60.0)),
    ]
    none, first, second = with_figures(rows)
    assert none.ratio is None and first.ratio == Ratio(1.0, 1.0, 1.0)
    assert second.ratio == Ratio(0.5, 0.5, 0.6) and second.p50_us == 60.0
    assert len(cells(none)) == len(HEADINGS) and cells(second)[HEADINGS.index("p50 µs")] == "60"
    assert notes(rows)[1] == "none, tflite int8: why"


def test_each_round_has_an_order_of_its_own(program, monkeypatch, tmp_path) -> None:
    ran: list[str] = []

    def run(request, harness, quiet):
        ran.append(request.artifact.name)
        return RESULT

    monkeypatch.setattr(module, "run_harness", run)
    monkeypatch.setattr(module, "build_harness", lambda: tmp_path)
    nets = {name: program for name in "abcd"}
    for _ in range(2):
        edgevit.benchmark(nets, **{**QUICK, "rounds": 6})
    first, second = ran[:24], ran[24:]
    assert first == second
    orders = [tuple(first[i : i + 4]) for i in range(0, 24, 4)]
    assert all(sorted(order) == ["0-0", "1-0", "2-0", "3-0"] for order in orders)
    assert len(set(orders)) > 1


RESULT = {
    "ops": {"total": 3, "delegated": 2},
    "runtime": {"name": "fake", "version": None},
    "machine": {"cpu": "one", "cores": 1, "load_averages": [9, 9, 9]},
    "latency_us": {"invoke": {"p50": 7.0, "min": 6.5}},
}


def test_an_interrupted_run_keeps_its_rounds_and_goes_on(program, monkeypatch, tmp_path) -> None:
    ran: list[str] = []
    stop_after = 5  # in the third round of two artifacts

    def run(request, harness, quiet):
        if len(ran) == stop_after:
            raise KeyboardInterrupt
        ran.append(request.artifact.name)
        return RESULT

    monkeypatch.setattr(module, "run_harness", run)
    monkeypatch.setattr(module, "build_harness", lambda: tmp_path)
    nets, out = {"a": program, "b": seeded_net()}, tmp_path / "found.json"
    asked = {**QUICK, "rounds": 4}
    with pytest.raises(BenchmarkInterrupted, match=r"2 of 4 rounds.*goes on from") as caught:
        edgevit.benchmark(nets, out=out, **asked)
    kept = caught.value.result
    assert isinstance(caught.value, Interrupted) and not kept.complete
    assert [row.rounds_us for row in kept.rows] == [(7.0, 7.0)] * 2
    assert Benchmark.load(out) == kept
    with pytest.raises(InputError, match="other nets or options"):
        edgevit.benchmark(nets, out=out, **{**asked, "threads": 2})
    with pytest.raises(InputError, match="other nets or options"):
        edgevit.benchmark({"a": program}, out=out, **asked)
    assert Benchmark.load(out) == kept

    stop_after, before = -1, len(ran)
    whole = edgevit.benchmark(nets, out=out, **asked)
    assert len(ran) == before + 4  # two rounds of two, not four
    assert whole.complete and [len(row.rounds_us) for row in whole.rows] == [4, 4]
    assert whole.started_at == kept.started_at and whole.rows[0].least_us == 6.5
    with pytest.raises(InputError, match="exists already"):
        edgevit.benchmark(nets, out=out, **asked)


def test_ctrl_c_shows_the_rounds_so_far(program, monkeypatch, tmp_path, capsys) -> None:
    ran: list[str] = []

    def run(request, harness, quiet):
        if len(ran) == 3:
            raise KeyboardInterrupt
        ran.append(request.artifact.name)
        return RESULT

    monkeypatch.setattr(module, "run_harness", run)
    monkeypatch.setattr(module, "build_harness", lambda: tmp_path)
    path = program.save(tmp_path / "m.evq", force=True)
    assert _run(["benchmark", str(path), str(tmp_path / "m.evq"), "--rounds", "3"]) == 2
    other = program.save(tmp_path / "n.evq")
    assert _run(["benchmark", str(path), str(other), "--rounds", "3"]) == 130
    shown = capsys.readouterr()
    assert "interrupted: 1 of 3 rounds are measured" in shown.err
    assert re.search(r"m .*tflite.* int8 .* 7 .* 1\.000", shown.out), shown.out


def test_an_artifact_that_stops_running_is_a_row_with_the_reason(program, monkeypatch) -> None:
    real = module.run_harness
    calls = []

    def run(request, harness, quiet):
        calls.append(request)
        if request.artifact.name == "1-0" and len(calls) > 2:
            raise ToolMissing("the runtime went away")
        return real(request, harness, quiet=quiet)

    monkeypatch.setattr(module, "run_harness", run)
    found = edgevit.benchmark({"a": program, "b": program}, **{**QUICK, "rounds": 3})
    assert found.row("b").problem == "the runtime went away" and found.row("b").p50_us is None
    assert found.row("b").size_bytes and len(found.row("a").rounds_us) == 3


def test_nothing_measured_is_an_error(tmp_path: Path) -> None:
    out = tmp_path / "none.json"
    with pytest.raises(InputError, match=r"nothing could be measured; Sine, tflite int8: .*sin"):
        edgevit.benchmark(Sine(), out=out, **QUICK)
    assert not out.exists()


@pytest.mark.parametrize(
    ("nets", "options", "message"),
    [
        ([], {}, "no net"),
        (["repvit_m7_7"], {}, r"repvit_m7_7 is no file or folder, and no net's name.*repvit_m0_9"),
        (["a/none.evq"], {}, "none.evq is no file"),
        (["repvit_m0_9"] * 2, {}, "two nets go by the name 'repvit_m0_9'"),
        (["repvit_m0_9"], {"targets": ["toaster"]}, "--target.*toaster.*tflite"),
        (["repvit_m0_9"], {"precisions": ["int3"]}, "--precision.*int3"),
        (["repvit_m0_9"], {"targets": []}, "--target is missing"),
        (["repvit_m0_9"], {"rounds": 0}, "--rounds is 0"),
        (["repvit_m0_9"], {"limit": 3}, "--limit is of the images of --data"),
        (["repvit_m0_9"], {"data": "x"}, "none of the nets is a quantized program"),
    ],
)
def test_bad_input_is_refused_before_any_work(nets, options, message, monkeypatch) -> None:
    monkeypatch.setattr(module, "build_harness", lambda: pytest.fail("work was begun"))
    with pytest.raises(InputError, match=message):
        edgevit.benchmark(nets, **options)


def test_the_command_refuses_and_leaves_nothing_behind(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for words, code in ((["repvit_m7_7"], 2), ([], 2), (["--target", "toaster", "x"], 2)):
        done = CliRunner().invoke(cli, ["benchmark", *words, "-o", "out.json"])
        assert done.exit_code == code or isinstance(done.exception, InputError), done.output
    (tmp_path / "out.json").write_text("another's")
    done = CliRunner().invoke(cli, ["benchmark", "repvit_m0_9", "-o", "out.json"])
    assert isinstance(done.exception, InputError) and "exists already" in str(done.exception)
    assert os.listdir(tmp_path) == ["out.json"]


def test_an_artifact_folder_is_measured_as_it_is(program, tmp_path: Path, caplog) -> None:
    caplog.set_level(logging.INFO, "edgevit")
    folder = program.compile("onnx", tmp_path / "onnx").folder
    found = edgevit.benchmark(folder, ["tflite"], **QUICK)
    (row,) = found.rows
    assert (row.target, row.precision, row.weights) == ("onnx", "int8", "program")
    assert row.net == f"{program.info.model.variant} ({folder})" and row.compile_s is None
    counted = count(program.graph())
    assert (row.parameters, row.macs) == (counted.parameters, counted.macs)
    assert row.p50_us and "net 1 of 1" in caplog.text


def test_accuracy_is_measured_or_on_record(program, tmp_path: Path) -> None:
    metrics = (Metric("float_top1", 0.5, 40), Metric("program_top1", 0.45, 40),
               Metric("program_float_agreement", 0.9, 40))  # fmt: skip
    recorded = program.with_info(replace(program.info, metrics=metrics))
    found = edgevit.benchmark({"a": recorded}, precisions=["int8", "float32"], **QUICK)
    assert [row.accuracy for row in found.rows] == [
        Accuracy(45.0, 40, 90.0, False), Accuracy(50.0, 40, None, False)
    ]  # fmt: skip
    assert cells(found.rows[0])[-2:] == ["45.00 ‡", "90.00"]
    data = tmp_path / "data"
    for place, label in enumerate(program.info.labels):
        (data / label).mkdir(parents=True)
        Image.fromarray(seeded_pixels(1, 32, seed=place)[0]).save(data / label / "a.png")
    path = recorded.save(tmp_path / "a.evq")
    found = edgevit.benchmark([path, "repvit_m0_6"], data=data, limit=6, **QUICK)
    measured, random = found.rows
    assert measured.accuracy and measured.accuracy.measured and measured.accuracy.images == 6
    assert random.accuracy is None and random.problem is None and random.p50_us


@pytest.mark.parametrize("variant", ["repvit_m0_6", "repvit_m1_1"])
def test_a_graph_counts_as_the_fused_net_does(variant: str) -> None:
    net = VARIANTS[variant](distillation=False).eval().fuse()
    counted = count(trace(net, (3, 64, 64)))
    assert counted.macs == count_macs(net, 64)
    assert counted.parameters == count_parameters(net)


def test_a_settled_net_has_activations_and_stays_seeded() -> None:
    def make() -> nn.Module:
        torch.manual_seed(0)
        return settle(VARIANTS["repvit_m0_6"](num_classes=7, distillation=False), 32, 3)

    net, other = make(), make()
    assert not net.training
    for name, values in net.state_dict().items():
        assert torch.equal(values, other.state_dict()[name])
    made = timing_program(trace(net.fuse(), (3, 32, 32)), "random")
    scales = [q.scale for q in made.graph().quantizers.values()]
    assert max(scales) / min(scales) < 2**10  # XNNPACK's bound for an addition
    assert made.info.provenance == {"timing_only": True} and len(made.info.labels) == 7


def test_random_weights_leave_torch_s_seed_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    (entry,) = entries_of("repvit_m0_6", 32, 0)
    assert entry.make is not None and entry.weights == "random"
    entry.make()
    assert torch.equal(torch.rand(3), expected)


def test_a_checkpoint_gives_a_timing_program(embedded_checkpoint: Path) -> None:
    (entry,) = entries_of(embedded_checkpoint, 32, 0)
    assert (entry.name, entry.weights) == (embedded_checkpoint.stem, "timing") and entry.make
    made = entry.make()
    assert made.info.model.variant == "repvit_m0_9" and made.info.model.image_size == 32
    assert made.info.provenance == {"timing_only": True} and not made.info.metrics


def test_a_backbone_has_no_classes_and_is_timed() -> None:
    net = seeded_net(replace(SMALL, num_classes=10))
    backbone = nn.Sequential(net.stem, net.stages[0])
    found = edgevit.benchmark({"backbone": backbone}, **QUICK)
    assert found.rows[0].p50_us and found.rows[0].problem is None


def test_a_net_of_timm_is_known_by_its_name() -> None:
    import_timm()
    with pytest.raises(InputError, match=r"timm:mobilenetv3_smal_050: .* nearest .*small_050"):
        entries_of("timm:mobilenetv3_smal_050", 32, 0)
    found = edgevit.benchmark("timm:mobilenetv3_small_050", **QUICK)
    (row,) = found.rows
    assert row.net == "mobilenetv3_small_050" and row.weights == "random" and row.p50_us, row
