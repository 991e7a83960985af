"""What a person reads of a trial in Optuna's dashboard: attributes in words, a picture of its curves, and a note that shows both.

Everything is written before the trial's outcome is, and again, under the same names, where a driver was killed in between: a
trial has one picture and one note, and a trial that has its outcome has them.
"""

from __future__ import annotations

import io
import json
import uuid
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from features.runtime.atomic import make_folder
from search.candidate import Candidate
from search.first_trials import TITLES
from search.metric import Metric
from search.optuna_internals import storage_of, study_id, trial_id
from search.review.curves_image import collect, draw
from search.review.describe import describe, show

if TYPE_CHECKING:
    import optuna
    from optuna.artifacts import FileSystemArtifactStore

PICTURE = "curves.png"
"""The artifact's name in the dashboard."""

NOTE_PART = 2045
"""Characters of a note that the dashboard keeps in one attribute."""


def artifact_store(workdir: Path) -> FileSystemArtifactStore:
    """The pictures of a run's trials: files in `artifacts/`, which the dashboard serves."""
    from optuna.artifacts import FileSystemArtifactStore

    return FileSystemArtifactStore(make_folder(workdir / "artifacts"))


def artifact_id(study: str, number: int) -> str:
    """The name of a trial's picture in the store: always the same, so that drawing it again replaces it."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"headhunt/{study}/{number}"))


def draw_pictures(workdir: Path, study: str, objective: Metric, ended: Sequence[Candidate]) -> None:
    """Puts the pictures of these trials into the store; a trial that has no epoch has none."""
    store = artifact_store(workdir)
    for one in ended:
        if curves := one.trained.curves:
            picture = draw(collect(curves, one.trained.best_epoch, one.config.epochs, objective))
            store.write(artifact_id(study, one.number), io.BytesIO(picture))


def write_reviews(study: optuna.Study, objective: Metric, ended: Sequence[Candidate]) -> None:
    """Gives trials that are not told yet their attributes, the link to their picture, and their note.

    A note that somebody wrote in the dashboard meanwhile stays.
    """
    noted = storage_of(study).get_study_system_attrs(study_id(study))  # once for all: it grows with the study
    for one in ended:
        for name, value in _attributes(one).items():
            one.trial.set_user_attr(name, value)
        picture = _link_picture(study, one.trial) if one.trained.curves else None
        if _version_key(trial_id(one.trial)) not in noted:
            _write_note(study, trial_id(one.trial), note(one, objective, picture))


def note(ended: Candidate, objective: Metric, picture: str | None) -> str:
    """What came of a trial, its curves and its configuration, in Markdown; `picture` is the address of the curves."""
    title = [f"First trial: **{TITLES[ended.first]}**.", ""] if ended.first else []
    lines = [*title, _verdict(ended, objective), "", *(f"Note: {doubt}" for doubt in ended.trained.doubts)]
    lines += [""] * bool(ended.trained.doubts)
    if picture:
        lines += [f"![Curves of trial {ended.trial.number}]({picture})", ""]
    lines += ["| part | configuration |", "|---|---|"]
    seed = {} if ended.config.is_probe else {"seed": str(ended.config.seed)}
    rows = {**describe(ended.config), **seed}
    lines += [f"| {name.replace('_', ' ')} | {_cell(value)} |" for name, value in rows.items()]
    return "\n".join(lines) + "\n"


def _attributes(ended: Candidate) -> dict[str, Any]:
    """What the trial's parameters and `config` do not say at a glance; each takes a millisecond to write."""
    words = {name: text for name, text in describe(ended.config).items() if name not in ("batch_size", "views")}
    return {**words, "epochs": len(ended.trained.curves), "seconds": round(ended.seconds, 3)}


def _verdict(ended: Candidate, objective: Metric) -> str:
    """One line: how it ended, and its best epoch."""
    assert ended.outcome is not None
    result, trained = ended.trained, len(ended.trained.curves)
    states = {
        "COMPLETE": f"Solved{'' if result.doubts else ' to convergence'}"
        if ended.config.is_probe
        else f"Trained for {trained} of {ended.config.epochs} epochs",
        "PRUNED": f"Pruned after {trained} of {ended.config.epochs} epochs",
        "FAIL": f"**Failed** after {trained} of {ended.config.epochs} epochs: {result.failure}",
    }
    said = f"{states[ended.outcome.state]}; {show(ended.seconds)} s."
    if not result.best_epoch:
        return said
    best = result.curves[result.best_epoch - 1]
    top5 = "" if objective == "val_top5_accuracy" else f", top-5 accuracy {best.val_top5_accuracy:.4f}"
    epoch = "" if ended.config.is_probe else f" at epoch {result.best_epoch}"
    return f"**{objective} {getattr(best, objective):.4f}**{epoch}{top5}. {said}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _link_picture(study: optuna.Study, trial: optuna.Trial) -> str:
    """Links the picture to its trial as `optuna.artifacts.upload_artifact` does, but under a name that is always the same; gives
    its address in the dashboard."""
    from optuna.artifacts import ArtifactMeta

    name = artifact_id(study.study_name, trial.number)
    meta = ArtifactMeta(artifact_id=name, filename=PICTURE, mimetype="image/png", encoding=None)
    storage_of(study).set_trial_system_attr(trial_id(trial), f"artifacts:{name}", json.dumps(asdict(meta)))
    return f"/artifacts/{study_id(study)}/{trial_id(trial)}/{name}"


def _write_note(study: optuna.Study, trial: int, body: str) -> None:
    """Writes a note as `optuna_dashboard.save_note` does, which would read all notes of the study twice for each, and whose
    package takes a second to import. The version comes last: with it, the note is whole."""
    for part, start in enumerate(range(0, len(body), NOTE_PART)):
        text = body[start : start + NOTE_PART]
        storage_of(study).set_study_system_attr(study_id(study), f"dashboard:{trial}:note_str:{part}", text)
    storage_of(study).set_study_system_attr(study_id(study), _version_key(trial), 1)


def _version_key(trial: int) -> str:
    return f"dashboard:{trial}:note_ver"
