"""The Python in the documents imports what is there."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = {"features", "search", "train", "reports", "headhunt"}
BLOCKS = [
    pytest.param(block, id=f"{page.relative_to(ROOT)}-{number}")
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
    for number, block in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL))
]


@pytest.mark.parametrize("block", BLOCKS)
def test_what_a_block_imports_of_ours_is_there(block: str) -> None:
    for node in ast.walk(ast.parse(block)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in PACKAGES:
            module = importlib.import_module(node.module or "")
            assert [name.name for name in node.names if not hasattr(module, name.name)] == []


def test_a_cache_is_opened_by_its_short_name() -> None:
    from features.cache import FeatureCache, Views

    assert (FeatureCache.__module__, Views.__module__) == ("features.cache.feature_cache", "features.cache.views")
    with pytest.raises(ImportError, match="cannot import name 'Feature'"):
        from features.cache import Feature  # type: ignore[attr-defined]  # noqa: F401
