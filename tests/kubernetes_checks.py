"""Checks of cluster/kuberay.yaml and its image; each raises Wrong.

The RayJob is checked against KubeRay's own definition if that file is next to the repository. The definition also
describes pods, services and volume claims, so its pieces check the other parts. A JSON schema accepts fields that it
does not name, but Kubernetes drops or rejects them. These checks find such fields.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from tests.command_checks import (
    REPOSITORY,
    Wrong,
    check_header,
    check_pipeline,
    check_ray_version,
    check_shell,
    check_variables,
    header,
)

DEFINITION = REPOSITORY.parent / "shared/schemas/ray.io_rayjobs.yaml"
HOME = "/home/ray/mvae-suite/"
METADATA = {"name", "namespace", "labels", "annotations"}


def check_kubernetes_file(text: str) -> None:
    """Runs every check that does not need KubeRay's definition."""
    parts = list(yaml.safe_load_all(text))
    job = part(parts, "RayJob")["spec"]
    cluster = job["rayClusterSpec"]
    check_ray_version(cluster["rayVersion"])
    if cluster.get("authOptions", {}).get("mode") != "token":
        raise Wrong("authOptions.mode is not token: anyone who reaches the head could run code there")
    if cluster["headGroupSpec"]["rayStartParams"].get("num-cpus") != "0":
        raise Wrong("the head offers CPUs: set num-cpus to 0")
    for group in cluster["workerGroupSpecs"]:
        if not 0 <= group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]:
            raise Wrong(f"{group['groupName']}: replicas are not between their bounds")
    check_entrypoint(job["entrypoint"])
    for pod in pods(parts):
        for container in pod["containers"]:
            for variable in container.get("env", []):
                check_variables(variable["name"])
    check_names(parts)


def check_entrypoint(entrypoint: str) -> None:
    check_shell(entrypoint)
    python, script, *arguments = entrypoint.split()
    if python != "python" or not script.startswith(HOME):
        raise Wrong(f"{entrypoint}: not python and a script under {HOME}")
    if not (REPOSITORY / script.removeprefix(HOME)).is_file():
        raise Wrong(f"{script}: the repository has no {script.removeprefix(HOME)}")
    check_pipeline(script.removeprefix(HOME), arguments)


def check_names(parts: list[dict[str, Any]]) -> None:
    """Checks that names used by one part exist in another: volumes, mounts, the service, its port and its pods."""
    claims = {one["metadata"]["name"] for one in parts if one["kind"] == "PersistentVolumeClaim"}
    images = set()
    for pod in pods(parts):
        volumes = {volume["name"]: volume for volume in pod.get("volumes", [])}
        for volume in volumes.values():
            claim = volume.get("persistentVolumeClaim", {}).get("claimName")
            if claim is not None and claim not in claims:
                raise Wrong(f"no claim has the name {claim}")
        for container in pod["containers"]:
            images.add(container["image"])
            for mount in container.get("volumeMounts", []):
                if mount["name"] not in volumes:
                    raise Wrong(f"{container['name']}: no volume has the name {mount['name']}")
    if len(images) != 1:
        raise Wrong(f"more than one image: {sorted(images)}")
    service, server = part(parts, "Service"), part(parts, "Deployment")
    uri = f"http://{service['metadata']['name']}:{service['spec']['ports'][0]['port']}"
    mounted = {mount["mountPath"] for mount in server["spec"]["template"]["spec"]["containers"][0]["volumeMounts"]}
    for pod in ray_pods(parts):
        values = {variable["name"]: variable["value"] for variable in pod["containers"][0]["env"]}
        if values.get("MLFLOW_TRACKING_URI") != uri:
            raise Wrong(f"MLFLOW_TRACKING_URI is {values.get('MLFLOW_TRACKING_URI')}, and the service answers at {uri}")
        storage = values.get("MVAE_STORAGE", "")
        if not any(storage.startswith(f"{path}/") for path in mounted) and not re.match(r"(s3|gs)://", storage):
            raise Wrong(f"MVAE_STORAGE is {storage!r}, which is neither on a shared volume nor a bucket")
    labels = server["spec"]["template"]["metadata"]["labels"]
    if service["spec"]["selector"] != labels or server["spec"]["selector"]["matchLabels"] != labels:
        raise Wrong("the service selects other pods than those of the deployment")


