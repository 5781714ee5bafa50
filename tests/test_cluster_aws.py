"""Checks cluster/gpu.yaml with Ray's own AWS code against moto's EC2 and IAM, without network traffic.

The file's opening comment lists commands to type once per account. The tests run these commands first.
"""

from __future__ import annotations

import fnmatch
import importlib
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from tests.cluster_checks import environment
from tests.command_checks import REPOSITORY, script_in_header

# The module takes 7 s, of which the launch takes 4.5 s.
boto3 = pytest.importorskip("boto3")
moto = pytest.importorskip("moto")

MANAGED = {"iam": {"load_aws_managed_policies": True}}  # so that moto checks the names of AWS's own policies
GPU = REPOSITORY / "cluster/gpu.yaml"


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A moto AWS account in which the header's commands have been run, with its own home directory."""
    from ray.autoscaler._private.aws import utils

    home = tmp_path_factory.mktemp("home")
    keys = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "us-west-2"}
    with pytest.MonkeyPatch.context() as patched, moto.mock_aws(config=MANAGED):
        for name, value in {"HOME": str(home), **keys}.items():
            patched.setenv(name, value)
        for cached in (utils.resource_cache, utils.client_cache):
            cached.cache_clear()
        for call in typed(script_in_header(GPU.read_text(encoding="utf-8"), "bucket=")):
            perform(call)
        yield home
        for cached in (utils.resource_cache, utils.client_cache):
            cached.cache_clear()


def typed(script: str) -> list[list[str]]:
    """Calls of `aws` in a script, as bash passes them."""
    recording = "aws() { printf '%s\\0' \"$@\"; printf '\\n\\0'; }\nset -e\n" + script
    ran = subprocess.run(["bash", "-c", recording], capture_output=True, encoding="utf-8", check=True, timeout=60)
    return [[word for word in call.split("\0") if word] for call in ran.stdout.split("\n\0") if call]


def perform(call: list[str]) -> None:
    """Runs an `aws` command line as one call of boto3's client, which botocore checks."""
    service, operation, *words = call
    if (service, operation) == ("s3", "mb"):
        bucket, flag, region = words
        assert bucket.startswith("s3://") and flag == "--region"
        place = {"LocationConstraint": region}
        boto3.client("s3", region_name=region).create_bucket(Bucket=bucket[5:], CreateBucketConfiguration=place)
        return
    assert all(flag.startswith("--") for flag in words[::2]) and len(words) % 2 == 0, call
    arguments: dict[str, Any] = {
        "".join(part.capitalize() for part in flag[2:].split("-")): value
        for flag, value in zip(words[::2], words[1::2], strict=True)
    }
    region = arguments.pop("Region", None)
    parsed = {name: json.loads(value) if value.startswith("[") else value for name, value in arguments.items()}
    getattr(boto3.client(service, region_name=region), operation.replace("-", "_"))(**parsed)


class Updater:
    """Replaces Ray's thread that sets up a machine over ssh; records its arguments."""

    told: list[dict[str, Any]]
    exitcode = 0

    def __init__(self, **told: Any) -> None:
        Updater.told.append(told)

    def start(self) -> None:
        pass

    def join(self) -> None:
        pass


