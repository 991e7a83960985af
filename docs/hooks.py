"""What `make docs` adds to the Markdown of this folder: generated pages, the tutorials, and files from outside docs/.

- `<!-- generated: configuration -->` and `<!-- generated: commands -->` are replaced by tables generated from pydantic and typer.
- Notebooks become pages.
- The examples, CONTRIBUTING.md and CHANGELOG.md are part of the site. Links between files of the repository are written as they
  are on disk, so that they work there too, and are translated here.
"""

from __future__ import annotations

import json
import posixpath
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

OUTSIDE = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE", "examples/**/*", "tests/end_to_end/*.yaml")
"""Files from outside docs/ that belong to the site, as patterns relative to the repository's root."""

LINK = re.compile(r"\]\((?!\w+:|#)([^)#\s]*)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the notebooks as pages, and the files from outside docs/."""
    from mkdocs.structure.files import File

    for path in sorted(ROOT.glob("docs/**/*.ipynb")):
        address = path.relative_to(ROOT / "docs").with_suffix(".md").as_posix()
        files.append(File.generated(config, address, content="\n".join(_notebook(path))))
    for path in sorted(path for pattern in OUTSIDE for path in ROOT.glob(pattern) if path.is_file()):
        files.append(File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Fills in generated parts, and translates links to files into links to pages."""
    address = page.file.src_uri
    folder = posixpath.dirname(address if (ROOT / address).exists() else f"docs/{address}")
    for name, generate in GENERATED.items():
        marker = f"<!-- generated: {name} -->"
        if marker in markdown:
            markdown = markdown.replace(marker, "\n".join(generate()))

    def translated(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(folder, link[1])).removeprefix("docs/")
        if target.endswith(".ipynb"):
            target = target.removesuffix("ipynb") + "md"
        return f"]({posixpath.relpath(target, posixpath.dirname(address))}{link[2] or ''})"

    return LINK.sub(translated, markdown)


def _notebook(path: Path) -> Iterator[str]:
    """The cells of a notebook as Markdown."""
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "code":
            magic, _, rest = source.partition("\n") if source.startswith("%%") else ("", "", source)
            language = "sh" if magic.startswith("%%sh") else "yaml" if magic.endswith(".yaml") else "python"
            written = magic.removeprefix("%%writefile ")
            yield f'```{language} title="{written}"' if magic.startswith("%%writefile") else f"```{language}"
            yield f"{rest}\n```\n"
        else:
            yield f"{source}\n"


def _commands() -> Iterator[str]:
    """Every command with its arguments and options."""
    from typer.main import get_command

    from headhunt.cli import app

    yield from _command(get_command(app), ("headhunt",))


def _command(command: Any, path: tuple[str, ...]) -> Iterator[str]:
    if hasattr(command, "commands"):
        for name, inner in command.commands.items():
            yield from _command(inner, (*path, name))
        return
    yield f"## {' '.join(path)}\n\n{command.help or ''}\n"
    yield "| argument or option | default | |\n|---|---|---|"
    for parameter in command.params:
        is_option = str(parameter.opts[0]).startswith("-")
        names = parameter.opts if is_option else [parameter.metavar or str(parameter.name).upper()]
        shown = (
            f"{', '.join(f'`{name}`' for name in names)} {' | '.join(_choices(parameter.type_descriptor.annotation))}"
        )
        default = "" if parameter.default in (None, False, "", [], ()) else f"`{parameter.default}`"
        yield f"| {_cell(shown)} | {'required' if parameter.required else default} | {_cell(parameter.help or '')} |"
    yield ""


def _choices(annotation: Any) -> list[str]:
    """The choices of an option whose type contains a Literal, else an empty list."""
    if get_origin(annotation) is Literal:
        return [str(choice) for choice in get_args(annotation)]
    return [choice for inner in get_args(annotation) for choice in _choices(inner)]


def _configuration() -> Iterator[str]:
    """A table for each section of `headhunt.yaml`, and for each kind of a section."""
    from reports.config import Run

    schema = Run.model_json_schema()
    models = {"Run": schema, **schema["$defs"]}
    for name, keys in _places("Run", models).items():
        model = models[name]
        if "properties" not in model:
            continue
        kind = model["properties"].get("kind", {}).get("const")
        yield f"## {name}\n\n{model.get('description', '')}\n"
        yield from (
            [f"At {', '.join(f'`{key}`' for key in keys)}{f', with `kind: {kind}`' if kind else ''}.\n"] if keys else []
        )
        yield "| key | value | default | |\n|---|---|---|---|"
        for key, field in model["properties"].items():
            if key != "kind" or not kind:
                default = "required" if key in model.get("required", ()) else _default(field)
                yield f"| `{key}` | {_cell(_type(field))} | {_cell(default)} | {_cell(field.get('description', ''))} |"
        yield ""


def _places(
    name: str, models: dict[str, Any], key: str = "", found: dict[str, list[str]] | None = None
) -> dict[str, list[str]]:
    """The models reachable from a model, itself first, each with the key paths at which it occurs."""
    found = {} if found is None else found
    keys = found.setdefault(name, [])
    if key and key not in keys:
        keys.append(key)
    for inner, field in models[name].get("properties", {}).items():
        for reached in dict.fromkeys(re.findall(r'"#/\$defs/(\w+)"', json.dumps(field))):
            _places(reached, models, f"{key}.{inner}".lstrip("."), found)
    return found


def _type(field: dict[str, Any]) -> str:
    """The type of a key as text, with links to sections."""
    if "$ref" in field:
        name = field["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "const" in field:
        return f"`{field['const']}`"
    if "enum" in field:
        return " | ".join(f"`{value}`" for value in field["enum"])
    for union in ("anyOf", "oneOf", "allOf"):
        if union in field:
            return " | ".join(dict.fromkeys(_type(each) for each in field[union]))
    kind = str(field.get("type", "any"))
    if kind == "array":
        inner = field.get("items") or {"anyOf": field["prefixItems"]}
        return f"list of {_type(inner)}"
    if kind == "object" and isinstance(field.get("additionalProperties"), dict):
        return f"mapping of {_type(field['additionalProperties'])}"
    words = {"exclusiveMinimum": ">", "minimum": "≥", "exclusiveMaximum": "<", "maximum": "≤"}
    bounds = ", ".join(f"{sign} {field[name]:g}" for name, sign in words.items() if name in field)
    named = {"object": "mapping", "null": "`null`"}.get(kind, kind)
    return f"{named} {bounds}".strip()


def _default(field: dict[str, Any]) -> str:
    if "default" not in field:
        return ""
    value = field["default"]
    if isinstance(value, dict):
        return "its defaults" if value else "`{}`"
    return f"`{json.dumps(value, ensure_ascii=False)}`" if not isinstance(value, str) else f"`{value}`"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


GENERATED = {"commands": _commands, "configuration": _configuration}
"""The generator for each marker in a page, by name."""
