"""What report.html shows of a long run, from results made up for it."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from edgevit.commands.report import report_command
from edgevit.errors import GateFailed, InputError
from edgevit.measure.proof import proof_of
from edgevit.measure.report.chart import Series, chart
from edgevit.measure.report.long_run import MAX_ROWS, rows_of, section, sentences
from edgevit.measure.report.page import write_report
from tests.proofs import validation_of, write_validation
from tests.test_harness import edit_manifest, write_artifact


def summary(p50: float, count: int = 100) -> dict[str, float]:
    """Percentiles in microseconds, p90 a quarter above p50."""
    return {
        "p50": p50, "p90": p50 * 1.25, "p99": p50 * 1.5, "mean": p50, "min": p50, "max": p50 * 2,
        "count": count,
    }  # fmt: skip


def long_run(p50s: list[float], bucket_s: float = 10.0, **changes: Any) -> dict[str, Any]:
    """A run with a bucket for each p50, one thermal zone and one clock."""

    def sensors(i: int) -> dict[str, Any]:
        return {"temperatures_c": [40.0 + i], "frequencies_khz": [1_800_000 - 1000 * i]}

    return {
        "mode": "duration", "min_duration_s": 60.0, "min_samples": 0, "samples": 100 * len(p50s),
        "duration_s": bucket_s * len(p50s), "invoke_share_percent": 80.0, "zones": ["soc"],
        "clocks": ["policy0"], "sensors_at_start": sensors(0), "bucket_s": bucket_s,
        "buckets": [
            {"start_s": i * bucket_s, "invoke_us": summary(p50), "sensors": sensors(i + 1)}
            for i, p50 in enumerate(p50s)
        ],
        "window_s": 60.0, "first_invoke_us": summary(p50s[0]), "last_invoke_us": summary(p50s[-1]),
        "p50_ratio": p50s[-1] / p50s[0],
    } | changes  # fmt: skip


class Page(HTMLParser):
    """The text of a page, its tags, and whether those that need an end have one, in order."""

    OPEN_ENDED = frozenset({"meta", "td", "th", "tr", "path", "circle"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text, self.tags, self._open = "", [], []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in self.OPEN_ENDED:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.OPEN_ENDED:
            assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_device_that_slows_down_is_seen() -> None:
    run = long_run([500.0] * 6 + [750.0] * 6)
    page = Page(section(run, summary(600.0, 1200)))
    assert "1200 inferences in 120 s, 80 % of it in the runtime's call" in page.text
    assert "first minute0.5000.6250.750100" in page.text
    assert "last minute0.7500.9381.125100" in page.text
    assert "last / first× 1.500" in page.text
    assert page.tags.count("figure") == 3  # invoke, temperature, clock
    assert "soc40.040.052.052.0" in page.text and "policy01800.01788.01800.01788.0" in page.text
    assert "MLPerf" not in page.text
    assert sentences(run)[1:] == [
        "last 60 s against the first: invoke p50 × 1.50", "hottest: soc at 52 °C"
    ]  # fmt: skip


def test_the_lines_are_drawn_where_the_values_are() -> None:
    """From zero, so that half the height is half the time; the SVG's y axis points down."""
    html = section(long_run([500.0, 1000.0]), summary(600.0))
    lines = re.findall(r'<path d="(M[^"]*L[^"]*)" fill="none"', html)
    p50, p90 = ([tuple(map(float, p.split())) for p in re.split("[ML]", d)[1:]] for d in lines[:2])
    zero = float(re.findall(r'y="([\d.]+)" text-anchor="end">0</text>', html)[0]) - 4
    assert (zero - p50[1][1]) / (zero - p50[0][1]) == pytest.approx(2, abs=0.01)
    assert (zero - p90[0][1]) / (zero - p50[0][1]) == pytest.approx(1.25, abs=0.01)
    assert p50[0][0] < p50[1][0]


