"""headhunt: the four stages' command-line apps as one command."""

from __future__ import annotations


def main() -> None:
    """Entry point of the console script."""
