"""A trial in Optuna's dashboard: readable attributes, a picture of its curves, and a note that shows both.

Everything is written before the trial's outcome, and rewritten under the same names if a driver was killed in between: a trial
has one picture and one note, and has them once it has its outcome.
"""

from __future__ import annotations

import io
import json
import uuid
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from features.runtime.atomic import make_folder
from search.candidate import C, Candidate
from search.first_trials import TITLES
from search.metric import Metric
from search.optuna_internals import storage_of, study_id, trial_id
from search.review.curves_image import collect, draw
from search.review.describe import Description, show

if TYPE_CHECKING:
    import optuna
    from optuna.artifacts import FileSystemArtifactStore

PICTURE = "curves.png"
"""The artifact's name in the dashboard."""

VERSION = "dashboard:note_ver"
"""The version of the study's note."""

NOTE_PART = 2045
"""Maximum number of characters of a note that the dashboard keeps in one attribute."""


def artifact_store(workdir: Path) -> FileSystemArtifactStore:
    """The pictures of a run's trials: files in `artifacts/`, which the dashboard serves."""
    from optuna.artifacts import FileSystemArtifactStore

    return FileSystemArtifactStore(make_folder(workdir / "artifacts"))


def artifact_id(study: str, number: int) -> str:
    """The name of a trial's picture in the store; deterministic, so that redrawing replaces the picture."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"headhunt/{study}/{number}"))


def draw_pictures(workdir: Path, study: str, objective: Metric, ended: Sequence[Candidate[C]]) -> None:
    """Writes the pictures of these trials to the store, except for trials without epochs."""
    store = artifact_store(workdir)
    for one in ended:
        if curves := one.trained.curves:
            picture = draw(collect(curves, one.trained.best_epoch, one.config.epochs, objective))
            store.write(artifact_id(study, one.number), io.BytesIO(picture))


def write_reviews(
    study: optuna.Study, objective: Metric, ended: Sequence[Candidate[C]], describe: Callable[[C], Description]
) -> None:
    """Stores the attributes, picture links and notes of trials that are not told yet.

    A note that was written in the dashboard in the meantime is kept.
    """
    noted = storage_of(study).get_study_system_attrs(study_id(study))  # read once: it grows with the study
    for one in ended:
        words = describe(one.config)
        for name, value in _attributes(one, words).items():
            one.trial.set_user_attr(name, value)
        picture = _link_picture(study, one.trial) if one.trained.curves else None
        if _version_key(trial_id(one.trial)) not in noted:
            write_note(study, trial_id(one.trial), note(one, words, objective, picture))


def note(ended: Candidate[C], words: Description, objective: Metric, picture: str | None) -> str:
    """A trial's result, curves and configuration in Markdown; `picture` is the URL of the curves."""
    title = [f"First trial: **{TITLES[ended.first]}**.", ""] if ended.first else []
    lines = [
        *title,
        _verdict(ended, words, objective),
        "",
        *(f"Note: {doubt}" for doubt in ended.trained.doubts),
    ]
    lines += [""] * bool(ended.trained.doubts)
    if picture:
        lines += [f"![Curves of trial {ended.trial.number}]({picture})", ""]
    lines += ["| part | configuration |", "|---|---|"]
    lines += [f"| {name.replace('_', ' ')} | {_cell(value)} |" for name, value in words.parts.items()]
    return "\n".join(lines) + "\n"


def _attributes(ended: Candidate[C], words: Description) -> dict[str, Any]:
    """Readable attributes that complement the trial's parameters and `config`; each takes a millisecond to write."""
    return {**words.attributes, "epochs": len(ended.trained.curves), "seconds": round(ended.seconds, 3)}


def _verdict(ended: Candidate[C], words: Description, objective: Metric) -> str:
    """One line: how it ended, and its best epoch."""
    assert ended.outcome is not None
    result, trained = ended.trained, len(ended.trained.curves)
    states = {
        "COMPLETE": f"Solved{'' if result.doubts else ' to convergence'}"
        if words.solved
        else f"Trained for {trained} of {ended.config.epochs} epochs",
        "PRUNED": f"Pruned after {trained} of {ended.config.epochs} epochs",
        "FAIL": f"**Failed** after {trained} of {ended.config.epochs} epochs: {result.failure}",
    }
    said = f"{states[ended.outcome.state]}; {show(ended.seconds)} s."
    if not result.best_epoch:
        return said
    best = result.curves[result.best_epoch - 1]
    is_shown = words.top5 and objective != "val_top5_accuracy"
    top5 = f", top-5 accuracy {best.val_top5_accuracy:.4f}" if is_shown else ""
    epoch = "" if words.solved else f" at epoch {result.best_epoch}"
    return f"**{objective} {getattr(best, objective):.4f}**{epoch}{top5}. {said}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _link_picture(study: optuna.Study, trial: optuna.Trial) -> str:
    """Links the picture to its trial like `optuna.artifacts.upload_artifact`, but under a deterministic name; returns its URL in
    the dashboard."""
    from optuna.artifacts import ArtifactMeta

    name = artifact_id(study.study_name, trial.number)
    meta = ArtifactMeta(artifact_id=name, filename=PICTURE, mimetype="image/png", encoding=None)
    storage_of(study).set_trial_system_attr(trial_id(trial), f"artifacts:{name}", json.dumps(asdict(meta)))
    return f"/artifacts/{study_id(study)}/{trial_id(trial)}/{name}"


def write_note(study: optuna.Study, trial: int | None, body: str, version: int = 1) -> None:
    """Writes a note on a trial (by its id) or on the study, in the format of `optuna_dashboard.save_note`, which would read all
    notes of the study twice per note, and whose package takes a second to import. The version is written last and marks the note
    as complete."""
    prefix = "dashboard:note_str" if trial is None else f"dashboard:{trial}:note_str"
    for part, start in enumerate(range(0, len(body), NOTE_PART)):
        text = body[start : start + NOTE_PART]
        storage_of(study).set_study_system_attr(study_id(study), f"{prefix}:{part}", text)
    storage_of(study).set_study_system_attr(study_id(study), VERSION if trial is None else _version_key(trial), version)


def _version_key(trial: int) -> str:
    return f"dashboard:{trial}:note_ver"
