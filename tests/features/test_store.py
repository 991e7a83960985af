"""A cache's folder in a store: one contract for every kind, and the errors of each."""

from __future__ import annotations

import hashlib
import pickle
import uuid
from importlib.util import find_spec
from pathlib import Path

import pytest

from features.cache.store import Store, mask, open_store
from features.runtime.errors import CacheError, HeadhuntError, UsageError

pytestmark = pytest.mark.unit


@pytest.fixture(params=["file", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty folder in a store of each kind."""
    url = f"file://{tmp_path}/store" if request.param == "file" else f"memory://{uuid.uuid4().hex}"
    made = open_store(url, "0123456789abcdef")
    assert made is not None
    return made


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    file = tmp_path / "train-c000-00000-of-00001.tfrecord"
    file.write_bytes(bytes(range(256)) * 500)
    return file


def test_files_come_back_as_they_went(store: Store, shard: Path, tmp_path: Path) -> None:
    assert store.sizes() == {}
    store.upload(shard)
    store.write_text(".side.json", "ü")
    assert store.sizes() == {".side.json": 2, shard.name: 128_000}
    assert store.read_text(".side.json") == "ü"
    target = tmp_path / "mirror" / shard.name
    pickle.loads(pickle.dumps(store)).download(shard.name, target, hashlib.sha256(shard.read_bytes()).hexdigest())
    assert target.read_bytes() == shard.read_bytes()


def test_a_second_upload_replaces_and_delete_takes_away(store: Store, shard: Path) -> None:
    store.upload(shard)
    shard.write_bytes(b"shorter")
    store.upload(shard)
    assert store.sizes() == {shard.name: 7}
    store.delete(shard.name)
    store.delete(shard.name)
    assert store.sizes() == {}


def test_a_damaged_or_missing_file_leaves_nothing(store: Store, shard: Path, tmp_path: Path) -> None:
    store.upload(shard)
    target = tmp_path / "mirror" / shard.name
    with pytest.raises(CacheError, match=r"is damaged: its sha256 is .* expected 0000"):
        store.download(shard.name, target, "0" * 64)
    with pytest.raises(CacheError, match=r"none\.tfrecord is not in the store\. Run `headhunt features cache`"):
        store.download("none.tfrecord", target)
    with pytest.raises(CacheError, match="is not in the store"):
        store.read_text("manifest.json")
    assert list(target.parent.iterdir()) == []


def test_an_upload_that_fails_leaves_nothing(tmp_path: Path, shard: Path) -> None:
    (tmp_path / "store").write_text("a file where the folder should be")
    broken = Store(f"file://{tmp_path}/store/key")
    with pytest.raises(
        HeadhuntError, match=r"cannot upload file://.*are kept on the local disk\. Rerun the same command to continue"
    ):
        broken.upload(shard)
    (tmp_path / "store").unlink()
    assert broken.sizes() == {}
    broken.upload(shard)
    assert broken.sizes() == {shard.name: 128_000}


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("bucket/prefix", r"must be a URL that starts with one of s3://, gs://, file://, memory://"),
        ("ftp://host/x", r"'ftp://host/x', but must be a URL"),
        ("s3://", r"must name a bucket or folder: s3://NAME"),
        ("s3://key:hunter22@bucket/x", r"'s3://\*\*\*@bucket/x': put credentials in the environment"),
    ],
)
def test_a_url_that_cannot_be_meant_is_refused(url: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Store(url)


def test_without_a_url_there_is_no_store() -> None:
    assert open_store(None, "0123456789abcdef") is None


def test_secrets_are_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7")
    said = mask("403 key wJalrXUtnFEMI/K7 of AKIAIOSFODNN7EXAMPLE at http://u:pw@host/x?X-Amz-Signature=abc123&a=1")
    assert said == "403 key *** of *** at http://***@host/x?X-Amz-Signature=***&a=1"


@pytest.mark.skipif(find_spec("gcsfs") is not None, reason="gcsfs is installed")
def test_a_missing_driver_is_named() -> None:
    with pytest.raises(UsageError, match=r"gs:// needs the package gcsfs: pip install 'headhunt\[gcs\]'"):
        Store("gs://bucket/cars").sizes()
