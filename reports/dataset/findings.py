"""What may be wrong with the data: photos and files left out, copies, small classes, classes of very unequal size, features that
say nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from features.audit.variation import known_variation
from features.cache.feature_cache import cache_for
from features.dataset.index import SPLITS, DatasetIndex, load_index, load_notes
from features.dataset.skipped import load_skipped
from features.runtime.errors import HeadhuntError
from reports.config import Run
from reports.section import Block, Table

SMALL = 10
"""Photos of a class below which its accuracy says next to nothing, and a head has little to learn it from."""

UNEQUAL = 5
"""How many times the smallest class the largest may be before that is said."""

LISTED = 200
"""Photos in a table, at most."""


class Findings(NamedTuple):
    """`skipped` are the reasons of the photos that were left out, by path (None: not recorded). `copies` are the paths of photos
    of equal bytes, a list for each such photo, and `two_labels` how many of these have two labels.

    `small` are the classes of fewer than SMALL photos with their photos, the smallest first, and `ratio` is the photos of the
    largest class by those of the smallest. `notes` is what `features prepare` noted (None: not recorded), and `features` what is
    wrong with the cached features (None: nothing is cached, or they were not looked at), a sentence each.
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
        """What was found, a sentence each; empty where nothing was."""
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
            said.append(f"{_photos(count)} a copy, byte by byte, of another{labels}.")
        if self.small:
            few = f"{len(self.small)} class{'es have' if len(self.small) > 1 else ' has'} fewer than {SMALL} photos"
            name, photos = self.small[0]
            said.append(f"{few}; the smallest is {name} with {photos}.")
        if self.ratio >= UNEQUAL:
            said.append(f"The largest class has {self.ratio:.1f} times the photos of the smallest.")
        return [*said, *(self.features or ())]

    @property
    def nothing(self) -> str:
        """What was looked for, where nothing was found."""
        skipped = self.unrecorded or "no photo or other file left out"
        sizes = f"no class of fewer than {SMALL} photos, no class {UNEQUAL} times as large as another"
        features = "" if self.features is None else ", no feature that says nothing"
        return f"{skipped}, no copies, {sizes}{features}"

    @property
    def text(self) -> str:
        """What was found, or that nothing was; and what is not known."""
        if not self.sentences:
            return f"Nothing found: {self.nothing}."
        unknown = self.unrecorded and (
            f"{self.unrecorded[0].upper()}{self.unrecorded[1:]}: run `headhunt features prepare` again."
        )
        return " ".join(filter(None, [*self.sentences, unknown]))

    @property
    def unrecorded(self) -> str:
        """What an earlier version did not record when it prepared the data; empty where it did."""
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
    """What there is to say of the photos of an index, of those that were left out, and of their features; see Findings."""
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
    """The findings of a run's index; HeadhuntError where there is none, or a file is damaged."""
    return collect(load_index(run), load_skipped(run.workdir), load_notes(run), _features(run))


def _features(run: Run) -> list[str] | None:
    """What is wrong with the features that the search sees; None where nothing is cached, or they were not looked at."""
    try:
        found = known_variation(cache_for(run))
    except HeadhuntError:
        return None
    return None if found is None else found.warnings


def block(run: Run) -> Block:
    """The findings in words, with the photos that were left out and the copies in tables."""
    try:
        found = load(run)
    except HeadhuntError as error:
        return Block("What may be wrong", f"Left out: {error}")
    tables = []
    if found.skipped:
        rows = [[path, reason] for path, reason in found.skipped.items()]
        tables.append(_table(["photo", "left out because it is"], rows, "photos that were left out"))
    if found.copies:
        split = dict(zip(load_index(run).table["path"], load_index(run).table["split"], strict=True))
        rows = [
            [" = ".join(same), ", ".join(sorted({split[path] for path in same}, key=SPLITS.index))]
            for same in found.copies
        ]
        tables.append(_table(["photos of equal bytes", "split"], rows, "photos that have copies"))
    return Block("What may be wrong", found.text, tables=tables)


def _table(columns: list[str], rows: list[list[str]], what: str) -> Table:
    some = f"The first {LISTED} of the {len(rows):,} {what}" if len(rows) > LISTED else f"The {len(rows)} {what}"
    return Table(columns, rows[:LISTED], summary=some)
