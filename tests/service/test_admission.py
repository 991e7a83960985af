"""Configurations that the service rejects: every fault is reported with its key path, and nothing is started."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from features.dataset.prepare import prepare
from features.run_file import load
from features.runtime.errors import DatasetError
from headhunt.service.jobs.admission import RefusedError, admit
from headhunt.service.settings import Settings
from reports.config import Run
from tests.service.in_process import Served, served
from tests.service.serving import configuration

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    root = tmp_path_factory.mktemp("root")
    outside = tmp_path_factory.mktemp("outside")
    (outside / "secret.csv").write_text("secret")
    (root / "photos" / "a").mkdir(parents=True)
    (root / "out").symlink_to(outside)
    (root / "photos" / "leak.csv").symlink_to(outside / "secret.csv")
    with served(root, writes="100000/minute", hypermodels=("ours",), stores=("s3://bucket/headhunt",)) as service:
        yield service
    assert not list(root.glob("*/jobs"))  # none of the rejected ones left a trace


def faults(service: Served, raw: Any, kind: str = "application/json") -> list[str]:
    """The service's faults of a configuration, which it also returns as one message with status 422."""
    content = raw if isinstance(raw, str | bytes) else json.dumps(raw)
    answer = service.http.post("/searches", content=content, headers={"Content-Type": kind})
    assert answer.status_code == 422, answer.text
    found: list[str] = answer.json()["faults"]
    assert found and all(fault in answer.json()["detail"] for fault in found)
    return found


MERGED = "m0: &m0 {a: 1}\n" + "".join(
    f"m{level}: &m{level} {{<<: [{', '.join([f'*m{level - 1}'] * 10)}]}}\n" for level in range(1, 12)
)
"""Expands to 10^11 pairs when loaded."""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: !!python/object/apply:os.system [id]", "could not determine a constructor for the tag"),
        ("name: !!python/name:os.system ''", "could not determine a constructor for the tag"),
        ("a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]", "aliases (*a) are not allowed"),
        (MERGED, "aliases (*m0) are not allowed"),
        ("a: " + "[" * 200_000, "nested more than 32 levels deep"),
        ("a: " + "{a: " * 50_000, "nested more than 32 levels deep"),
        ('a: "\\UFFFFFFFF"', "cannot be read"),
        ("a: 1" + ":1" * 200 + ".5", "cannot be read"),
        ("a: !!bool x", "cannot be read"),
        ("a: !!int ''", "cannot be read"),
        ("a: !!timestamp x", "cannot be read"),
        ("a: " + "[" * 40 + "]" * 40, "nested more than 32 levels deep"),
        ("a: " + "9" * 5000, "cannot be read"),
        ("name: 0x" + "f" * 5000, "cannot be used"),
        ("name: 2026-99-99", "month must be in 1..12"),
        ("name: a\nname: b", "duplicate key 'name'"),
        ("name: [.nan]", "name: received [nan]"),
        ("\x00", "not valid YAML"),
        ("- a list", "it must be a mapping with the sections"),
        ("just words", "it must be a mapping with the sections"),
        ("", "it must be a mapping with the sections"),
        ('"\\ud800": 1', "received"),
        ("1: 2", "keys should be strings"),
    ],
)
def test_hostile_yaml(service: Served, text: str, said: str) -> None:
    assert any(said in fault for fault in faults(service, text, "application/yaml"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"name": NaN}', "NaN is not valid JSON"),
        ('{"name": Infinity}', "Infinity is not valid JSON"),
        ("{", "not valid JSON"),
        ('{"name": "\\ud800"}', "name: received"),
        ("[]", "it must be a mapping"),
        ("[" * 5000, "levels deep"),
        (b"\xff\xfe", "not UTF-8"),
    ],
)
def test_hostile_json(service: Served, text: str | bytes, said: str) -> None:
    assert any(said in fault for fault in faults(service, text))


def test_a_body_of_another_type(service: Served) -> None:
    answer = service.http.post("/searches", content="name: x", headers={"Content-Type": "text/plain"})
    assert answer.status_code == 415
    assert "it must be application/yaml or application/json" in answer.json()["detail"]


TOY = {"kind": "toy_cars"}
FOLDER = {"kind": "folder", "root": "photos"}
CARS = {"kind": "stanford_cars", "root": "photos", "annotations": "cars_annos.mat"}


