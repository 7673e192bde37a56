"""The clusters of docker/: what compose, `ray up` and KubeRay read, checked without any of them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

DOCKER = Path(__file__).parent.parent / "docker"
PINS = dict(line.split("==") for line in (DOCKER.parent / "constraints.txt").read_text().split())
ENTRYPOINT = (DOCKER / "entrypoint.sh").read_text()


def load(name: str) -> Any:
    return yaml.safe_load((DOCKER / name).read_text())


COMPOSE, GPU = load("compose.yaml"), load("compose.gpu.yaml")
RAY_UP = load("ray-cluster.yaml")
CLUSTER, JOB, STORAGE = (load(f"kuberay/{name}.yaml") for name in ("raycluster", "rayjob", "storage"))
SPECS = [CLUSTER["spec"], JOB["spec"]["rayClusterSpec"]]


# --- compose


def test_what_the_services_of_compose_refer_to_exists() -> None:
    for service in COMPOSE["services"].values():
        assert {volume.split(":")[0] for volume in service["volumes"]} == COMPOSE["volumes"].keys()
        assert set(service["networks"]) == COMPOSE["networks"].keys()
        assert set(service["secrets"]) == COMPOSE["secrets"].keys()
        assert service.get("depends_on", {}).keys() <= COMPOSE["services"].keys()
        assert (DOCKER / service["build"]["context"] / service["build"]["dockerfile"]).exists()
        assert service["command"][0] in ("head", "worker") and f"  {service['command'][0]})" in ENTRYPOINT


def test_compose_publishes_the_job_server_to_its_own_host_alone() -> None:
    published = [port for service in COMPOSE["services"].values() for port in service.get("ports", [])]
    assert published == ["127.0.0.1:8265:8265"] and "--dashboard-port=8265" in ENTRYPOINT
    assert not any("ports" in service or "network_mode" in service for service in GPU["services"].values())


def test_compose_gives_every_node_the_token_as_a_file() -> None:
    for service in COMPOSE["services"].values():
        assert service["environment"]["RAY_AUTH_MODE"] == "token"
        assert service["environment"]["RAY_AUTH_TOKEN_PATH"] == f"/run/secrets/{service['secrets'][0]}"
    assert COMPOSE["secrets"]["token"]["file"].endswith("${HOME}/.ray/auth_token}")


def test_containers_of_compose_are_limited_and_gain_nothing() -> None:
    for service in COMPOSE["services"].values():
        assert service["cap_drop"] == ["ALL"] and service["security_opt"] == ["no-new-privileges:true"]
        assert not {"privileged", "cap_add", "pid", "ipc", "devices", "user"} & service.keys()
        assert service["deploy"]["resources"]["limits"].keys() == {"cpus", "memory"}
        assert service["init"] is True and service["shm_size"]


def test_compose_waits_for_a_node_as_long_as_ray_does() -> None:
    for service in COMPOSE["services"].values():  # 30 s: RAY_JOB_STOP_WAIT_TIME_S, and Ray's own time to drain a node
        assert int(service["stop_grace_period"].removesuffix("s")) > 30
    for spec in SPECS:
        assert all(pod["terminationGracePeriodSeconds"] > 30 for pod, _ in pods(spec))


def test_workers_start_after_a_head_that_is_well_by_the_images_own_check() -> None:
    worker = COMPOSE["services"]["worker"]
    assert worker["depends_on"] == {"head": {"condition": "service_healthy"}}
    assert worker["environment"]["RAY_HEAD"] == "head" and "${RAY_HEAD:?" in ENTRYPOINT
    own = re.search(r"^HEALTHCHECK .*CMD \[(.*)\]$", (DOCKER / "Dockerfile").read_text(), re.MULTILINE)
    for service in COMPOSE["services"].values():
        assert own and service["healthcheck"]["test"] == ["CMD", *yaml.safe_load(f"[{own[1]}]")]


def test_with_gpus_all_nodes_have_the_cuda_image_and_one_worker_has_the_gpus() -> None:
    assert GPU["services"].keys() == COMPOSE["services"].keys()
    for service in GPU["services"].values():
        assert (service["image"], service["build"]) == ("hypertune:cuda", {"target": "cuda"})
    deploy = GPU["services"]["worker"]["deploy"]
    assert deploy["replicas"] == 1
    assert deploy["resources"]["reservations"]["devices"] == [
        {"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}
    ]


@pytest.mark.parametrize("files", [["compose.yaml"], ["compose.yaml", "compose.gpu.yaml"]], ids=len)
def test_docker_compose_itself_takes_the_files(files: list[str], tmp_path: Path) -> None:
    docker = shutil.which("docker")
    if not docker or subprocess.run([docker, "compose", "version"], capture_output=True).returncode:
        pytest.skip("docker compose is not there; the structure was checked without it")
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray/auth_token").write_text("x")
    command = [docker, "compose", *(word for name in files for word in ("--file", DOCKER / name)), "config", "--quiet"]
    subprocess.run(command, check=True, env={**os.environ, "HOME": str(tmp_path)})


# --- ray up


def test_ray_up_takes_the_cluster_by_its_own_schema_and_rules() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(RAY_UP))


def test_the_head_of_ray_up_has_no_trials_and_its_workers_come_and_go() -> None:
    head, gpu = (RAY_UP["available_node_types"][name] for name in ("head", "gpu"))
    assert RAY_UP["head_node_type"] == "head" and head["resources"] == {"CPU": 0}
    assert gpu["min_workers"] == 0 < gpu["max_workers"] == RAY_UP["max_workers"]
    assert gpu["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert RAY_UP["idle_timeout_minutes"] > 0 and RAY_UP["provider"]["cache_stopped_nodes"] is False


def test_ray_up_opens_no_port_and_takes_rights_from_roles() -> None:
    assert "security_group" not in RAY_UP["provider"]
    for kind in RAY_UP["available_node_types"].values():
        assert kind["node_config"]["SecurityGroupIds"] and kind["node_config"]["KeyName"]
        assert kind["node_config"]["MetadataOptions"] == {"HttpTokens": "required"}
    roles = {kind["node_config"]["IamInstanceProfile"]["Name"] for kind in RAY_UP["available_node_types"].values()}
    assert len(roles) == 2
    assert "--dashboard-host=127.0.0.1" in RAY_UP["head_start_ray_commands"][1]


def test_the_token_of_ray_up_ends_where_ray_looks_closed_to_others() -> None:
    assert "--env RAY_AUTH_MODE=token" in RAY_UP["docker"]["run_options"]
    (remote,) = RAY_UP["file_mounts"]
    assert f"install -m 0600 {remote}/auth_token ~/.ray/auth_token" in RAY_UP["setup_commands"][0]


# --- KubeRay


def pods(spec: dict[str, Any]) -> Iterator[tuple[dict[str, Any], dict[str, str]]]:
    """Every pod of a cluster, and the options that its `ray start` gets."""
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        yield group["template"]["spec"], group["rayStartParams"]


def test_manifests_name_the_kinds_that_they_are() -> None:
    kinds = [(text["apiVersion"], text["kind"]) for text in (CLUSTER, JOB, STORAGE)]
    assert kinds == [("ray.io/v1", "RayCluster"), ("ray.io/v1", "RayJob"), ("v1", "PersistentVolumeClaim")]
    assert STORAGE["spec"]["accessModes"] == ["ReadWriteMany"]


def test_the_operator_starts_the_ray_that_the_images_hold_with_a_token() -> None:
    for spec in SPECS:
        assert spec["rayVersion"] == PINS["ray"]
        assert spec["authOptions"] == {"mode": "token", "secretName": "hypertune-token"}


def test_the_cluster_of_a_search_is_that_which_stays_and_the_spaces() -> None:
    alone = load("kuberay/rayjob.yaml")["spec"]["rayClusterSpec"]
    head = alone["headGroupSpec"]["template"]["spec"]
    assert head["volumes"].pop() == {"name": "spaces", "configMap": {"name": "hypertune-space"}}
    assert head["containers"][0]["volumeMounts"].pop() == {"name": "spaces", "mountPath": "/spaces", "readOnly": True}
    assert alone == CLUSTER["spec"]


def test_every_mount_of_a_pod_has_its_volume_and_every_node_the_results() -> None:
    for pod, _ in (pair for spec in SPECS for pair in pods(spec)):
        (container,) = pod["containers"]
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        assert set(mounts.values()) == volumes.keys()
        assert volumes[mounts["/results"]]["persistentVolumeClaim"]["claimName"] == STORAGE["metadata"]["name"]
        assert "emptyDir" in volumes[mounts["/var/cache/hypertune"]]


def test_pods_run_as_the_images_user_and_may_do_nothing_else() -> None:
    uid = int(re.findall(r"^ARG UID=(\d+)$", (DOCKER / "Dockerfile").read_text(), re.MULTILINE)[0])
    for spec in SPECS:
        for pod, _ in pods(spec):
            assert pod["securityContext"]["runAsNonRoot"] is True and pod["securityContext"]["runAsUser"] == uid
            assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
            closed = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
            assert pod["containers"][0]["securityContext"] == closed
        assert spec["autoscalerOptions"]["securityContext"] == closed
        assert spec["workerGroupSpecs"][0]["template"]["spec"]["automountServiceAccountToken"] is False


def test_ray_counts_the_gpus_that_kubernetes_gives_and_the_head_has_no_trials() -> None:
    for spec in SPECS:
        for pod, given in pods(spec):
            resources = pod["containers"][0]["resources"]
            assert resources["limits"] == resources["requests"]
            assert resources["limits"].get("nvidia.com/gpu", "0") == given["num-gpus"]
        assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
        assert spec["workerGroupSpecs"][0]["rayStartParams"].get("num-cpus") is None


def test_a_cluster_on_kubernetes_grows_and_shrinks() -> None:
    for spec in SPECS:
        assert spec["enableInTreeAutoscaling"] is True and spec["autoscalerOptions"]["idleTimeoutSeconds"] > 0
        assert spec["workerGroupSpecs"][0]["minReplicas"] == 0 < spec["workerGroupSpecs"][0]["maxReplicas"]
        assert spec["headGroupSpec"]["serviceType"] == "ClusterIP"


def test_a_search_on_kubernetes_goes_on_at_a_retry_and_cleans_up() -> None:
    spec = JOB["spec"]
    assert spec["entrypoint"].startswith("exec hypertune run /spaces/space.yaml --address auto ")
    assert "--out /results" in spec["entrypoint"] and spec["entrypoint"].endswith(" --resume-if-exists")
    assert spec["backoffLimit"] > 0 and spec["shutdownAfterJobFinishes"] is True and spec["ttlSecondsAfterFinished"] > 0
    assert spec["submissionMode"] == "HTTPMode"


def test_kubectl_reads_the_manifests_and_makes_the_secret_that_they_name(tmp_path: Path) -> None:
    kubectl = shutil.which("kubectl")
    if not kubectl:
        pytest.skip("kubectl is not there; the structure was checked without it")
    names = [path.name for path in sorted((DOCKER / "kuberay").iterdir())]
    for name in names:
        shutil.copy(DOCKER / "kuberay" / name, tmp_path)
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump({"resources": names}))
    read = subprocess.run([kubectl, "kustomize", tmp_path], capture_output=True, text=True, check=True)
    assert sorted(text["kind"] for text in yaml.safe_load_all(read.stdout)) == [
        "PersistentVolumeClaim", "RayCluster", "RayJob",
    ]  # fmt: skip
    (line,) = re.findall(r"^kubectl (create secret .*)$", (DOCKER / "README.md").read_text(), re.MULTILINE)
    (tmp_path / "auth_token").write_text("abc")
    command = [kubectl, *line.split(), "--dry-run=client", "--output=yaml"]
    secret = yaml.safe_load(subprocess.run(command, capture_output=True, cwd=tmp_path, check=True).stdout)
    assert secret["metadata"]["name"] == SPECS[0]["authOptions"]["secretName"]
    assert secret["data"] == {"auth_token": "YWJj"}