@pytest.fixture(scope="module")
def launched(account: Path, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Machines that `ray up -y cluster/gpu.yaml` launches, and one worker that the autoscaler adds."""
    from ray.autoscaler._private import commands
    from ray.autoscaler._private.aws.node_provider import AWSNodeProvider

    clone = tmp_path_factory.mktemp("clone")  # holds only the cluster file, because Ray reads all files for a checksum
    (clone / "cluster").mkdir()
    shutil.copy(GPU, clone / "cluster")
    Updater.told = []
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(clone)
        patched.setattr(commands, "NodeUpdaterThread", Updater)
        commands.create_or_update_cluster(
            config_file="cluster/gpu.yaml",
            override_min_workers=None,
            override_max_workers=None,
            no_restart=False,
            restart_only=False,
            yes=True,
            override_cluster_name=None,
            no_config_cache=True,
            redirect_command_output=None,
            use_login_shells=True,
        )
        [told] = Updater.told
        asked = recorded(patched)
        # The head's autoscaler works from the file that it receives.
        mounted = yaml.safe_load(Path(told["file_mounts"]["~/ray_bootstrap_config.yaml"]).read_text(encoding="utf-8"))
        worker = mounted["available_node_types"]["worker"]
        make: Any = AWSNodeProvider
        provider = make(mounted["provider"], mounted["cluster_name"])
        tags = {"ray-node-type": "worker", "ray-user-node-type": "worker", "ray-launch-config": "0"}
        for name in ("w", "idle"):
            named = {**tags, "ray-node-name": name}
            provider.create_node_with_resources_and_labels(worker["node_config"], named, 1, worker["resources"], {})
        [idle] = list(provider.non_terminated_nodes({"ray-node-name": "idle"}))
        provider.terminate_nodes([idle])
    instances = {
        next(tag["Value"] for tag in one["Tags"] if tag["Key"] == "ray-user-node-type"): one
        for page in boto3.client("ec2").describe_instances()["Reservations"]
        for one in page["Instances"]
        if one["State"]["Name"] == "running"
    }
    return SimpleNamespace(told=told, mounted=mounted, instances=instances, home=account, asked=asked)


def recorded(patched: pytest.MonkeyPatch) -> set[str]:
    """Returns a set that gets the names of all later AWS calls, as IAM spells them."""
    client: Any = importlib.import_module("botocore.client").BaseClient
    asked, call = set[str](), client._make_api_call

    def make(self: Any, operation: str, arguments: dict[str, Any]) -> Any:
        asked.add(f"{self.meta.service_model.service_name}:{operation}")
        return call(self, operation, arguments)

    patched.setattr(client, "_make_api_call", make)
    return asked


def test_an_on_demand_head_and_a_spot_worker_are_launched(launched: SimpleNamespace) -> None:
    assert set(launched.instances) == {"head", "worker"}
    head, worker = launched.instances["head"], launched.instances["worker"]
    assert "InstanceLifecycle" not in head
    assert worker["InstanceLifecycle"] == "spot"
    assert [head["InstanceType"], worker["InstanceType"]] == ["m7i.large", "g6.2xlarge"]


def test_head_and_worker_have_the_instance_profiles_created_by_the_header(launched: SimpleNamespace) -> None:
    for role in ("head", "worker"):
        arn = launched.instances[role]["IamInstanceProfile"]["Arn"]
        assert arn.endswith(f":instance-profile/mvae-{role}")
        profile = boto3.client("iam").get_instance_profile(InstanceProfileName=f"mvae-{role}")["InstanceProfile"]
        assert [one["RoleName"] for one in profile["Roles"]] == [f"mvae-{role}"]


def policy(role: str, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = boto3.client("iam").get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"][
        "Statement"
    ]
    return found


def test_both_reach_only_their_bucket_and_no_other_right_is_attached(account: Path) -> None:
    iam = boto3.client("iam")
    storage = environment(yaml.safe_load(GPU.read_text(encoding="utf-8")))["MVAE_STORAGE"]
    bucket = storage.removeprefix("s3://").partition("/")[0]
    assert bucket in [one["Name"] for one in boto3.client("s3").list_buckets()["Buckets"]]
    for role, names in {"mvae-head": ["start", "store"], "mvae-worker": ["store"]}.items():
        store = policy(role, "store")
        assert [one["Resource"] for one in store] == [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"]
        assert not [action for one in store for action in one["Action"] if "*" in action]
        assert sorted(iam.list_role_policies(RoleName=role)["PolicyNames"]) == names
        assert not iam.list_attached_role_policies(RoleName=role)["AttachedPolicies"]


def test_the_head_may_do_what_rays_autoscaler_asks_and_end_only_machines_of_its_cluster(
    launched: SimpleNamespace,
) -> None:
    start = policy("mvae-head", "start")
    granted = [
        (action, one) for one in start for action in ([one["Action"]] * isinstance(one["Action"], str) or one["Action"])
    ]
    assert {"ec2:RunInstances", "ec2:TerminateInstances", "ec2:DescribeInstances"} <= launched.asked
    for asked in launched.asked:
        assert [action for action, _ in granted if fnmatch.fnmatchcase(asked, action)], asked
    [ends] = [one for action, one in granted if action == "ec2:TerminateInstances"]
    tags = ends["Condition"]["StringEquals"]
    assert tags == {"aws:ResourceTag/ray-cluster-name": launched.mounted["cluster_name"]}
    for instance in launched.instances.values():
        assert {"Key": "ray-cluster-name", "Value": launched.mounted["cluster_name"]} in instance["Tags"]
    assert [one["Resource"] for action, one in granted if action == "iam:PassRole"] == [
        "arn:aws:iam::*:role/mvae-worker"
    ]


def test_both_have_rays_key_and_the_security_group_that_connects_them(launched: SimpleNamespace) -> None:
    keys = {one["KeyName"] for one in launched.instances.values()}
    assert keys == {"ray-autoscaler_us-west-2"}
    assert (launched.home / ".ssh" / "ray-autoscaler_us-west-2.pem").stat().st_mode & 0o777 == 0o600
    groups = {group["GroupId"] for one in launched.instances.values() for group in one["SecurityGroups"]}
    assert len(groups) == 1
    [group] = boto3.client("ec2").describe_security_groups(GroupIds=list(groups))["SecurityGroups"]
    rules = {(rule["IpProtocol"], rule.get("FromPort")): rule for rule in group["IpPermissions"]}
    [inside] = [rule for (protocol, _), rule in rules.items() if protocol == "-1"]
    assert [pair["GroupId"] for pair in inside["UserIdGroupPairs"]] == list(groups)
    assert [one["CidrIp"] for one in rules["tcp", 22]["IpRanges"]] == ["203.0.113.7/32"], "only the header's `me`"
    assert len(group["IpPermissions"]) == 2


def test_each_machine_has_exactly_one_large_disk(launched: SimpleNamespace) -> None:
    volumes = boto3.client("ec2").describe_volumes()["Volumes"]
    attached = {
        (volume["Attachments"][0]["InstanceId"], volume["Size"], volume["VolumeType"])
        for volume in volumes
        if volume["Attachments"]
    }
    assert attached == {(one["InstanceId"], 150, "gp3") for one in launched.instances.values()}


def test_ray_sees_no_cpu_on_the_head_and_one_gpu_on_a_worker(launched: SimpleNamespace) -> None:
    assert launched.told["node_resources"] == {"CPU": 0}
    resources = launched.mounted["available_node_types"]["worker"]["resources"]
    assert (resources["CPU"], resources["GPU"], resources["accelerator_type:L4"]) == (8, 1, 1)


def test_the_head_has_the_commands_that_set_up_a_worker(launched: SimpleNamespace) -> None:
    mounted = launched.mounted
    assert mounted["file_mounts"]["~/mvae-suite"] == "~/mvae-suite"
    assert mounted["auth"]["ssh_private_key"] == "~/ray_bootstrap_key.pem"
    assert mounted["cluster_synced_files"] == ["~/.ray/auth_token"]
    assert (mounted["available_node_types"]["worker"]["min_workers"], mounted["max_workers"]) == (0, 4)
    assert mounted["worker_setup_commands"] == yaml.safe_load(GPU.read_text(encoding="utf-8"))["setup_commands"]
    assert mounted["provider"]["cache_stopped_nodes"] is False


def test_no_default_set_up_command_of_ray_remains(launched: SimpleNamespace) -> None:
    """Ray's default set-up commands for AWS would install a nightly build."""
    asked = json.dumps([launched.told["setup_commands"], launched.told["ray_start_commands"], launched.mounted])
    assert "ray-wheels" not in asked
    assert "anaconda3" not in asked


def test_an_account_without_the_instance_profiles_cannot_launch(launched: SimpleNamespace) -> None:
    """Without the header's commands moto refuses to launch, as EC2 does."""
    node = launched.mounted["available_node_types"]["worker"]["node_config"]
    call = {key: value for key, value in node.items() if key != "SubnetIds"}
    call["IamInstanceProfile"] = {"Name": "mvae-wroker"}
    ec2 = boto3.client("ec2")
    with pytest.raises(ec2.exceptions.ClientError, match=r"NoSuchEntity|Invalid IAM Instance Profile"):
        ec2.run_instances(**call, MinCount=1, MaxCount=1)