@pytest.mark.parametrize("path", ["../photos", "/etc", "out", "photos/../../x", "out/deeper", "photos/\0"])
def test_no_path_leads_out_of_the_work_directory(service: Served, path: str) -> None:
    sections: dict[str, dict[str, Any]] = {
        "dataset.root": {"dataset": {"kind": "folder", "root": path}},
        "features.weights": {"features": {"weights": path}},
        "features.backbone": {
            "features": {"backbone": f"{path}/x.keras", "preprocessing": "resnet_v2", "image_size": 32}
        },
        "reports.compare.0": {"reports": {"compare": [path]}},
        "reports.histories.0.files": {"reports": {"histories": [{"name": "old", "files": [path]}]}},
    }
    for key, section in sections.items():
        found = faults(service, {"name": "bad", "dataset": TOY, **section})
        assert any(fault.startswith(f"{key}: received ") and "work directory" in fault for fault in found), found


@pytest.mark.parametrize("path", ["../../x.mat", "/etc/passwd", "leak.csv"])
def test_no_file_of_a_data_set_leads_out_of_it(service: Served, path: str) -> None:
    found = faults(service, {"name": "bad", "dataset": {**CARS, "annotations": [path]}})
    assert any(fault.startswith("dataset.annotations") for fault in found)


@pytest.mark.parametrize("path", ["../x.csv", "/etc/passwd", "photos/leak.csv", "out/secret.csv"])
def test_no_table_lies_outside_the_work_directory(service: Served, path: str) -> None:
    for root in ({}, {"root": "photos"}):
        found = faults(service, {"name": "bad", "dataset": {"kind": "csv", "file": path, **root}})
        said = f"dataset.file: received {path!r}, which is not in the service's work directory. Give a path relative to"
        assert any(fault.startswith(said) for fault in found), found


def test_nothing_that_was_added_in_the_dashboard_is_named(tmp_path: Path) -> None:
    """An uploaded configuration would be read like that of another run, with its own workdir and storage."""
    root = tmp_path / "root"
    (root / "photos").mkdir(parents=True)
    with served(root) as service:
        made = service.http.post("/api/studies", json={"study_name": "mine", "directions": ["maximize"]}).json()
        evil = b64encode(b"name: x\nworkdir: /etc\ndataset: {kind: toy_cars}\nsearch: {storage: sqlite:////tmp/x.db}\n")
        added = {"filename": "x", "file": f"data:text/yaml;base64,{evil.decode()}"}
        number = made["study_summary"]["study_id"]
        uploaded = service.http.post(f"/api/artifacts/{number}", json=added).json()["artifact_id"]
        place = f".artifacts/{uploaded}"
        assert (root / place).is_file()
        (root / "photos" / "link").symlink_to(root / ".artifacts")
        for path in (place, f"photos/../{place}", f"photos/link/{uploaded}", f"./{place}", str(root / place)):
            sections: dict[str, dict[str, Any]] = {
                "reports.compare.0": {"reports": {"compare": [path]}},
                "reports.histories.0.files": {"reports": {"histories": [{"name": "old", "files": [path]}]}},
                "features.weights": {"features": {"weights": path}},
                "features.backbone": {
                    "features": {"backbone": f"{path}.keras", "preprocessing": "resnet_v2", "image_size": 32}
                },
                "dataset.file": {"dataset": {"kind": "csv", "file": path}},
            }
            for key, section in sections.items():
                found = faults(service, {"name": "bad", "dataset": TOY, **section})
                named = f"{path}.keras" if key == "features.backbone" else path
                said = f"{key}: received {str(Path(named))!r}, but files and folders whose names begin with a dot"
                assert any(fault.startswith(said) for fault in found), found
        assert not (root / "bad").exists()


def test_a_photo_that_is_a_link_out_of_the_work_directory_is_refused_when_it_is_prepared(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "outside" / "secret.png")
    for label in "ab":
        folder = tmp_path / "root" / "photos" / label
        folder.mkdir(parents=True)
        for number in range(6):
            Image.new("RGB", (8, 8), (number, 9, 9)).save(folder / f"{number}.png")
    (folder / "leak.png").symlink_to(tmp_path / "outside" / "secret.png")
    dataset = {"kind": "folder", "root": tmp_path / "root" / "photos", "within": tmp_path / "root"}
    run = Run.model_validate({"workdir": tmp_path / "run", "dataset": dataset})
    with pytest.raises(DatasetError, match=r"outside the folder .*root: b/leak\.png \(dataset\.within\)"):
        prepare(run)


