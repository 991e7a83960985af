"""The generated part of the reference, which `make docs` inserts into its pages."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

pytestmark = pytest.mark.unit

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("hooks", DOCS / "hooks.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_commands_with_their_options(hooks: ModuleType) -> None:
    text = "\n".join(hooks.GENERATED["commands"]())
    page = (DOCS / "reference" / "commands.md").read_text()
    found = re.findall(r"^## headhunt (.*)", text, re.MULTILINE)
    assert {"init", "features cache", "search confirm", "train predict", "reports fidelity", "serve"} <= set(found)
    for command in found:
        assert all(f"`{part}`" in page or f"`headhunt {part}" in page for part in command.split()), command
    predict = text[text.index("## headhunt train predict") :].partition("\n## ")[0]
    assert "| `PATH...` | required | Photos of any size and format, and folders of them. |" in predict
    assert re.search(r"^\| `--config`, `-c` +\| `headhunt.yaml` \| The configuration file. \|$", predict, re.MULTILINE)
    assert "| `--materialize` link \\| copy | " in text


def test_every_key_of_the_configuration(hooks: ModuleType) -> None:
    text = "\n".join(hooks.GENERATED["configuration"]())
    assert text.startswith("## Run\n")
    assert "| `sampler` | `tpe` \\| `gp` \\| " in text
    assert re.search(r"^\| `unfreeze_conv_layers` \| integer ≥ 0 \| `5` \| ", text, re.MULTILINE)
    assert "| `dataset` | [StanfordCars](#stanfordcars) \\| " in text
    assert "At `train.baselines.simple_cnn`.\n" in text
    (schedule,) = [line for line in text.splitlines() if line.endswith("with `kind: warmup_cosine`.")]
    assert schedule.startswith("At `train.finetune.schedule`, `train.finetune.phases.schedule`, ")
    headings = re.findall(r"^## (\w+)", text, re.MULTILINE)
    assert set(re.findall(r"\]\(#(\w+)\)", text)) <= {heading.lower() for heading in headings}
