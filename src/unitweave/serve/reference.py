"""The API's reference at /docs: one page made from its OpenAPI description, without scripts and other hosts."""

from collections.abc import Mapping
from html import escape
from typing import Any

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 52rem; margin: 2rem auto; padding: 0 1rem; color: #1f2937;
  background: #fff; }
h2 { margin-top: 2.5rem; border-bottom: 1px solid #d1d5db; } code { background: #f3f4f6; padding: .1em .3em; }
pre { background: #f3f4f6; padding: .75rem; overflow-x: auto; } table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .3rem .6rem .3rem 0; border-bottom: 1px solid #e5e7eb; }
.method { color: #0f766e; } div { overflow-x: auto; }
"""


def reference_page(description: Mapping[str, Any]) -> str:
    """The page for an OpenAPI description."""
    info, schemas = description["info"], description.get("components", {}).get("schemas", {})
    sections = "".join(
        _operation(path, method, operation, schemas)
        for path, methods in description["paths"].items()
        for method, operation in methods.items()
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">'
        f"<title>{escape(info['title'])} API</title><style>{_STYLE}</style></head><body>"
        f"<h1>{escape(info['title'])} {escape(info['version'])}: HTTP API</h1><p>{escape(info.get('description', ''))} "
        'For programs: <a href="openapi.json">openapi.json</a>.</p>'
        f"<p>Errors are JSON, <code>{{&quot;error&quot;: &quot;...&quot;}}</code>.</p>{sections}</body></html>"
    )


def _operation(path: str, method: str, operation: Mapping[str, Any], schemas: Mapping[str, Any]) -> str:
    fields = _properties(_form(operation), schemas)
    required = _resolve(_form(operation), schemas).get("required", ())
    rows = [(name + (" (required)" if name in required else ""), kind, text) for name, kind, text in fields]
    answer = operation["responses"].get("200", {}).get("content", {})
    returned = _properties(answer.get("application/json", {}).get("schema", {}), schemas)
    codes = [(code, about.get("description", "")) for code, about in operation["responses"].items()]
    text = "".join(f"<p>{escape(operation[key])}</p>" for key in ("summary", "description") if key in operation)
    return (
        f'<h2><span class="method">{method.upper()}</span> {escape(path)}</h2>{text}'
        f"<pre>{escape(_example(path, method))}</pre>"
        + (f"<h3>Form fields</h3>{_table(rows)}" if rows else "")
        + (f"<h3>Answer</h3>{_table(returned)}" if returned else f"<p>Answer: {escape(', '.join(answer))}</p>")
        + f"<h3>Status codes</h3>{_table(codes)}"
    )


def _example(path: str, method: str) -> str:
    upload = "-F audio=@in.wav " if method == "post" else ""
    output = " -o translation.wav" if path.endswith("stream") else ""
    return f"curl {upload}http://127.0.0.1:7860{path}{output}"


def _form(operation: Mapping[str, Any]) -> Mapping[str, Any]:
    content = operation.get("requestBody", {}).get("content", {})
    schemas: list[Mapping[str, Any]] = [kind.get("schema", {}) for kind in content.values()]
    return schemas[0] if schemas else {}


def _resolve(schema: Mapping[str, Any], schemas: Mapping[str, Any]) -> Mapping[str, Any]:
    if "$ref" in schema:
        found: Mapping[str, Any] = schemas[schema["$ref"].rsplit("/", 1)[-1]]
        return found
    return schema


def _properties(schema: Mapping[str, Any], schemas: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    properties = _resolve(schema, schemas).get("properties", {})
    return [(name, _kind(about), about.get("description", "")) for name, about in properties.items()]


def _kind(schema: Mapping[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(_kind(part) for part in schema["anyOf"])
    if schema.get("format") == "binary" or "contentMediaType" in schema:
        return "file"
    return str(schema.get("type", "object"))


def _table(rows: list[Any]) -> str:
    cells = ("".join(f"<td>{escape(str(cell))}</td>" for cell in row) for row in rows)
    return "<div><table>" + "".join(f"<tr>{row}</tr>" for row in cells) + "</table></div>"