@pytest.mark.parametrize("row", ["../../outside/secret.png", "{outside}/secret.png", "a/../../../outside/secret.png"])
def test_a_row_of_a_table_that_leads_out_of_the_work_directory_is_refused_when_it_is_prepared(
    tmp_path: Path, row: str
) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    outside.mkdir()
    Image.new("RGB", (8, 8)).save(outside / "secret.png")
    rows = [row.format(outside=outside)]
    for label in "ab":
        (root / "photos" / label).mkdir(parents=True)
        for number in range(6):
            Image.new("RGB", (8, 8), (number, 9, ord(label))).save(root / "photos" / label / f"{number}.png")
            rows.append(f"{label}/{number}.png")
    cells = [f"{path},{'b' if path[0] == 'b' else 'a'}" for path in rows]
    (root / "photos" / "cars.csv").write_text("\n".join(["path,class_name", *cells]) + "\n")
    raw = {"name": "cars", "dataset": {"kind": "csv", "file": "photos/cars.csv"}}
    admitted = admit(raw, Settings(root=root)).run
    dataset = admitted.dataset.model_copy(update={"file": root / "photos" / "cars.csv"})
    run = admitted.model_copy(update={"workdir": tmp_path / "run", "dataset": dataset})
    with pytest.raises(DatasetError, match=r"outside the folder .*root: .*secret\.png \(dataset\.within\)"):
        prepare(run)


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"workdir": "elsewhere"}, "workdir: the service keeps every search in a folder of that name. Remove this key."),
        ({"search": {"storage": "sqlite:////etc/x.db"}}, "search.storage: the service keeps all studies in one storage."),
        ({"dataset": {**TOY, "within": "/"}}, "dataset.within: the service reads photos only from its work directory."),
        ({"search": {"workers": {"address": "ray://evil:1"}}}, "search.workers.address: the service chooses the cluster."),
        ({"train": {"workers": {"address": "auto"}}}, "train.workers.address: the service chooses the cluster."),
        ({"features": {"workers": {"address": "auto"}}}, "features.workers.address: the service chooses the cluster."),
        ({"search": {"hypermodel": "os:system"}}, "search.hypermodel: received 'os:system'; allowed modules: ours"),
        ({"search": {"hypermodel": "ours.other:build"}}, "search.hypermodel: received 'ours.other:build'; allowed modules"),
        ({"features": {"store": "s3://other/x"}}, "features.store: received 's3://other/x'; allowed: s3://bucket/headhunt"),
        ({"features": {"store": "s3://bucket/headhunt/../x"}}, "features.store: received"),
        ({"features": {"store": "s3://bucket/headhunt2"}}, "features.store: received"),
        ({"features": {"store": "/etc"}}, "features.store is '/etc/', but must be a URL"),
        ({"search": {"trails": 3}}, "search.trails: "),
        ({"search": {"trials": -1}}, "search.trials: received -1"),
    ],
)  # fmt: skip
def test_what_the_service_or_its_operator_decides(service: Served, section: dict[str, Any], said: str) -> None:
    found = faults(service, {"name": "bad", "dataset": TOY, **section})
    assert any(fault.startswith(said) for fault in found), found


@pytest.mark.parametrize(
    "name",
    ["../x", "/x", ".x", "a/b", "a\\b", "a\nb", "a\0b", "", " ", "ä", "x" * 101, "a-promotions", "a-fidelity", "CON\r\nX", "-x"],
)  # fmt: skip
def test_names_that_are_no_folders(service: Served, name: str) -> None:
    assert any(fault.startswith("name: ") for fault in faults(service, {"name": name, "dataset": TOY}))


