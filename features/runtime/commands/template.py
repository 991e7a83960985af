"""A commented configuration file, generated from the models so that comments and defaults never go stale."""

from __future__ import annotations

import textwrap
from typing import Any

import yaml
from pydantic import BaseModel

from features.runtime.section import Section

WIDTH = 100
"""Column at which comments wrap, and the longest line that holds both a value and its comment."""


def commented_yaml(section: Section) -> str:
    """The YAML of a validated section: every key with its value, and its description as a comment.

    A key whose value is None (its default is computed elsewhere) is commented out. Reading the text back gives an equal section.
    """
    return "\n".join(_lines(section, 0)) + "\n"


def _lines(section: BaseModel, indent: int) -> list[str]:
    pad = " " * indent
    plain = section.model_dump(mode="json")
    lines: list[str] = []
    fields = type(section).model_fields
    for name, field in sorted(fields.items(), key=lambda item: item[0] != "kind"):  # the kind comes first
        value = getattr(section, name)
        if isinstance(value, BaseModel) and type(value).model_fields:
            title = (type(value).__doc__ or "").strip().splitlines()
            lines += ["", *_comment(title[0], pad)] if indent == 0 and title else []
            lines += _with_comment(f"{pad}{name}:", field.description, pad)
            lines += _lines(value, indent + 2)
        elif value is None:
            lines += _with_comment(f"{pad}# {name}:", field.description, pad)
        else:
            lines += _with_comment(f"{pad}{name}: {_flow(plain[name])}", field.description, pad, plain[name])
    return lines


def _with_comment(line: str, description: str | None, pad: str, value: Any = None) -> list[str]:
    """The line with its comment after or above it; a long mapping gets one line per key."""
    name, lines = line.partition(":")[0], [line]
    if len(line) > WIDTH and isinstance(value, dict):
        lines = [f"{name}:", *(f"{pad}  {key}: {_flow(leaf)}" for key, leaf in value.items())]
    if not description:
        return lines
    if len(lines[0]) + len(description) + 4 <= WIDTH:
        return [f"{lines[0]}  # {description}", *lines[1:]]
    return [*_comment(description, pad), *lines]


def _comment(text: str, pad: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=f"{pad}# ", subsequent_indent=f"{pad}# ")


def _flow(value: Any) -> str:
    text: str = yaml.safe_dump(value, default_flow_style=True, width=10_000, sort_keys=False, allow_unicode=True)
    return text.strip().removesuffix("\n...").strip()
