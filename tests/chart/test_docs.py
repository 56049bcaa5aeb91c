"""What the documents tell people to type or to read is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from devstack import crds
from tests.chart.commands import Program, manifests, only, stream
from tests.chart.conftest import CHART, ROOT

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """The anchors that a page's headings make."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text())

    broken = []
    for link in links:
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if "://" not in link and not (target.exists() and (not anchor or anchor in anchors(target))):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_make_target_that_a_page_names_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))

    typed = re.findall(r"(?:^|`)make ([a-z-]+)", page.read_text(), re.MULTILINE)
    assert set(typed) - targets == set()


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs/README.md").read_text()
    decisions = (ROOT / "docs/adr/README.md").read_text()

    pages = {page.name for page in (ROOT / "docs").glob("*.md")} - {"README.md"}
    adrs = {page.name for page in (ROOT / "docs/adr").glob("*.md")} - {"README.md"}
    assert {name for name in pages if f"]({name})" not in index} == set()
    assert {name for name in adrs if f"]({name})" not in decisions} == set()


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_python_in_a_page_is_python(page: Path) -> None:
    for block in blocks(page, "python"):
        compile(block, named(page), "exec")


def test_every_policy_in_the_documents_is_admitted(kubectl: Program) -> None:
    crds.install(kubectl, ROOT / "crds")
    found = [each for page in PAGES for block in blocks(page, "yaml") for each in manifests(block)]
    policies = [each for each in found if each.get("kind") == "HotKeyPolicy"]

    kubectl("create", "--dry-run=server", "-n", "default", "-f", "-", stdin=stream(policies))

    assert policies


def test_the_helm_command_of_the_readme_renders(helm: Program) -> None:
    (command,) = re.findall(r"^helm install(.*?)\n(?:```|$)", (ROOT / "README.md").read_text(), re.M | re.S)
    values = re.findall(r"--set (\S+)", command)

    rendered = helm("template", "hotkey", str(CHART), *(x for v in values for x in ("--set", v)))

    (container,) = only(manifests(rendered), "Deployment")["spec"]["template"]["spec"]["containers"]
    assert container["image"].startswith("YOUR-REGISTRY/hotkey-operator:")
