"""`reduce_kubernetes.py FOLDER > kubernetes.json`: extracts the examples' kinds from kubernetes-validate's strict schemas.

FOLDER is `kubernetes_validate/kubernetes-json-schema/v1.37.0-local-strict`. Descriptions and status are left out."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

API = "io.k8s.api"
KINDS = {
    "PersistentVolumeClaim": f"{API}.core.v1.PersistentVolumeClaim",
    "Service": f"{API}.core.v1.Service",
    "PodTemplateSpec": f"{API}.core.v1.PodTemplateSpec",
    "StatefulSet": f"{API}.apps.v1.StatefulSet",
    "Deployment": f"{API}.apps.v1.Deployment",
    "NetworkPolicy": f"{API}.networking.v1.NetworkPolicy",
}


def main(folder: Path) -> None:
    """Prints the reduced schema."""
    definitions = json.loads((folder / "_definitions.json").read_text())["$defs"]
    kept: dict[str, Any] = {}

    def keep(name: str) -> None:
        if name not in kept:
            kept[name] = None
            kept[name] = clean(definitions[name])

    def clean(node: Any) -> Any:
        if isinstance(node, list):
            return [clean(one) for one in node]
        if not isinstance(node, dict):
            return node
        if "$ref" in node:
            name = node["$ref"].rpartition("/")[2]
            keep(name)
            return {"$ref": f"#/$defs/{name}"}
        cleaned = {
            key: clean(value)
            for key, value in node.items()
            if key not in ("description", "properties") and not key.startswith("x-kubernetes")
        }
        if "properties" in node:
            cleaned["properties"] = {key: clean(value) for key, value in node["properties"].items() if key != "status"}
        return cleaned

    for name in KINDS.values():
        keep(name)
    lines = [f" {json.dumps(name)}: {json.dumps(kept[name], sort_keys=True)}" for name in sorted(kept)]
    print(f'{{"kinds": {json.dumps(KINDS)},\n"$defs": {{\n' + ",\n".join(lines) + "\n}}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
