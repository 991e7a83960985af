"""The console script `headhunt`, and `python -m headhunt`."""

from __future__ import annotations

import signal

signal.signal(
    signal.SIGINT, signal.SIG_DFL
)  # Ctrl-C during the imports below ends quietly; main() takes over after them

from headhunt.cli import main

if __name__ == "__main__":
    main()
