"""The documentation against the project: links, commands and options, the site's list of pages."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml

from edgevit.cli import cli
from tests.conftest import ROOT
from tools import reference

PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
CONTEXT = click.Context(cli, info_name="edgevit")


def blocks(text: str) -> str:
    """The fenced and the indented lines."""
    fenced = re.findall(r"^```.*?\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    indented = re.findall(r"^(?: {4}| {3}).*$", re.sub(r"```.*?```", "", text, flags=re.DOTALL),
                          re.MULTILINE)  # fmt: skip
    return "\n".join([*fenced, *indented])


def command_lines(text: str) -> Iterator[list[str]]:
    """The words behind `edgevit` of every command line in the blocks."""
    joined = re.sub(r"\\\n\s*", " ", blocks(text))
    for line in joined.splitlines():
        found = re.match(r"\s*(?:\$ )?(?:mkdir \S+ \S+ \S+ && )?edgevit ([a-z]+ .*)", line)
        if found and "─" not in line:
            yield shlex.split(re.split(r"\s+#|…", found[1])[0])


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as mkdocs and GitHub make them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", h.lower()).strip().replace(" ", "-") for h in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    for _, link in re.findall(r"\[([^\]]+)\]\(([^)\s]+)\)", text):
        if link.startswith("http"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path) if path else page
        assert target.exists(), f"{page.name}: {link}"
        if page.name != "README.md" or target.suffix == ".md":
            assert page.name == "README.md" or target.parent == ROOT / "docs", f"{link} is no page"
        if anchor:
            assert anchor in anchors(target), f"{page.name}: {link}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_have_these_options(page: Path) -> None:
    for words in command_lines(page.read_text()):
        command = cli.get_command(CONTEXT, words[0])
        assert command is not None, f"{page.name}: edgevit {words[0]}"
        known = {o for p in command.params for o in (*p.opts, *p.secondary_opts)} | {"--help"}
        for word in words[1:]:
            if re.match(r"--?[a-zA-Z]", word):
                assert word.split("=")[0] in known, f"{page.name}: {' '.join(words)}"


def test_the_check_of_commands_finds_them() -> None:
    found = {words[0] for page in PAGES for words in command_lines(page.read_text())}
    assert {"quantize", "compile", "validate", "parity", "package", "report", "train"} <= found
    assert list(command_lines("```\n$ edgevit lint a \\\n   --strict # why\n```")) == [
        ["lint", "a", "--strict"]
    ]


def test_the_site_lists_every_page() -> None:
    text = (ROOT / "mkdocs.yml").read_text()
    listed = re.findall(r"\b([\w-]+\.md)$", text, re.MULTILINE)
    assert yaml.safe_load(text)["validation"]
    assert sorted(listed) == sorted(page.name for page in (ROOT / "docs").glob("*.md"))


def test_the_readme_leads_to_every_subject() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 150
    missing = [
        page.name for page in (ROOT / "docs").glob("*.md")
        if f"docs/{page.name}" not in text
        and page.name not in ("index.md", "commands.md", "python.md", "changelog.md")
    ]  # fmt: skip
    assert not missing


def test_the_reference_has_every_command_and_name() -> None:
    made = reference.on_page_markdown((ROOT / "docs/commands.md").read_text())
    for name in cli.list_commands(CONTEXT):
        assert f"## edgevit {name}" in made and f"Usage: edgevit {name}" in made
    assert "--min-agreement" in made and "<!--" not in made
    made = reference.on_page_markdown((ROOT / "docs/python.md").read_text())
    assert "edgevit.quantize(\n" in made and "percentage points" in made
    assert "    parity(" in made and "Raises InputError" in made
