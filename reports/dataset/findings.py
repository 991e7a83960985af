"""What may be wrong with the data: photos and files left out, duplicates, small classes, very unequal class sizes,
uninformative features."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from features.audit.variation import known_variation
from features.cache.feature_cache import cache_for
from features.dataset.index import SPLITS, DatasetIndex, load_index, load_notes
from features.dataset.skipped import load_skipped
from features.runtime.errors import HeadhuntError
from features.runtime.log import counted
from reports.config import Run
from reports.section import Block, Table

SMALL = 10
"""A class with fewer photos is called small: its accuracy means little, and a head has little to learn it from."""

UNEQUAL = 5
"""Ratio of the largest to the smallest class from which it is reported."""

LISTED = 200
"""Maximum rows of a table."""


class Findings(NamedTuple):
    """`skipped` has the reason for each photo that was left out, by path (None: not recorded). `copies` lists the paths of
    byte-identical photos, one list per distinct photo; `two_labels` counts those with more than one label.

    `small` are the classes with fewer than SMALL photos, with their numbers of photos, smallest first; `ratio` is the size of the
    largest class over that of the smallest. `notes` are the notes of `features prepare` (None: not recorded), and `features` the
    faults of the cached features (None: nothing is cached, or they were not checked), one sentence each.
    """

    skipped: dict[str, str] | None
    copies: list[list[str]]
    two_labels: int
    small: list[tuple[str, int]]
    ratio: float
    notes: Sequence[str] | None = ()
    features: Sequence[str] | None = None

    @property
    def sentences(self) -> list[str]:
        """The findings, one sentence each; empty if there are none."""
        said = []
        if self.skipped:
            kinds = Counter(reason.partition(" (")[0] for reason in self.skipped.values())
            listed = (
                ", ".join(f"{count:,} {kind}" for kind, count in kinds.most_common()) if len(kinds) > 1 else min(kinds)
            )
            said.append(f"{_photos(len(self.skipped))} left out: {listed}.")
        said += self.notes or ()
        if self.copies:
            count = sum(len(same) - 1 for same in self.copies)
            labels = f", {self.two_labels} of them under two labels" if self.two_labels else ""
            said.append(f"{_photos(count)} an exact duplicate of another{labels}.")
        if self.small:
            few = f"{len(self.small)} class{'es have' if len(self.small) > 1 else ' has'} fewer than {SMALL} photos"
            name, photos = self.small[0]
            said.append(f"{few}; the smallest is {name} with {photos}.")
        if self.ratio >= UNEQUAL:
            said.append(f"The largest class has {self.ratio:.1f} times as many photos as the smallest.")
        return [*said, *(self.features or ())]

    @property
    def nothing(self) -> str:
        """What was checked, for a run without findings."""
        skipped = self.unrecorded or "no photo or other file left out"
        sizes = f"no class with fewer than {SMALL} photos, no class {UNEQUAL} times as large as another"
        features = "" if self.features is None else ", no uninformative features"
        return f"{skipped}, no exact duplicates, {sizes}{features}"

    @property
    def text(self) -> str:
        """The findings, or that there are none; and what is unknown."""
        if not self.sentences:
            return f"Nothing found: {self.nothing}."
        unknown = self.unrecorded and (
            f"{self.unrecorded[0].upper()}{self.unrecorded[1:]}: rerun `headhunt features prepare`."
        )
        return " ".join(filter(None, [*self.sentences, unknown]))

    @property
    def unrecorded(self) -> str:
        """What an earlier version of `features prepare` did not record; empty if nothing is missing."""
        if self.skipped is None:
            return "whether photos or other files were left out is not recorded"
        return "whether other files were left out is not recorded" if self.notes is None else ""


def _photos(count: int) -> str:
    return "1 photo is" if count == 1 else f"{count:,} photos are"


def collect(
    index: DatasetIndex,
    skipped: dict[str, str] | None,
    notes: Sequence[str] | None = (),
    features: Sequence[str] | None = None,
) -> Findings:
    """The findings about an index, the photos that were left out, and the features; for the arguments see Findings."""
    table = index.table
    copies = [same for _, same in table[table["sha256"].duplicated(keep=False)].groupby("sha256", sort=False)]
    sizes = table["label"].value_counts().reindex(range(len(index.class_names)), fill_value=0)
    small = sizes[sizes < SMALL].sort_values(kind="stable")
    return Findings(
        skipped,
        [same["path"].astype(str).tolist() for same in copies],
        sum(same["label"].nunique() > 1 for same in copies),
        [(index.class_names[label], int(sizes[label])) for label in small.index.tolist()],
        float(sizes.max() / max(sizes.min(), 1)),
        notes,
        features,
    )


def load(run: Run) -> Findings:
    """The findings about a run's data; HeadhuntError if there is no index or a file is damaged."""
    return collect(load_index(run), load_skipped(run.workdir), load_notes(run), _features(run))


def _features(run: Run) -> list[str] | None:
    """The faults of the search's features; None if nothing is cached or they were not checked."""
    try:
        found = known_variation(cache_for(run))
    except HeadhuntError:
        return None
    return None if found is None else found.warnings


def block(run: Run) -> Block:
    """The findings as text, with tables of the photos that were left out and of the duplicates."""
    try:
        found = load(run)
    except HeadhuntError as error:
        return Block("What may be wrong", f"Left out: {error}")
    tables = []
    if found.skipped:
        rows = [[path, reason] for path, reason in found.skipped.items()]
        tables.append(_table(["photo", "reason"], rows, "photo that was left out", "photos that were left out"))
    if found.copies:
        split = dict(zip(load_index(run).table["path"], load_index(run).table["split"], strict=True))
        rows = [
            [" = ".join(same), ", ".join(sorted({split[path] for path in same}, key=SPLITS.index))]
            for same in found.copies
        ]
        tables.append(
            _table(["identical photos", "split"], rows, "photo with exact duplicates", "photos with exact duplicates")
        )
    return Block("What may be wrong", found.text, tables=tables)


def _table(columns: list[str], rows: list[list[str]], one: str, many: str) -> Table:
    some = f"The {f'first {LISTED} of the ' if len(rows) > LISTED else ''}{counted(len(rows), one, many)}"
    return Table(columns, rows[:LISTED], summary=some)
