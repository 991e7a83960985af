"""The configuration that the page is of, as a headhunt.yaml that can be used again."""

from __future__ import annotations

from features.runtime.commands.template import commented_yaml
from features.runtime.log import without_password
from reports.config import Run
from reports.section import Listing, PageSection


def section(run: Run) -> PageSection:
    """The whole configuration, folded up; a password in it is shown as ***."""
    text = (
        "Every key with its value, as this page was built. Saved as headhunt.yaml it makes the same run again, from the same "
        "photos."
    )
    whole = commented_yaml(run)
    shown = "\n".join(without_password(line) for line in whole.split("\n"))
    if shown != whole:
        text += " A password in it is shown as ***."
    return PageSection("configuration", "Configuration", text, listings=[Listing("headhunt.yaml", shown)])
