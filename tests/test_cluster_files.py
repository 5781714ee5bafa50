"""cluster/*.yaml pass every check, and the checks find a typo anywhere in these files.

The checks are in tests/cluster_checks.py, tests/command_checks.py and tests/kubernetes_checks.py.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines import weak_supervision
from sweeps.cli.options import read
from tests.cluster_checks import check_ray_file, environment, join_with_python, ray_files
from tests.command_checks import REPOSITORY, Wrong, calls, check_header, header, installed, project
from tests.kubernetes_checks import (
    DEFINITION,
    check_definition,
    check_image,
    check_kubernetes_file,
    check_kubernetes_header,
    kubernetes_file,
)

RAY_FILES = {path.stem: path for path in ray_files()}
GPU = REPOSITORY / "cluster/gpu.yaml"
LOCAL = REPOSITORY / "cluster/local.yaml"
DOCKERFILE = REPOSITORY / "cluster/Dockerfile"
THREE = ["ray up", "ray submit", "ray down"]
known = pytest.mark.skipif(not DEFINITION.is_file(), reason="KubeRay's definition of a RayJob is not beside this clone")


@pytest.mark.parametrize("path", RAY_FILES.values(), ids=RAY_FILES)
def test_a_ray_file_passes_every_check_that_needs_no_cluster(path: Path) -> None:
    check_ray_file(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", RAY_FILES.values(), ids=RAY_FILES)
def test_a_ray_file_opens_with_the_three_commands_and_every_command_is_valid(path: Path) -> None:
    check_ray_header(path.read_text(encoding="utf-8"))


def test_the_kubernetes_file_passes_every_check_that_needs_no_definition() -> None:
    check_kubernetes_file(kubernetes_file().read_text(encoding="utf-8"))
    check_kubernetes_header(kubernetes_file().read_text(encoding="utf-8"))
    check_image(DOCKERFILE.read_text(encoding="utf-8"))


@known
def test_the_kubernetes_file_fits_kuberays_definition_and_has_no_unknown_field() -> None:
    check_definition(kubernetes_file().read_text(encoding="utf-8"))


def test_kubectl_accepts_every_command_and_flag_of_the_header() -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed")
    lines = [
        call
        for line in header(kubernetes_file().read_text(encoding="utf-8"))
        for call in calls(line)
        if call[0] == "kubectl"
    ]
    assert len(lines) >= 5
    for call in lines:
        told = subprocess.run(["kubectl", call[1], "--help"], capture_output=True, encoding="utf-8", timeout=60)
        assert told.returncode == 0, call
        for word in call[2:]:
            if word.startswith("-"):
                flag = word.partition("=")[0]
                assert f"    {flag}, --" in told.stdout or f"{flag}=" in told.stdout, f"{' '.join(call)}: {word}"


def test_the_cloud_and_kubernetes_files_use_the_same_python() -> None:
    """With two Python versions, a sweep moved from one cluster to the other would be marked as mixed."""
    words = [
        word
        for command in yaml.safe_load(GPU.read_text(encoding="utf-8"))["setup_commands"]
        for word in command.split()
    ]
    python = words[words.index("--python") + 1]
    assert f"-py{python.replace('.', '')}-gpu" in DOCKERFILE.read_text(encoding="utf-8")


# The right text, its replacement, and a part of the error.
RAY_TYPOS = {
    "top level": ("idle_timeout_minutes:", "idle_timeout_minuets:", "idle_timeout_minuets"),
    "provider": ("  region:", "  regoin:", "provider.regoin"),
    "auth": ("  ssh_user:", "  ssh_usr:", "ssh_usr"),
    "head_node_type": ("head_node_type: head", "head_node_type: haed", "head_node_type"),
    "node type": ("    max_workers: 4\n    node", "    max_wrokers: 4\n    node", "max_wrokers"),
    "no resources": ("    resources: {} #", "    resuorces: {} #", "'resources' is a required property"),
    "type of a resource": ("{CPU: 0}", '{CPU: "0"}', "head.resources.CPU"),
    "negative resource": ("{CPU: 0}", "{CPU: -1}", "head.resources.CPU"),
    "node_config": ("      InstanceMarketOptions:", "      InstanceMarketOption:", "InstanceMarketOption"),
    "inside node_config": ("VolumeSize:", "VolumSize:", "VolumSize"),
    "type in node_config": ("VolumeSize: 150", 'VolumeSize: "150"', "VolumeSize"),
    "instance type": ("g6.2xlarge", "g6.2xlrage", "g6.2xlrage"),
    "market": ("MarketType: spot", "MarketType: sopt", "sopt"),
    "volume type": ("VolumeType: gp3", "VolumeType: pg3", "pg3"),
    "image": ("resolve:ssm:/aws", "resolve:smm:/aws", "ImageId"),
    "no profile": ("      IamInstanceProfile: {Name: mvae-worker}\n", "", "worker: without an instance profile"),
    "filter": ('[".gitignore"]', '[".gitingore"]', ".gitingore"),
    "mounted here": ('"."}', '"./mvea"}', "./mvea"),
    "mounted there": ('"~/mvae-suite":', '"~/mvae-siute":', "nothing is copied to ~/mvae-suite"),
    "a folder that hides the package": ("mvae-suite", "mvae", "hides a package"),
    "path of the server": ("mlflow_server.sh", "mlfow_server.sh", "mlfow_server.sh"),
    "storage": ("MVAE_STORAGE", "MVAE_STORGAE", "MVAE_STORGAE"),
    "no absolute storage": ("s3://example-mvae/sweeps", "sweeps", "MVAE_STORAGE is sweeps"),
    "tracking": ("MLFLOW_TRACKING_URI", "MLFLOW_TRAKING_URI", "MLFLOW_TRAKING_URI"),
    "authentication": ("RAY_AUTH_MODE", "RAY_AUHT_MODE", "RAY_AUHT_MODE"),
    "health checks": ("RAY_health_check_period_ms", "RAY_helath_check_period_ms", "RAY_helath"),
    "head's address": ("$RAY_HEAD_IP", "$RAY_HAED_IP", "RAY_HAED_IP"),
    "a file that grows": ("OMP_NUM_THREADS=1' > ~", "OMP_NUM_THREADS=1' >> ~", "a second `ray up` changes ~/.mvae.env"),
    "a guard that never holds": ("grep -qF .mvae.env", "grep -qF .mvea.env", "a second `ray up` changes ~/.bashrc"),
    "a file that nobody reads": ("|| echo '. ~/.mvae.env'", "|| echo '. ~/.mvea.env'", ".mvea.env: No such file"),
    "shell": ("|| echo '. ~", "|| ( echo '. ~", "bash cannot parse"),
    "quote": ("OMP_NUM_THREADS=1'", "OMP_NUM_THREADS=1", "bash cannot parse"),
    "requirement": ("setuptools>=77", "setuptools=>77", "setuptools=>77"),
    "another ray": ("==2.60.0'", "==2.59.0'", "2.59.0 is not what pyproject.toml asks for"),
    "any ray": ("==2.60.0'", ">=2.60'", "pins no version"),
    "ray without its extras": ("ray[default,train,tune]", "ray[defualt,train,tune]", "needs the extras"),
    "no pin": ("'ray[default,train,tune]==2.60.0' ", "", "no command pins Ray"),
    "option of ray": ("--num-cpus=0", "--num-cpu=0", "--num-cpu"),
    "value of ray's": ("--num-cpus=0", "--num-cpus=O", "num-cpus"),
    "command of ray's": (
        "- ray stop\n  - ulimit -n 65536; ray start --add",
        "- ray sotp\n  - ray start --add",
        "ray sotp",
    ),
}
LOCAL_TYPOS = {
    "top level": ("max_workers:", "max_wrokers:", "max_wrokers"),
    "provider": ("  head_ip:", "  haed_ip:", "Please supply a `head_ip`"),
    "provider's machines": ("  worker_ips:", "  worker_ip:", "list of `worker_ips`"),
    "unknown to the provider": ("  type: local", "  type: local\n  worker_ports: [22]", "provider.worker_ports"),
    "auth": ("  ssh_private_key:", "  ssh_privat_key:", "ssh_privat_key"),
    "command": ("worker_start_ray_commands:", "worker_start_commands:", "worker_start_commands"),
    "filter": ('[".gitignore"]', '[".gitingore"]', ".gitingore"),
    "path of the server": ("mlflow_server.sh", "mlfow_server.sh", "mlfow_server.sh"),
    "storage": ("echo 'export RAY_ADDRESS=auto MVAE_STORAGE", "echo 'export RAY_ADDRESS=auto MVAE_STORGAE", "STORGAE"),
    "authentication": ("RAY_AUTH_MODE=", "RAY_AUHT_MODE=", "RAY_AUHT_MODE"),
    "shell": ("|| echo '. ~", "|| ( echo '. ~", "bash cannot parse"),
    "requirement": ("'setuptools>=77'", "'setuptools=>77'", "setuptools=>77"),
    "option of ray": ("--object-store-memory", "--object-stroe-memory", "--object-stroe-memory"),
}
HEADER_TYPOS = {
    "no such command": ("#   ray up -y", "#   ray pu -y", "opens with"),
    "order": ("#   ray up -y cluster/gpu.yaml\n", "", "opens with"),
    "option of ray": ("ray attach cluster/gpu.yaml -p", "ray attach cluster/gpu.yaml --prot", "--prot"),
    "command of ray": ("#   ray attach", "#   ray atach", "ray atach"),
    "file": ("ray down -y cluster/gpu.yaml", "ray down -y cluster/gpus.yaml", "cluster/gpus.yaml"),
    "script": ("pipelines/weak_supervision.py", "pipelines/weak_supervison.py", "weak_supervison.py"),
    "option of the pipeline": ("--dataset fashion", "--datset fashion", "did you mean --dataset?"),
    "value of the pipeline": ("--preset paper", "--preset papper", "--preset"),
}
LOCAL_HEADER_TYPOS = {
    "variable": ("RAY_UP_enable_autoscaler_v2=0 ray", "RAY_UP_enable_autoscaler=0 ray", "RAY_UP_enable_autoscaler"),
    "file": ("ray down -y cluster/local.yaml", "ray down -y cluster/locla.yaml", "cluster/locla.yaml"),
    "script": ("pipelines/weak_supervision.py", "pipelines/weak_supervison.py", "weak_supervison.py"),
}
KUBERNETES_TYPOS = {
    "version": ('rayVersion: "2.60.0"', 'rayVersion: "2.50.0"', "2.50.0 is not what"),
    "no authentication": ("      mode: token", "      mode: disabled", "authOptions"),
    "cpus of the head": ('num-cpus: "0"', 'num_cpus: "0"', "num-cpus"),
    "replicas": ("minReplicas: 0", "minReplicas: 9", "bounds"),
    "script": ("weak_supervision.py --dataset", "weak_supervison.py --dataset", "weak_supervison"),
    "folder of the image": ("python /home/ray/mvae-suite", "python /home/ray/mvea-suite", "mvea-suite"),
    "option of the pipeline": ("--dataset fashion", "--datset fashion", "did you mean --dataset?"),
    "storage": ("{name: MVAE_STORAGE", "{name: MVAE_STORGAE", "MVAE_STORGAE"),
    "storage in the pod": ("value: /storage/sweeps", "value: /stroage/sweeps", "/stroage/sweeps"),
    "tracking": ("{name: MLFLOW_TRACKING_URI", "{name: MLFLOW_TRAKING_URI", "MLFLOW_TRAKING_URI"),
    "server": ("http://mvae-mlflow:5000", "http://mvae-mlfow:5000", "mvae-mlfow"),
    "claim": ("claimName: mvae-storage", "claimName: mvae-stroage", "mvae-stroage"),
    "mount": ("{name: storage, mountPath", "{name: stroage, mountPath", "stroage"),
    "selector": ("selector: {app: mvae-mlflow}", "selector: {app: mvae-mlfow}", "selects other pods"),
    "one image": (
        "image: example/mvae:0.1.0\n          command",
        "image: example/mvea:0.1.0\n          command",
        "image",
    ),
}
DEFINITION_TYPOS = {
    "spec": ("  shutdownAfterJobFinishes:", "  shutdownAfterJobFinish:", "shutdownAfterJobFinish"),
    "type in spec": ("backoffLimit: 1", 'backoffLimit: "1"', "backoffLimit"),
    "cluster": ("enableInTreeAutoscaling:", "enableInTreeAutoscaler:", "enableInTreeAutoscaler"),
    "authentication": ("      mode: token", "      mode: tokn", "tokn"),
    "group of workers": ("maxReplicas: 4", "maxReplica: 4", "maxReplica"),
    "start parameters": ('num-cpus: "0"', "num-cpus: 0", "num-cpus"),
    "container": ("volumeMounts: &mounts", "volumeMount: &mounts", "volumeMount"),
    "resources": ('requests: {cpu: "2"', 'request: {cpu: "2"', "request"),
    "quantity": ("memory: 8Gi}\n                limits", "memory: 8 Gi}\n                limits", "8 Gi"),
    "toleration": ("effect: NoSchedule", "efect: NoSchedule", "efect"),
    "pod": ("securityContext: &user", "securityContxt: &user", "securityContxt"),
    "metadata": ("metadata:\n  name: mvae\n", "metadata:\n  nmae: mvae\n", "nmae"),
    "part": ("apiVersion: ray.io/v1\n", "apiVersion: ray.io/v2\n", "ray.io/v2"),
    "claim": ("accessModes: [", "accesModes: [", "accesModes"),
    "service": ("targetPort: http", "targtPort: http", "targtPort"),
    "deployment": ("    type: Recreate", "    type: Recreated", "Recreated"),
    "probe": ("readinessProbe:", "readynessProbe:", "readynessProbe"),
}
IMAGE_TYPOS = {
    "another ray": ("ray:2.60.0", "ray:2.61.0", "2.61.0"),
    "newest ray": ("ray:2.60.0-py311-gpu", "ray:latest", "ray:latest"),
    "folder": ("ray:users . /home/ray/mvae-suite", "ray:users . /home/ray/mvae", "mvae-suite"),
    "instruction": ("RUN pip", "RNU pip", "RNU"),
}
KUBERNETES_HEADER_TYPOS = {
    "resource": ("kubectl delete rayjob/mvae", "kubectl delete rayjob/mave", "rayjob/mave"),
    "file": ("kubectl apply -f cluster/kuberay.yaml", "kubectl apply -f cluster/kubray.yaml", "kubray.yaml"),
    "image": ("docker push example/mvae", "docker push example/mvea", "another image"),
    "order": ("#   kubectl apply -f cluster/kuberay.yaml\n", "", "opens with"),
}


def typos(path: Path, check: Callable[[str], None], found: dict[str, tuple[str, str, str]], name: str) -> list[Any]:
    return [pytest.param(path, check, *typo, id=f"{name}-{what}") for what, typo in found.items()]


def check_ray_header(text: str) -> None:
    check_header(text, THREE)


@pytest.mark.parametrize(
    ("path", "check", "right", "wrong", "said"),
    [
        *typos(GPU, check_ray_file, RAY_TYPOS, "gpu"),
        *typos(LOCAL, check_ray_file, LOCAL_TYPOS, "local"),
        *typos(LOCAL, check_ray_header, LOCAL_HEADER_TYPOS, "local-header"),
        *typos(GPU, check_ray_header, HEADER_TYPOS, "gpu-header"),
        *typos(kubernetes_file(), check_kubernetes_file, KUBERNETES_TYPOS, "kuberay"),
        *typos(kubernetes_file(), check_kubernetes_header, KUBERNETES_HEADER_TYPOS, "kuberay-header"),
        *typos(DOCKERFILE, check_image, IMAGE_TYPOS, "image"),
    ],
)
def test_a_typo_in_a_cluster_file_is_found(
    path: Path, check: Callable[[str], None], right: str, wrong: str, said: str
) -> None:
    damaged(path, check, right, wrong, said)


@known
@pytest.mark.parametrize(("right", "wrong", "said"), DEFINITION_TYPOS.values(), ids=DEFINITION_TYPOS)
def test_a_field_unknown_to_kuberay_is_found(right: str, wrong: str, said: str) -> None:
    damaged(kubernetes_file(), check_definition, right, wrong, said)


def damaged(path: Path, check: Callable[[str], None], right: str, wrong: str, said: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert right in text, f"{path.name} holds no {right!r} to damage"
    with pytest.raises(Wrong) as refusal:
        check(text.replace(right, wrong))
    assert said in str(refusal.value)


def test_the_heads_environment_is_the_one_in_the_file() -> None:
    assert environment(yaml.safe_load(GPU.read_text(encoding="utf-8"))) == {
        "RAY_ADDRESS": "auto",
        "RAY_AUTH_MODE": "token",
        "MVAE_STORAGE": "s3://example-mvae/sweeps",
        "MLFLOW_TRACKING_URI": "http://127.0.0.1:5000",
    }


def test_a_file_edited_for_one_or_two_machines_passes_every_check_and_its_head_trains() -> None:
    text = LOCAL.read_text(encoding="utf-8")
    assert text.count("ray start --head --port=6379 --num-cpus=0 ") == 1, "the header says: delete --num-cpus=0 below"
    two = text.replace("--port=6379 --num-cpus=0 ", "--port=6379 ").replace(
        "[192.168.1.11, 192.168.1.12]", "[192.168.1.11]"
    )
    two = two.replace("max_workers: 2", "max_workers: 1")
    check_ray_file(two)
    check_ray_file(two.replace("[192.168.1.11]", "[]").replace("max_workers: 1", "max_workers: 0"))


@pytest.mark.parametrize(("version", "accepted"), [((3, 10, 14), False), ((3, 11, 0), True), ((3, 13, 2), True)])
def test_your_own_machines_may_have_any_python_that_the_project_supports(
    version: tuple[int, int, int], accepted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = next(
        one for one in yaml.safe_load(LOCAL.read_text(encoding="utf-8"))["setup_commands"] if "python -c" in one
    )
    [[python, dash, code]] = calls(asked)
    assert (python, dash, project()["requires-python"]) == ("python", "-c", ">=3.11")
    monkeypatch.setattr(sys, "version_info", version)
    with pytest.raises(SystemExit) as ended:
        exec(code, {})
    assert ended.value.code is False if accepted else "Python 3.11 or newer is needed" in str(ended.value.code)


@pytest.mark.parametrize(("patch", "joins"), [("3.12.1", True), ("3.12.9", True), ("3.13.1", False)])
def test_a_machine_joins_if_its_python_has_the_minor_version_of_the_head(
    patch: str, joins: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    [level] = re.findall(r"RAY_DEFAULT_PYTHON_VERSION_MATCH_LEVEL=(\w+)", LOCAL.read_text(encoding="utf-8"))
    monkeypatch.setenv("RAY_DEFAULT_PYTHON_VERSION_MATCH_LEVEL", level)
    with nullcontext() if joins else pytest.raises(RuntimeError, match="Version mismatch"):
        join_with_python(patch, "3.12.1")


def test_the_gpu_hours_in_the_file_follow_from_the_measured_speed() -> None:
    """Models without a measured speed count as the MVAE, whose steps are the slowest of the measured models."""
    text = GPU.read_text(encoding="utf-8")
    measured = json.loads((REPOSITORY / "benchmarks/results/gpu-h200.json").read_text(encoding="utf-8"))
    speed = {model: measured["throughput"][f"{model} fashion_mnist dcgan"]["graphed"] for model in ("mvae", "nn")}
    options = read(weak_supervision.Options, ["--dataset", "fashion_mnist", "--preset", "paper"])
    trials = {cell.trial for cell in weak_supervision.cells(options)}
    on_the_gpu = [trial for trial in trials if trial.model != "logreg"]
    examples = 60_000  # images of FashionMNIST
    seconds = sum(trial.epochs * examples / speed.get(trial.model, speed["mvae"]) for trial in on_the_gpu)
    assert f"trains {len(trials)} models. That is about {seconds / 3600:.0f} GPU-hours on one H200" in text


def test_requirements_are_separated_from_the_other_words_of_a_command() -> None:
    command = "test -x p || X=1 uv pip install --python ~/p 'ray[tune]==2.60.0' -e ~/mvae-suite boto3 && ray stop"
    assert [installed(call) for call in calls(command)] == [[], ["ray[tune]==2.60.0", "boto3"], []]
