"""A cache's folder in a real S3 server on loopback, in its own process: round trips, and failures midway."""

from __future__ import annotations

import hashlib
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from features.building.build import build_cache
from features.building.doctor import repair, verify
from features.cache import mirror
from features.cache.feature_cache import cache_for
from features.cache.store import Store, open_store
from features.config import FeaturesRun
from features.runtime.errors import CacheError, HeadhuntError, UsageError
from tests.features.test_build import MakeRun

pytest.importorskip("s3fs", reason="needs s3fs")
pytest.importorskip("moto")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start_server(port: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with tempfile.TemporaryFile() as said:
        server = subprocess.Popen(command, stdout=said, stderr=said)
        until = time.monotonic() + 120
        while server.poll() is None and time.monotonic() < until:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return server
            time.sleep(0.1)
        server.kill()
        server.wait()
        said.seek(0)
        raise AssertionError(f"the S3 server did not start: {said.read().decode()}")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A server with the bucket `caches`, configured through the environment, as for any S3 driver."""
    import s3fs

    port = free_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing-key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing-secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    s3fs.S3FileSystem.clear_instance_cache()
    process = start_server(port)
    s3fs.S3FileSystem().mkdir("caches")
    yield process, port
    process.kill()
    process.wait()
    s3fs.S3FileSystem.clear_instance_cache()


def make_shard(folder: Path, name: str = "val-00000-of-00001.tfrecord") -> Path:
    (folder / name).write_bytes(bytes(range(256)) * 500)
    return folder / name


def test_files_come_back_and_damage_is_refused(server: object, tmp_path: Path) -> None:
    store, shard = open_store("s3://caches/cars", "0123456789abcdef"), make_shard(tmp_path)
    assert store is not None
    assert store.sizes() == {}
    store.upload(shard)
    store.write_text("manifest.json", "{}")
    assert store.sizes() == {"manifest.json": 2, shard.name: 128_000}
    assert store.read_text("manifest.json") == "{}"
    target = tmp_path / "mirror" / shard.name
    with pytest.raises(CacheError, match="is damaged"):
        store.download(shard.name, target, "0" * 64)
    assert list(target.parent.iterdir()) == []
    store.download(shard.name, target, hashlib.sha256(shard.read_bytes()).hexdigest())
    assert target.read_bytes() == shard.read_bytes()
    with pytest.raises(CacheError, match="is not in the store"):
        store.download("none", target)
    store.delete(shard.name)
    assert store.sizes() == {"manifest.json": 2}


def test_a_missing_bucket_is_named(server: object, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no bucket 'nowhere'"):
        Store("s3://nowhere/cars").sizes()
    with pytest.raises(UsageError, match="there is no bucket at s3://nowhere/cars/"):
        Store("s3://nowhere/cars").upload(make_shard(tmp_path))


def test_a_server_killed_between_two_uploads_and_back(
    server: tuple[subprocess.Popen[bytes], int], tmp_path: Path
) -> None:
    process, _ = server
    store = Store("s3://caches/cars")
    store.upload(make_shard(tmp_path))
    process.kill()
    process.wait()
    with pytest.raises(
        HeadhuntError, match=r"cannot upload s3://caches/cars/.*Rerun the same command to continue"
    ) as caught:
        store.upload(make_shard(tmp_path, "test-00000-of-00001.tfrecord"))
    assert "testing-secret" not in str(caught.value)
    import s3fs

    again = start_server(server[1])  # the same address; this server keeps objects in memory only
    try:
        s3fs.S3FileSystem().mkdir("caches")
        assert store.sizes() == {}
        store.upload(tmp_path / "test-00000-of-00001.tfrecord")
        assert store.sizes() == {"test-00000-of-00001.tfrecord": 128_000}
    finally:
        again.kill()
        again.wait()


def test_a_connection_cut_in_the_middle_of_an_upload_leaves_nothing(
    server: tuple[subprocess.Popen[bytes], int], tmp_path: Path
) -> None:
    shard, listener, cut = make_shard(tmp_path), socket.create_server(("127.0.0.1", 0)), threading.Event()

    def swallow() -> None:
        while not cut.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection, socket.create_connection(("127.0.0.1", server[1])) as behind:
                behind.sendall(
                    connection.recv(20_000)
                )  # forward the request and part of its body, then close both ends

    thread = threading.Thread(target=swallow)
    thread.start()
    try:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(HeadhuntError, match="cannot upload s3://caches/cars/"):
            Store("s3://caches/cars", {"endpoint_url": address}).upload(shard)
    finally:
        cut.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()
    store = Store("s3://caches/cars")
    assert store.sizes() == {}
    store.upload(shard)
    assert store.sizes() == {shard.name: 128_000}


def files(run: FeaturesRun) -> dict[str, bytes]:
    """The cache's own files, by name."""
    (cache,) = (run.workdir / "cache").iterdir()
    others = ("build.json", ".lock", "contact_sheet.png")
    return {path.name: path.read_bytes() for path in cache.iterdir() if path.name not in others}


def test_another_machine_finds_what_is_computed(server: object, make_run: MakeRun) -> None:
    one = make_run("one", copies=1, store="s3://caches/cars")
    written = build_cache(one)["shards_written"]
    other = make_run("other", copies=1, store="s3://caches/cars")
    fetched = cache_for(other)
    np.testing.assert_array_equal(fetched.arrays("train", 1)[0], cache_for(one).arrays("train", 1)[0])
    assert files(other) == files(one)
    builder = make_run("builder", copies=2, store="s3://caches/cars")
    grown = build_cache(builder)
    assert grown["shards_written"] == len(list(one.workdir.glob("cache/*/train-c001-*")))
    assert grown["shards_reused"] == written
    assert cache_for(builder).copies == 2
    assert cache_for(make_run("one", prepared=False, copies=2, store="s3://caches/cars")).copies == 2
    assert verify(builder)["ok"]


def test_what_is_damaged_in_the_store_is_refused_and_repaired(server: object, make_run: MakeRun) -> None:
    run = make_run("one", copies=0, store="s3://caches/cars")
    build_cache(run)
    folder = cache_for(run).folder
    store = open_store("s3://caches/cars", folder.name)
    assert store is not None
    shard = next(folder.glob("val-*.tfrecord"))
    data = shard.read_bytes()
    store.write_text(shard.name, "x" * len(data))
    other = make_run("other", copies=0, store="s3://caches/cars")
    with pytest.raises(CacheError, match="is damaged"):
        cache_for(other)
    assert not list(other.workdir.glob("cache/*/manifest.json"))
    shard.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert repair(run)["repaired"] == [shard.name]
    np.testing.assert_array_equal(cache_for(other).arrays("val")[0], cache_for(run).arrays("val")[0])
    assert files(other) == files(run)


def test_a_build_whose_store_goes_away_keeps_its_shards_and_goes_on(
    server: tuple[subprocess.Popen[bytes], int], make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    process, port = server
    sent = []
    push = mirror.push_shard

    def push_and_kill(store: Store, shard: Path) -> None:
        if len(sent) == 2:
            process.kill()
            process.wait()
        push(store, shard)
        sent.append(shard.name)

    monkeypatch.setattr("features.building.blocks.push_shard", push_and_kill)
    monkeypatch.setattr("features.cache.store.FIRST_PAUSE_SECONDS", 0.01)
    run = make_run("one", copies=1, store="s3://caches/cars")
    with pytest.raises(
        HeadhuntError, match=r"cannot upload s3://caches/cars.*Finished shards are kept on the local disk"
    ):
        build_cache(run)
    assert not list(run.workdir.glob("cache/*/manifest.json"))
    monkeypatch.setattr("features.building.blocks.push_shard", push)
    again = start_server(port)
    try:
        import s3fs

        s3fs.S3FileSystem.clear_instance_cache()
        s3fs.S3FileSystem().mkdir("caches")
        result = build_cache(run)
        assert result["shards_reused"] == 3  # the third was on disk when its upload failed
        other = make_run("other", copies=1, store="s3://caches/cars")
        assert cache_for(other).copies == 1
        assert files(other) == files(run)
    finally:
        again.kill()
        again.wait()
