"""A report as Markdown, for a pull request, and as JUnit XML, for a continuous integration."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from xml.etree import ElementTree

Columns = Sequence[tuple[str, Callable[[Mapping[str, Any]], str]]]
VERDICTS = {True: "passed", False: "**FAILED**", None: "not validated"}
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def markdown(report: Mapping[str, Any], title: str, columns: Columns) -> str:
    """The verdict, what failed or is missing, the table, and a line of parity an artifact."""
    lines = [f"### edgevit: {_plain(title)}: {VERDICTS[report['passed']]}", ""]
    lines += [f"- {_plain(line)}" for line in failures(report)]
    lines += [f"- {_plain(name)}: {_plain(why)}" for name, why in report["not_validated"].items()]
    lines += ["", "|".join(["", *(f" {heading} " for heading, _ in columns), ""])]
    right = ["---" if i in (0, len(columns) - 1) else "---:" for i in range(len(columns))]
    lines.append("|".join(["", *right, ""]))
    for row in report["rows"]:
        cells = [f" {_plain(text(row))} " for _, text in columns]
        lines.append("|".join(["", *cells, ""]))
    lines.append("")
    for name, part in report["artifacts"].items():
        if parity := part["parity"]:
            first = parity["first_departure"]
            where = f"departs first at `{_plain(first)}`" if first else "every tensor is equal"
            lines.append(
                f"- {_plain(name)}: {parity['agreement_percent']:.2f} % of {parity['images']} as "
                f"the program has it ({_plain(parity['engine'])}); {where}"
            )
    return "\n".join(lines).rstrip("\n") + "\n"


def junit(report: Mapping[str, Any], title: str, columns: Columns) -> str:
    """A test case an artifact: its gates failed, held, or were never asked (skipped)."""
    suite = ElementTree.Element("testsuite", name=_xml(f"edgevit {title}"))
    rows = {row["name"]: row for row in report["rows"]}
    counts = {"tests": 0, "failures": 0, "skipped": 0}
    for name, part in report["artifacts"].items():
        case = ElementTree.SubElement(suite, "testcase", classname="edgevit", name=_xml(name))
        counts["tests"] += 1
        wrong = (part["validation"] or {}).get("failures", [])
        row = next((r for n, r in rows.items() if n.startswith(f"artifact {name}")), {})
        if row.get("passed") is False:
            counts["failures"] += 1
            ElementTree.SubElement(case, "failure", message=_xml("; ".join(wrong) or "failed"))
        elif row.get("passed") is None:
            counts["skipped"] += 1
            why = report["not_validated"].get(name) or row.get("problem") or "no gate"
            ElementTree.SubElement(case, "skipped", message=_xml(why))
        figures = "\n".join(f"{heading}: {text(row)}" for heading, text in columns if row)
        ElementTree.SubElement(case, "system-out").text = _xml(figures)
    suite.attrib |= {key: str(value) for key, value in counts.items()}
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def failures(report: Mapping[str, Any]) -> list[str]:
    """What did not hold, of all artifacts, in words."""
    return [
        line
        for part in report["artifacts"].values()
        for line in (part["validation"] or {}).get("failures", [])
    ]


def _plain(text: str) -> str:
    """Text that is no Markdown and stays in one cell."""
    return re.sub(r"([\\`*_<>|\[\]#])", r"\\\1", " ".join(text.split()))


def _xml(text: str) -> str:
    return _NOT_XML.sub("?", text)
