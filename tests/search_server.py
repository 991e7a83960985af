"""A process that runs `headhunt search …` commands one after the other, so that Keras and JAX are imported once for many tests.

Reads lines of JSON, {cwd, arguments}, and writes {status, stdout, stderr}. `tests.conftest.run_headhunt` uses it."""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import traceback
from functools import lru_cache
from pathlib import Path

ROOT = Path(__file__).parents[1]


def search_command(folder: Path, arguments: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    """The result of `headhunt ARGUMENTS` in a folder."""
    server = _server()
    assert server.stdin is not None and server.stdout is not None
    try:
        server.stdin.write(json.dumps({"cwd": str(folder.resolve()), "arguments": arguments}) + "\n")
        server.stdin.flush()
        answer = json.loads(server.stdout.readline())
    except BaseException:  # also a test that timed out: the answer to its command must not become that of the next one
        _server.cache_clear()
        server.kill()
        server.communicate()
        raise
    return subprocess.CompletedProcess(arguments, answer["status"], answer["stdout"], answer["stderr"])


@lru_cache(maxsize=1)
def _server() -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"}
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.search_server"],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    atexit.register(server.kill)
    return server


def _serve() -> None:
    from typer.testing import CliRunner

    from headhunt import cli

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # output printed outside Python must not end up between the answers
    for line in sys.stdin:
        asked = json.loads(line)
        os.chdir(asked["cwd"])
        done = CliRunner().invoke(cli.app, asked["arguments"])
        said = done.stderr
        if done.exception and not isinstance(done.exception, SystemExit):
            said += "".join(traceback.format_exception(done.exception))
        _forget(Path(asked["cwd"]))
        answers.write(json.dumps({"status": done.exit_code, "stdout": done.stdout, "stderr": said}) + "\n")
        answers.flush()


def _forget(folder: Path) -> None:
    """Unloads what a command imported from its own folder, as a user's hypermodels are: the next may have others of that name."""
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file and Path(file).is_relative_to(folder):
            del sys.modules[name]
    sys.path[:] = [entry for entry in sys.path if not (entry and Path(entry).is_relative_to(folder))]


if __name__ == "__main__":
    _serve()
