"""The report as Markdown and as JUnit XML, and the steps of the GitHub Action."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import get_args
from xml.etree import ElementTree

import pytest
import yaml
from click.testing import CliRunner

from edgevit.choices import ReportForm
from edgevit.commands.report import report_command
from edgevit.measure.report.page import COLUMNS, FORMS, write_report
from tests.conftest import ROOT
from tests.proofs import validation_of, write_validation
from tests.test_report import run_of


def test_each_form_that_can_be_asked_for_is_made() -> None:
    assert tuple(FORMS) == get_args(ReportForm)


def test_a_passed_run_and_a_failed_one(tmp_path: Path) -> None:
    run, folder = run_of(tmp_path)
    write_validation(folder)
    report = write_report(run, True, ["md", "junit"])
    text, suite = (run / "report.md").read_text(), ElementTree.parse(run / "report.xml").getroot()
    assert text.startswith("### edgevit: ") and text.splitlines()[0].endswith(": passed")
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len(table) == 2 + len(report["rows"])
    assert {line.replace("\\|", "").count("|") for line in table} == {len(COLUMNS) + 1}
    assert suite.attrib["tests"] == "1" and suite.attrib["failures"] == "0"
    assert not (run / "report.html").exists()

    write_validation(folder, passed=False)
    value = validation_of(folder) | {"passed": False, "failures": ["accuracy | <b>: lost\x00"]}
    (folder / "validation.json").write_text(json.dumps(value))
    done = CliRunner().invoke(report_command, [str(run), "--force", "--format", "md", "--format",
                                               "junit"])  # fmt: skip
    assert done.exit_code != 0 and "report.md" in done.output and "report.xml" in done.output
    text, suite = (run / "report.md").read_text(), ElementTree.parse(run / "report.xml").getroot()
    assert "**FAILED**" in text and r"- accuracy \| \<b\>: lost" in text
    (failure,) = suite.iter("failure")
    assert failure.attrib["message"] == "accuracy | <b>: lost?"
    assert suite.attrib["failures"] == "1"


def test_what_nobody_validated_is_skipped_and_not_passed(tmp_path: Path) -> None:
    run, folder = run_of(tmp_path)
    write_validation(folder)
    shutil.copytree(folder, run / "other")
    (run / "other/validation.json").unlink()
    write_report(run, True, ["md", "junit"])
    assert "not validated" in (run / "report.md").read_text().splitlines()[0]
    suite = ElementTree.parse(run / "report.xml").getroot()
    assert (suite.attrib["tests"], suite.attrib["skipped"]) == ("2", "1")
    (skipped,) = suite.findall("testcase[@name='other']/skipped")
    assert "not validated" in skipped.attrib["message"]


def test_the_action_reports_and_hands_on_the_gates_exit_code(tmp_path: Path) -> None:
    action = yaml.safe_load((ROOT / "action.yml").read_text())
    assert action["runs"]["using"] == "composite"
    used = str(action["runs"])
    assert all(f"inputs.{name}" in used for name in action["inputs"])
    (step,) = [s for s in action["runs"]["steps"] if s.get("id") == "validate"]
    # Inputs reach the shell as variables, never as text of the script.
    assert "${{" not in step["run"]
    calls = tmp_path / "calls"
    stand_in = tmp_path / "bin/edgevit"  # of edgevit: it notes how it is called
    stand_in.parent.mkdir()
    stand_in.write_text(
        f'#!/bin/sh\nprintf "%s\\n" "$*" >> {calls}\n'
        '[ "$1" = report ] && echo "### table" > "$2/report.md"\n[ "$1" != validate ] || exit 3\n'
    )
    stand_in.chmod(0o755)
    build = tmp_path / "a build"
    (build / "tflite").mkdir(parents=True)
    summary = tmp_path / "summary.md"
    done = subprocess.run(
        ["bash", "-e", "-c", step["run"]],
        env={
            "PATH": f"{stand_in.parent}:{os.environ['PATH']}", "BUILD": str(build),
            "TARGETS": "tflite", "DATA": "val; echo no", "OPTIONS": "--max-drop 0.5",
            "GITHUB_STEP_SUMMARY": str(summary),
        },
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 3, done.stderr
    first, second = calls.read_text().splitlines()
    assert first == f"validate {build}/tflite --data val; echo no --max-drop 0.5"
    assert second.startswith(f"report {build} --force --format")
    assert summary.read_text() == "### table\n"


@pytest.mark.parametrize("form", get_args(ReportForm))
def test_a_file_that_is_there_is_not_replaced(tmp_path: Path, form: str) -> None:
    run, folder = run_of(tmp_path)
    write_validation(folder)
    (run / FORMS[form][0]).write_text("mine")
    done = subprocess.run(
        [sys.executable, "-m", "edgevit", "report", str(run), "--format", form],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2 and "--force" in done.stderr
    assert (run / FORMS[form][0]).read_text() == "mine"
