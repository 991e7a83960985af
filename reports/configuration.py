"""The configuration behind the page, as a reusable headhunt.yaml."""

from __future__ import annotations

from features.runtime.commands.template import commented_yaml
from features.runtime.log import without_password
from reports.config import Run
from reports.section import Listing, PageSection


def section(run: Run) -> PageSection:
    """The complete configuration, collapsed; a password in it is shown as ***."""
    text = "Every key with its value when this page was built. Saved as headhunt.yaml, it reproduces the run on the same photos."
    whole = commented_yaml(run)
    shown = "\n".join(without_password(line) for line in whole.split("\n"))
    if shown != whole:
        text += " A password in it is shown as ***."
    return PageSection("configuration", "Configuration", text, listings=[Listing("headhunt.yaml", shown)])