def test_mlperf_shows_its_p90_and_what_it_is_not() -> None:
    run = long_run([500.0] * 6, mode="mlperf", min_samples=1024, samples=9000)
    text = Page(section(run, summary(640.0, 9000))).text
    assert "invoke P90 0.800 ms over 9000 inferences in 60 s (at least 1024 and 60 s" in text
    assert "Not a result of MLPerf" in text


def test_a_run_without_sensors_or_windows_says_so_by_leaving_them_out() -> None:
    nothing = {"temperatures_c": [], "frequencies_khz": []}
    run = long_run(
        [500.0], zones=[], clocks=[], sensors_at_start=nothing, first_invoke_us=None,
        p50_ratio=None, window_s=0.5,
    )  # fmt: skip
    run["buckets"][0]["sensors"] = nothing
    page = Page(section(run, summary(500.0)))
    assert page.tags.count("figure") == 1
    assert "first 0.5 sno inference ended in it" in page.text and "×" not in page.text
    assert sentences(run) == ["100 inferences in 10 s, 80 % of it in the runtime's call"]


def test_readings_that_failed_are_gaps() -> None:
    run = long_run([500.0] * 4)
    run["buckets"][1]["sensors"] = {"temperatures_c": [None], "frequencies_khz": [None]}
    html = section(run, summary(500.0))
    temperature = re.findall(r'<path d="(M[^"]*)" fill="none"', html)[2]
    assert temperature.count("M") == 2 and temperature.count("L") == 2
    assert "soc40.040.044.044.0" in Page(html).text
    for bucket in run["buckets"]:
        bucket["sensors"] = {"temperatures_c": [None], "frequencies_khz": [None]}
    run["sensors_at_start"] = run["buckets"][0]["sensors"]
    assert Page(section(run, summary(500.0))).tags.count("figure") == 1


def test_the_few_inferences_of_a_last_bucket_are_in_the_table_only() -> None:
    run = long_run([500.0, 500.0, 9000.0], duration_s=20.001)
    html = section(run, summary(500.0))
    assert "9.000" in Page(html).text
    assert "9 ms" not in html and html.count("<title>p50") == 2


def test_an_hour_of_short_buckets_stays_a_small_page_and_keeps_its_peak() -> None:
    p50s = [500.0] * 36_000
    p50s[12_345] = 4321.0
    run = long_run(p50s, 0.1)
    rows = rows_of(run)
    assert len(rows) <= MAX_ROWS and sum(row.count for row in rows) == run["samples"]
    assert max(row.p50_us for row in rows) == 4321.0
    html = section(run, summary(500.0))
    assert len(html) < 100_000 and "150 together" in html


def test_names_from_the_device_are_text() -> None:
    run = long_run([500.0] * 2, zones=["<script>x</script>"], clocks=["a&b"])
    page = Page(section(run, summary(500.0)))
    assert "script" not in page.tags and "<script>" in page.text


def test_a_phones_many_zones_draw_the_hottest() -> None:
    run = long_run([500.0] * 3, zones=[f"zone{i}" for i in range(50)])
    for bucket in [*run["buckets"], {"sensors": run["sensors_at_start"]}]:
        bucket["sensors"]["temperatures_c"] = [float(i) for i in range(50)]
    html = section(run, summary(500.0))
    caption = re.search(r"<figcaption>temperature.*?</figcaption>", html)
    assert re.findall(r"zone\d+", caption[0]) == [f"zone{i}" for i in range(49, 43, -1)]
    assert "6 highest of 50" in html and "zone0<" in html


@pytest.mark.parametrize("values", [[0.0], [5.0, 5.0], [1e-9, 2e-9], [1e12], [-3.0, 4.0]])
def test_any_range_of_values_can_be_drawn(values: list[float]) -> None:
    html = chart("x", "u", [Series("a", list(enumerate(values)))], 0.0)
    ticks = re.findall(r'text-anchor="end">([^<]*)<', html)
    assert 2 <= len(ticks) <= 7
    assert float(ticks[0]) <= min(values) and max(values) <= float(ticks[-1])


