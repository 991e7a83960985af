"""Optuna's dashboard on a run's study, with the pictures of its trials."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import cache, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.driver.storage import cached_storage
from search.review.notes import artifact_store

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
"""A WSGI application: takes an environment and `start_response`, returns the body."""

STYLE = b"""<style>
.MuiBox-root > .MuiBox-root > p.MuiTypography-body1 { white-space: normal; overflow-wrap: anywhere }
</style></head>"""
"""Wraps long attributes: unwrapped, as the dashboard shows them, a trial's page is three screens wide."""


def dashboard(storage: str, workdir: Path) -> Application:
    """The dashboard of a run as a WSGI application."""
    return application(cached_storage(storage, workdir), artifact_store(workdir))


def application(storage: BaseStorage, pictures: Any) -> Application:
    """The dashboard on an Optuna storage and artifact store, with STYLE."""
    from optuna_dashboard import wsgi

    _give_trials_their_own_attributes()
    return _styled(wsgi(storage, pictures))


class _Attributes(dict[str, Any]):
    """The system attributes of a study, in which the dashboard keeps notes and artifacts, also indexed by trial."""

    def __init__(self, given: dict[str, Any]) -> None:
        super().__init__(given)
        self.of_trial: defaultdict[int, dict[str, Any]] = defaultdict(dict)
        for name, value in given.items():
            for part in name.split(":", 3)[1:3]:  # dashboard:1:note_ver, dashboard:artifacts:1:…
                if part.isdecimal():
                    self.of_trial[int(part)][name] = value


@cache
def _give_trials_their_own_attributes() -> None:
    """Makes the dashboard's time linear in the number of trials: by default it looks up every trial's note and artifacts in the
    attributes of the study, which hold those of all trials; ten thousand trials would take minutes."""
    from optuna_dashboard import _app, _serializer

    serialize_study, serialize_trial = _app.serialize_study_detail, _serializer.serialize_frozen_trial

    @wraps(serialize_study)
    def study_with_attributes(study: Any, *rest: Any, **named: Any) -> Any:
        study.system_attrs = _Attributes(study.system_attrs)
        return serialize_study(study, *rest, **named)

    @wraps(serialize_trial)
    def trial_with_its_own(study_id: int, trial: Any, attributes: dict[str, Any]) -> Any:
        own = attributes.of_trial.get(trial._trial_id, {}) if isinstance(attributes, _Attributes) else attributes
        return serialize_trial(study_id, trial, own)

    _app.serialize_study_detail, _serializer.serialize_frozen_trial = study_with_attributes, trial_with_its_own


def _styled(answering: Application) -> Application:
    """The application with STYLE in its HTML pages."""

    def answer(environment: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        begun: list[Any] = []
        body = answering(environment, lambda *begin: begun.extend(begin))
        status, headers, *rest = begun
        named = {name.lower(): value for name, value in headers}
        if not named.get("content-type", "").startswith("text/html") or environment["REQUEST_METHOD"] == "HEAD":
            start_response(status, headers, *rest)
            return body
        page = b"".join(body).replace(b"</head>", STYLE, 1)
        kept = [(name, value) for name, value in headers if name.lower() not in ("content-length", "etag")]
        start_response(status, [*kept, ("Content-Length", str(len(page)))], *rest)
        return [page]

    return answer