def part(parts: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    found = [one for one in parts if one["kind"] == kind]
    if len(found) != 1:
        raise Wrong(f"{len(found)} parts of kind {kind}, not one")
    return found[0]


def ray_pods(parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    cluster = part(parts, "RayJob")["spec"]["rayClusterSpec"]
    return [group["template"]["spec"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]


def pods(parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [*ray_pods(parts), part(parts, "Deployment")["spec"]["template"]["spec"]]


def check_kubernetes_header(text: str) -> None:
    """Checks that the three commands come first, all commands name existing parts, and docker builds the pods'
    image."""
    check_header(text, ["kubectl apply", "kubectl wait", "kubectl delete"])
    parts = list(yaml.safe_load_all(text))
    named = {f"{one['kind'].lower()}/{one['metadata']['name']}" for one in parts}
    named.add(f"job/{part(parts, 'RayJob')['metadata']['name']}")  # KubeRay gives this name to the job that submits
    for line in header(text):
        check_shell(line)
        for target in re.findall(r"\b(?:rayjob|job|service)/[\w-]+", line):
            if target not in named:
                raise Wrong(f"{line}: no object has the name {target}")
        for path in re.findall(r"\bcluster/[\w.]+", line):
            if not (REPOSITORY / path).is_file():
                raise Wrong(f"{line}: the repository has no {path}")
        for image in re.findall(r"\S+/\S+:\S+\d\b", line):
            if image != pods(parts)[0]["containers"][0]["image"]:
                raise Wrong(f"{line}: the pods run another image")


def check_image(dockerfile: str) -> None:
    """Checks that the image has the project, and the Ray and Python versions that the project requires."""
    lines = [line.split() for line in dockerfile.splitlines() if line and not line.startswith("#")]
    if [line[0] for line in lines] != ["FROM", "COPY", "RUN"]:
        raise Wrong(f"not FROM, COPY and RUN: {[line[0] for line in lines]}")
    base = re.fullmatch(r"rayproject/ray:(\d+\.\d+\.\d+)-py3(\d+)-gpu", lines[0][1])
    if base is None:
        raise Wrong(f"{lines[0][1]} is not a GPU image of Ray with an exact version")
    check_ray_version(base[1])
    if int(base[2]) < 11:
        raise Wrong(f"{lines[0][1]}: Python 3.11 or newer is needed")
    if lines[1][-2:] != [".", HOME.rstrip("/")] or lines[2][-2:] != ["-e", HOME.rstrip("/")]:
        raise Wrong(f"the project is not copied to, and installed from, {HOME}")


@cache
def definition() -> dict[str, Any]:
    """KubeRay's schema of a RayJob in which unknown fields are errors."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    [found] = [one for one in yaml.load_all(DEFINITION.read_text(encoding="utf-8"), Loader=loader) if one]
    [version] = [one for one in found["spec"]["versions"] if one["storage"]]
    schema: dict[str, Any] = closed(version["schema"]["openAPIV3Schema"])
    return schema


def closed(schema: Any) -> Any:
    """A copy of a schema in which objects with named properties accept no others."""
    if isinstance(schema, list):
        return [closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    made = {
        key: {name: closed(inner) for name, inner in value.items()} if key == "properties" else closed(value)
        for key, value in schema.items()
    }
    open_ended = schema.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in schema
    if isinstance(schema.get("properties"), dict) and not open_ended:
        made["additionalProperties"] = False
    return made


def check_definition(text: str) -> None:
    """Checks the RayJob against its definition; checks pods, claims and services against pieces of the definition."""
    spec = definition()["properties"]["spec"]["properties"]
    head = spec["rayClusterSpec"]["properties"]["headGroupSpec"]["properties"]
    pod = head["template"]
    volume = pod["properties"]["spec"]["properties"]["volumes"]["items"]["properties"]
    claim = volume["ephemeral"]["properties"]["volumeClaimTemplate"]["properties"]["spec"]
    deployment = {
        "type": "object",
        "additionalProperties": False,
        "required": ["selector", "template"],
        "properties": {
            "replicas": {"type": "integer"},
            "strategy": {"type": "object", "properties": {"type": {"enum": ["Recreate", "RollingUpdate"]}}},
            "selector": {"type": "object", "properties": {"matchLabels": {"type": "object"}}},
            "template": pod,
        },
    }
    kinds = {
        "RayJob": ("ray.io/v1", definition()["properties"]["spec"]),
        "Deployment": ("apps/v1", closed(deployment)),
        "PersistentVolumeClaim": ("v1", claim),
        "Service": ("v1", head["headService"]["properties"]["spec"]),
    }
    for one in yaml.safe_load_all(text):
        if set(one) != {"apiVersion", "kind", "metadata", "spec"} or not set(one["metadata"]) <= METADATA:
            raise Wrong(f"{one.get('kind')}: unknown fields next to spec: {sorted(one)}, {sorted(one['metadata'])}")
        if one["kind"] not in kinds or one["apiVersion"] != kinds[one["kind"]][0]:
            raise Wrong(f"{one['apiVersion']} {one['kind']} has an unknown kind")
        errors = jsonschema.Draft202012Validator(kinds[one["kind"]][1]).iter_errors(one["spec"])
        refusal = jsonschema.exceptions.best_match(errors)
        if refusal is not None:
            raise Wrong(f"{one['kind']}: {'.'.join(map(str, refusal.absolute_path))}: {refusal.message}")


def ignored_by_docker() -> list[str]:
    """Patterns of files that never get into the image."""
    text = (REPOSITORY / "cluster/Dockerfile.dockerignore").read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def kubernetes_file() -> Path:
    return REPOSITORY / "cluster/kuberay.yaml"
