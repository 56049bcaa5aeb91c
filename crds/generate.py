"""Makes what is copied from the two custom resources: the chart's templates and docs/policy-reference.md.

The schemas are written once, in this folder; `make generate` copies them and tests/chart checks that the
copies are current. Knows the form of a CustomResourceDefinition and nothing of what hotkey does.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
SOURCES = tuple(sorted((ROOT / "crds").glob("*.yaml")))
TEMPLATES = ROOT / "charts/hotkey-operator/templates/crds"
REFERENCE = ROOT / "docs/policy-reference.md"
COMMAND = "make generate"

Schema = Mapping[str, Any]

_OPEN = """\
{{/* Made from crds/%s by `make generate`; change it there. */}}
{{- if .Values.crds.enabled }}
"""
_KEEP = """\
  {{- if .Values.crds.keep }}
  annotations:
    helm.sh/resource-policy: keep
  {{- end }}
"""


def generated() -> dict[Path, str]:
    """Every generated file and what must stand in it."""
    files = {TEMPLATES / source.name: template(source.name, source.read_text()) for source in SOURCES}
    files[REFERENCE] = reference([yaml.safe_load(source.read_text()) for source in SOURCES])
    return files


def template(name: str, text: str) -> str:
    """The Helm template of one resource; `text` must hold no template action of its own."""
    if "{{" in text:
        raise ValueError(f"crds/{name} contains '{{{{', which Helm would take for an action")
    body = text[text.index("apiVersion:") :]
    head, mark, rest = body.partition("metadata:\n")
    return f"{_OPEN % name}{head}{mark}{_KEEP}{rest}{{{{- end }}}}\n"


@dataclass(frozen=True, slots=True)
class Field:
    """One line of the reference."""

    path: str
    type: str
    default: str
    description: str


def reference(resources: list[dict[str, Any]]) -> str:
    """The page with a table of fields for each resource's spec and status."""
    parts = [
        f"<!-- Made from crds/ by `{COMMAND}`; change the descriptions there. -->\n"
        "# Reference of the custom resources\n\n"
        "`kubectl explain hotkeypolicy.spec --recursive` prints the same. A field is optional unless it is "
        "marked as required.\n",
        *(part for resource in resources for part in _sections(resource)),
    ]
    return "\n".join(parts)


def _sections(resource: dict[str, Any]) -> Iterator[str]:
    names = resource["spec"]["names"]
    (version,) = resource["spec"]["versions"]
    schema = version["schema"]["openAPIV3Schema"]
    yield (
        f"## {names['kind']}\n\n`{resource['spec']['group']}/{version['name']}`, short name "
        f"`{names['shortNames'][0]}`. {schema['description']}\n"
    )
    for part in ("spec", "status"):
        yield f"### {names['kind']} {part}\n\n{schema['properties'][part]['description']}\n"
        yield _table(list(_fields(schema["properties"][part], "")))
        rules = list(_rules(schema["properties"][part], part))
        if rules:
            yield "The API server refuses, with these messages:\n"
            yield "\n".join(rules) + "\n"


def _table(fields: list[Field]) -> str:
    rows = [f"| `{f.path}` | {f.type} | {f.default} | {f.description} |" for f in fields]
    return "\n".join(["| field | type | default | meaning |", "|---|---|---|---|", *rows, ""])


def _fields(schema: Schema, prefix: str) -> Iterator[Field]:
    required = set(schema.get("required", ()))
    for name, child in schema.get("properties", {}).items():
        path = prefix + name
        default = "required" if name in required else _default(child)
        yield Field(path, _type(child), default, _escaped(child["description"]))
        yield from _fields(child, f"{path}.")
        if "items" in child:
            yield from _fields(child["items"], f"{path}[].")


def _default(schema: Schema) -> str:
    default = schema.get("default")
    return "" if default is None or default == {} else f"`{json.dumps(default)}`"


def _type(schema: Schema) -> str:
    if "enum" in schema:
        return " \\| ".join(f"`{value}`" for value in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_type(schema['items'])}"
    bounds = [f"{word} {schema[key]}" for key, word in (("minimum", "≥"), ("maximum", "≤")) if key in schema]
    return ", ".join([schema.get("type", "any"), *bounds])


def _rules(schema: Schema, path: str) -> Iterator[str]:
    for rule in schema.get("x-kubernetes-validations", ()):
        yield f"- `{path}`: {rule['message']}"
    for name, child in schema.get("properties", {}).items():
        yield from _rules(child, f"{path}.{name}")
    if "items" in schema:
        yield from _rules(schema["items"], f"{path}[]")


def _escaped(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def main() -> None:
    for path, text in generated().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        print(f"wrote {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