def test_the_report_of_an_artifact_has_its_long_run(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    folder = write_artifact(tmp_path / "run" / "null")
    latency = {"invoke": summary(500.0)}
    for run, expected in ((long_run([500.0] * 3), 1), (None, 0)):
        write_validation(folder, long_run=run, latency_us=latency)
        write_report(tmp_path / "run", force=True)
        page = Page((tmp_path / "run" / "report.html").read_text())
        assert page.text.count("Latency over time") == expected
    write_validation(folder)  # as results were before there were long runs
    write_report(tmp_path / "run", force=True)


def run_of(tmp_path: Path) -> tuple[Path, Path]:
    """A run folder, and the folder of an INT8 artifact in it that nobody has validated."""
    (tmp_path / "run").mkdir()
    folder = write_artifact(tmp_path / "run" / "null")
    audit = {"activations": 1, "weight_channels": 1, "exact": True}
    edit_manifest(folder, audit=audit, profile="portable")
    return tmp_path / "run", folder


def verdict(run: Path) -> tuple[bool | None, str]:
    """ "passed" of report.json, and what the page's heading says."""
    report = write_report(run, force=True)
    page = (run / "report.html").read_text()
    return report["passed"], re.findall(r"<h1>.*<span class=\w+>(.*)</span></h1>", page)[0]


def _overwrite_the_model(folder: Path) -> None:
    write_validation(folder)
    (folder / "model.bin").write_bytes(b"junk")


def _leave_another_artifacts_validation(folder: Path) -> None:
    write_validation(folder, artifact={"file": "m", "sha256": "2" * 64})


def _leave_another_programs_validation(folder: Path) -> None:
    write_validation(folder, program={"sha256": "2" * 64})


def _measure_without_a_gate(folder: Path) -> None:
    value = validation_of(folder) | {"accuracy_gate": None, "agreement_gate": None}
    (folder / "validation.json").write_text(json.dumps(value))


def _name_no_artifact(folder: Path) -> None:
    value = validation_of(folder)
    del value["result"]["artifact"]
    (folder / "validation.json").write_text(json.dumps(value))


@pytest.mark.parametrize(
    ("put", "why"),
    [
        (lambda folder: None, "not validated"),
        (_overwrite_the_model, "model.bin is not the artifact its manifest describes"),
        (_leave_another_artifacts_validation, "of another artifact"),
        (_leave_another_programs_validation, "of another program"),
        (_name_no_artifact, "of another artifact"),
        (_measure_without_a_gate, "no gate"),
    ],
)
def test_nothing_is_called_passed_that_nobody_measured(
    tmp_path: Path, put: Callable[[Path], None], why: str
) -> None:
    run, folder = run_of(tmp_path)
    put(folder)
    assert verdict(run) == (None, "not validated")
    report = json.loads((run / "report.json").read_text())
    assert why in report["not_validated"]["null"]
    assert "passed" not in Page((run / "report.html").read_text()).text.split("{")[0]
    with pytest.raises(GateFailed, match="no artifact in .* was validated"):
        report_command.main([str(run), "--force"], standalone_mode=False)
    with pytest.raises((InputError, GateFailed)):
        proof_of(folder).require(folder, "validate it")


def test_what_was_measured_is_called_by_its_result(tmp_path: Path) -> None:
    run, folder = run_of(tmp_path)
    write_validation(folder)
    assert verdict(run) == (True, "passed")
    report_command.main([str(run), "--force"], standalone_mode=False)
    write_validation(folder, passed=False)
    assert verdict(run) == (False, "failed")
    with pytest.raises(GateFailed, match="a gate failed"):
        report_command.main([str(run), "--force"], standalone_mode=False)
    value = validation_of(folder) | {"agreement_gate": {"passed": False}}
    (folder / "validation.json").write_text(json.dumps(value))
    assert verdict(run) == (False, "failed")


def test_one_artifact_of_two_is_not_all(tmp_path: Path) -> None:
    run, folder = run_of(tmp_path)
    write_validation(folder)
    shutil.copytree(folder, run / "other")
    (run / "other" / "validation.json").unlink()
    assert verdict(run) == (None, "not validated")
    report_command.main([str(run), "--force"], standalone_mode=False)


def test_what_a_killed_run_left_is_no_artifact(tmp_path: Path) -> None:
    run, folder = run_of(tmp_path)
    write_validation(folder)
    shutil.copytree(folder, run / ".other.1234.0a1b2c3d.tmp")
    report = write_report(run)
    assert list(report["artifacts"]) == ["null"] and report["passed"] is True


def test_every_text_of_a_file_is_escaped(tmp_path: Path) -> None:
    run, folder = run_of(tmp_path)
    evil = "<script>alert(1)</script>"
    value = validation_of(
        folder, machine={"cpu": evil, "cores": 2}, runtime={"name": evil}, agreement=None
    )
    (folder / "validation.json").write_text(json.dumps(value | {"failures": [evil]}))
    evil_folder = run / evil.replace("/", "_")
    shutil.copytree(folder, evil_folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    layer = {
        "name": evil, "op": evil, "values": 1, "differing_percent": 0.0, "max_steps": 1.0,
        "sqnr_db": None,
    }  # fmt: skip
    parity = {
        "schema_version": 1, "kind": "edgevit-parity", "target": evil, "engine": evil,
        "artifact_sha256": manifest["artifact"]["sha256"],
        "program_sha256": manifest["program"]["sha256"], "dataset_sha256": "0" * 64,
        "layers": [layer], "layer_images": 1, "first_departure": evil, "images": 1,
        "agreement_percent": 100.0, "top1_percent": 100.0, "program_top1_percent": 100.0,
    }  # fmt: skip
    (folder / "parity.json").write_text(json.dumps(parity))
    write_report(run)
    html = (run / "report.html").read_text()
    assert "<script" not in html and html.count("&lt;script&gt;") > 6


@pytest.mark.parametrize("name", ["validation.json", "parity.json"])
@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", "null", "7", '"x"', "[" * 100_000, "NaN", '{"a": NaN}', '{"a": 1e999}',
     '{"passed": true, "result": {}}', '{"kind": "edgevit-parity"}', '"\\ud800"', "\xff",
     "1" * 5000],
    ids=lambda text: text[:12],
)  # fmt: skip
def test_a_file_that_is_none_of_edgevits_is_named(tmp_path: Path, name: str, text: str) -> None:
    run, folder = run_of(tmp_path)
    (folder / name).write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=name.replace(".", r"\.")):
        write_report(run)
    assert sorted(p.name for p in run.iterdir()) == ["null"]


NUMBERS = {
    "validation.json": [
        ("result", "machine", "cores"), ("result", "threads"), ("result", "accuracy", "count"),
        ("result", "accuracy", "top1_percent"), ("result", "latency_us", "invoke", "p50"),
        ("result", "latency_us", "invoke", "p90"), ("passed",), ("failures",), ("accuracy_gate",),
    ],
}  # fmt: skip


@pytest.mark.parametrize("place", NUMBERS["validation.json"], ids="/".join)
@pytest.mark.parametrize(
    "value", ["<b>", {"a": 1}, [1], 10**400], ids=["text", "object", "array", "huge"]
)
def test_a_value_of_another_type_is_named(
    tmp_path: Path, place: tuple[str, ...], value: Any
) -> None:
    run, folder = run_of(tmp_path)
    written = validation_of(folder)
    inner = written
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    sys.set_int_max_str_digits(0)
    try:
        (folder / "validation.json").write_text(json.dumps(written))
    finally:
        sys.set_int_max_str_digits(4300)
    with pytest.raises(InputError, match=r"validation\.json"):
        write_report(run)
