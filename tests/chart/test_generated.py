"""What is copied from crds/ is current, and whole."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from crds import generate
from tests.chart.commands import Program
from tests.chart.conftest import ROOT, render


@pytest.mark.parametrize("path", generate.generated(), ids=lambda path: path.name)
def test_a_generated_file_is_current(path: Path) -> None:
    expected = generate.generated()[path]

    assert path.read_text() == expected, f"{path.relative_to(ROOT)} is stale: run `{generate.COMMAND}`"


def test_the_chart_installs_exactly_the_resources_of_the_repository(helm: Program) -> None:
    sources = [yaml.safe_load(path.read_text()) for path in generate.SOURCES]

    rendered = [
        o for o in render(helm, "--set", "crds.keep=false") if o["kind"] == "CustomResourceDefinition"
    ]

    by_name = {each["metadata"]["name"]: each for each in rendered}
    assert by_name == {each["metadata"]["name"]: each for each in sources}
    assert len(by_name) == 2


def test_a_resource_that_helm_would_take_for_a_template_is_refused() -> None:
    with pytest.raises(ValueError, match="Helm would take for an action"):
        generate.template("x.yaml", "apiVersion: v1\nmetadata:\n  name: '{{ x }}'\n")


def test_the_reference_names_every_field_of_a_policy() -> None:
    text = generate.REFERENCE.read_text()

    for field in ("topic", "trigger.skew.ratio", "dimensions[].from.jsonPath", "overrides[].pin.shards"):
        assert f"| `{field}` |" in text


def test_every_field_that_people_write_has_a_description() -> None:
    def lacking(schema: generate.Schema, path: str) -> list[str]:
        found = [path] if path and "description" not in schema else []
        for name, child in schema.get("properties", {}).items():
            found += lacking(child, f"{path}.{name}")
        return found + (lacking(schema["items"], "") if "items" in schema else [])

    for source in generate.SOURCES:
        (version,) = yaml.safe_load(source.read_text())["spec"]["versions"]
        schema = version["schema"]["openAPIV3Schema"]
        assert lacking(schema["properties"]["spec"], f"{source.name}: spec") == []