@pytest.mark.parametrize("ending", ["", "-journal", "-wal", "-shm"])
def test_no_search_is_called_as_a_file_of_the_storage(service: Served, tmp_path: Path, ending: str) -> None:
    for name in (f"headhunt.db{ending}", f"HeadHunt.DB{ending}"):
        (fault,) = faults(service, {"name": name, "dataset": TOY})
        assert (
            fault == f"name: received {name!r}; names that begin with headhunt.db are reserved for the storage's files."
        )
    raw = {"name": f"Ours.sqlite3{ending}", "dataset": TOY}
    elsewhere = f"sqlite:///{tmp_path / 'other' / 'ours.sqlite3'}"
    for storage, is_taken in (
        (f"sqlite+pysqlite:///{tmp_path / 'ours.sqlite3'}?timeout=9", False),
        (elsewhere, True),
        ("postgresql://me@host/ours.sqlite3", True),
    ):
        settings = Settings(root=tmp_path, storage=storage)
        if is_taken:
            assert admit(raw, settings).run.name == raw["name"]
        else:
            with pytest.raises(
                RefusedError, match=r"names that begin with ours\.sqlite3 are reserved for the storage's files"
            ):
                admit(raw, settings)


def test_a_fault_speaks_of_what_was_given(service: Served) -> None:
    assert faults(service, {"name": "a"}) == ["dataset: this key is required. Found there: name."]
    (found,) = faults(service, {"name": "a", "dataset": {"kind": "folder"}})
    assert found == "dataset.root: this key is required. Found there: kind."


def test_all_faults_are_told_at_once(service: Served) -> None:
    raw = {
        "name": "a-fidelity",
        "workdir": "x",
        "dataset": {"kind": "folder", "root": "/etc"},
        "features": {"store": "s3://x"},
    }
    found = faults(service, raw)
    assert {fault.partition(":")[0] for fault in found} == {"workdir", "name", "dataset.root", "features.store"}


@pytest.mark.parametrize(
    "name", ["%2e%2e", "..%2f..%2fetc", "%2e%2e%2fetc%2fpasswd", "a%00b", "a%0d%0aX: y", "x" * 300, "none"]
)
def test_addresses_lead_to_nothing_else(service: Served, name: str) -> None:
    secret = service.root / "photos" / "leak.csv"
    assert secret.read_text() == "secret"
    for path in (
        f"/searches/{name}", f"/searches/{name}/logs", f"/searches/{name}/report", f"/searches/{name}/exports/1/keras",
        f"/searches/none/exports/1/{name}", f"/searches/none/exports/{name}/keras", f"/artifacts/1/{name}", f"/assets/{name}",
        f"/static/{name}",
    ):  # fmt: skip
        answer = service.http.get(path)
        assert answer.status_code in (400, 403, 404, 422), (path, answer.status_code)
        assert "secret" not in answer.text and "root:" not in answer.text and "x" not in answer.headers


def test_links_in_a_search_lead_out_of_no_download(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "model.keras").write_bytes(b"secret")
    (outside / "index.html").write_text("secret")
    root = tmp_path / "root"
    root.mkdir()
    with served(root) as service:
        assert service.http.post("/searches", json={"name": "cars", "dataset": TOY}).status_code == 201
        (root / "cars" / "report").symlink_to(outside)
        (root / "cars" / "exports").mkdir()
        (root / "cars" / "exports" / "1").symlink_to(outside)
        (root / "cars" / "exports" / "2").mkdir()
        (root / "cars" / "exports" / "2" / "model.keras").symlink_to(outside / "model.keras")
        for path in ("report", "exports/1/keras", "exports/1/bundle", "exports/2/keras", "exports/2/bundle"):
            answer = service.http.get(f"/searches/cars/{path}")
            assert b"secret" not in answer.content, path
            assert answer.status_code == 404, path


def test_good_ones_are_taken_and_kept_as_they_were_given(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "tiny.keras").write_bytes(b"")
    with served(tmp_path, hypermodels=("ours",), stores=("s3://bucket/headhunt/",)) as service:
        cars = yaml.safe_load((ROOT / "examples" / "stanford_cars.yaml").read_text())
        del cars["workdir"]
        for raw in (
            {"name": "toy", "dataset": TOY},
            configuration("tiny"),
            cars,
            {"name": "theirs", "dataset": TOY, "search": {"hypermodel": "ours:build"}},
            {"name": "stored", "dataset": TOY, "features": {"store": "s3://bucket/headhunt/mine"}},
        ):
            answer = service.http.post(
                "/searches", content=yaml.safe_dump(raw), headers={"Content-Type": "application/yaml"}
            )
            assert answer.status_code == 201, answer.text
            assert answer.headers["location"] == f"/searches/{raw['name']}"
            run = load(Run, tmp_path / raw["name"] / "headhunt.yaml")
            assert (run.name, str(run.workdir)) == (raw["name"], raw["name"])
            assert run.search.storage == service.settings.storage_url
