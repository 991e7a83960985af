"""Class folders for other tools: `train/class_001/…`, in label order when sorted."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Literal

from features.dataset.index import SPLITS, DatasetIndex
from features.runtime.atomic import make_folder
from features.runtime.errors import DatasetError, HeadhuntError


def lay_out(index: DatasetIndex, folder: Path, how: Literal["link", "copy"]) -> None:
    """Recreates `train/`, `val/` and `test/` below `folder`, with links to the photos or copies of them.

    Names of class folders are zero-padded, because Keras's image_dataset_from_directory numbers classes by sorted folder name.
    Labels are read back that way before a split's folder is renamed into place. Raises HeadhuntError when it cannot write.
    """
    digits = max(3, len(str(len(index.class_names))))
    for split in SPLITS:
        fresh = folder / f".{split}.tmp"
        try:
            shutil.rmtree(fresh, ignore_errors=True)
            _fill(index, split, fresh, digits, how)
            _read_back(index, fresh)
            shutil.rmtree(folder / split, ignore_errors=True)
            fresh.rename(folder / split)
        except OSError as error:
            raise HeadhuntError(
                f"cannot create class folders in {folder / split}: {error.strerror or error}. Free space, choose another "
                "`workdir`, or try the other `--materialize` mode (link or copy)."
            ) from error


def _fill(index: DatasetIndex, split: str, folder: Path, digits: int, how: Literal["link", "copy"]) -> None:
    for label in range(len(index.class_names)):
        make_folder(folder / f"class_{label + 1:0{digits}d}")
    rows = index.of_split(split)
    for number, path, label in zip(rows.index.tolist(), rows["path"], rows["label"].tolist(), strict=True):
        target = folder / f"class_{label + 1:0{digits}d}" / f"{number:06d}_{Path(path).name}"
        if how == "link":
            target.symlink_to(index.root / path)
        else:
            shutil.copyfile(index.root / path, target)


def _read_back(index: DatasetIndex, folder: Path) -> None:
    labels = index.table["label"]
    for number, name in enumerate(sorted(path.name for path in folder.iterdir())):
        for file in (folder / name).iterdir():
            expected = int(labels.iloc[int(file.name.partition("_")[0])])
            if expected != number:
                raise DatasetError(
                    f"{file}: the folder is number {number} in sorted order, but the label is {expected}."
                )
