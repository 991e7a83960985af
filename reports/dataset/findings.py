"""What may be wrong with the data: photos left out, copies, small classes, classes of very unequal size."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from features.dataset import SPLITS, DatasetIndex, load_index
from features.errors import HeadhuntError
from features.skipped import load_skipped
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
    largest class by those of the smallest.
    """

    skipped: dict[str, str] | None
    copies: list[list[str]]
    two_labels: int
    small: list[tuple[str, int]]
    ratio: float

    @property
    def sentences(self) -> list[str]:
        """What was found, a sentence each; empty where nothing was."""
        said = []
        if self.skipped:
            kinds = Counter(reason.partition(" (")[0] for reason in self.skipped.values())
            listed = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
            said.append(f"{_photos(len(self.skipped))} left out: {listed}.")
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
        return said

    @property
    def nothing(self) -> str:
        """What was looked for, where nothing was found."""
        skipped = "whether photos were left out is not recorded" if self.skipped is None else "no photo left out"
        return (
            f"{skipped}, no copies, no class of fewer than {SMALL} photos, no class {UNEQUAL} times as large as another"
        )


def _photos(count: int) -> str:
    return "1 photo is" if count == 1 else f"{count:,} photos are"


def collect(index: DatasetIndex, skipped: dict[str, str] | None) -> Findings:
    """What there is to say of the photos of an index and of those that were left out."""
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
    )


def load(run: Run) -> Findings:
    """The findings of a run's index; HeadhuntError where there is none, or a file is damaged."""
    return collect(load_index(run), load_skipped(run.workdir))


def block(run: Run) -> Block:
    """The findings in words, with the photos that were left out and the copies in tables."""
    try:
        found = load(run)
    except HeadhuntError as error:
        return Block("What may be wrong", f"Left out: {error}")
    said = found.sentences
    text = " ".join(said) if said else f"Nothing found: {found.nothing}."
    if said and found.skipped is None:
        text += " Whether photos were left out is not recorded: run `headhunt features prepare` again."
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
    return Block("What may be wrong", text, tables=tables)


def _table(columns: list[str], rows: list[list[str]], what: str) -> Table:
    some = f"The first {LISTED} of the {len(rows):,} {what}" if len(rows) > LISTED else f"The {len(rows)} {what}"
    return Table(columns, rows[:LISTED], summary=some)
