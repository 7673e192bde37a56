"""The files of docker/: nothing here builds or starts a container; what can be checked without one is checked."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from tuner.cli import app

ROOT = Path(__file__).parent.parent
DOCKER = ROOT / "docker"
DOCKERFILE = (DOCKER / "Dockerfile").read_text()
README = (DOCKER / "README.md").read_text()
SBATCH = DOCKER / "slurm/hypertune.sbatch"
ENTRYPOINT = DOCKER / "entrypoint.sh"
TEXTS = sorted(path for path in DOCKER.rglob("*") if path.is_file())
PINS = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split())
UID, STORE = 1000, 100 * 1024 * 1024


def load(name: str) -> Any:
    return yaml.safe_load((DOCKER / name).read_text())


def tool(name: str) -> str:
    path = Path(sys.executable).parent / name
    if not path.exists():
        pytest.skip(f"{path} is not there: make test installs it")
    return str(path)


def joined(path: Path) -> str:
    """A file's text with continued lines on one line."""
    return re.sub(r"\\\n\s*", "", path.read_text())


def plain(package: str) -> str:
    return re.sub(r"[-_.]+", "-", package).lower()


# --- the Dockerfile


def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    done = subprocess.run([tool("hadolint"), "--no-color", DOCKER / "Dockerfile"], capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("", 0)


def copied() -> list[str]:
    lines = re.findall(r"^COPY (?!.*--from)(.+)$", DOCKERFILE, re.MULTILINE)
    return [word for line in lines for word in line.split()[:-1] if not word.startswith("--")]


def test_what_the_dockerfile_copies_exists_and_reaches_the_builder() -> None:
    rules = [line for line in (DOCKER / "Dockerfile.dockerignore").read_text().splitlines() if line[0] != "#"]
    assert rules[0] == "*"
    assert copied() and all((ROOT / name).exists() for name in copied())
    assert {rule[1:] for rule in rules if rule[0] == "!"} == set(copied())
    assert not any(fnmatch(".git/config", rule[1:]) for rule in rules if rule[0] == "!")


def test_the_dockerfile_lists_torch_and_only_packages_that_are_pinned(tmp_path: Path) -> None:
    run = re.search(r"^RUN (grep .*? packages\.txt)$", joined(DOCKER / "Dockerfile"), re.MULTILINE)
    assert run
    for name in ("constraints.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    subprocess.run(["bash", "-c", run[1]], cwd=tmp_path, check=True, env={**os.environ, "PATH": path})
    assert (tmp_path / "torch.txt").read_text().split() == [f"{n}=={PINS[n]}" for n in ("torch", "torchvision")]
    wanted = (tmp_path / "packages.txt").read_text().splitlines()
    assert {"boto3", "ray[default]>=2.55,<3", "torch>=2.11,<3"} <= set(wanted)
    names = {re.split(r"[\[<>=]", line)[0] for line in wanted}
    assert {plain(name) for name in names} <= {plain(name) for name in PINS}


@pytest.mark.parametrize("target", ["cpu", "cuda"])
def test_an_image_runs_as_a_fixed_user_and_gets_the_code_last(target: str) -> None:
    stage = DOCKERFILE.split(f" AS {target}\n")[1].split("\nFROM ")[0]
    steps = re.findall(r"^(?:RUN|USER|COPY) .*", stage, re.MULTILINE)
    order = [
        next(n for n, step in enumerate(steps) if word in step) for word in ("torch.txt", "packages.txt", "/wheels")
    ]
    assert order == sorted(order) and steps[-1] == "USER ${UID}"
    assert f"ARG UID={UID}\n" in DOCKERFILE


def test_base_images_are_pinned_and_start_the_entrypoint_in_exec_form() -> None:
    version = re.findall(r"^ARG PYTHON=(.+)$", DOCKERFILE, re.MULTILINE)
    assert len(version) == 1 and re.fullmatch(r"3\.1[12]\.\d+-slim-[a-z]+", version[0])
    bases = set(re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE))
    assert bases == {"python:${PYTHON}", "base"}
    assert 'ENTRYPOINT ["entrypoint.sh"]\n' in DOCKERFILE and "STOPSIGNAL SIGTERM\n" in DOCKERFILE


def test_no_file_holds_a_secret_or_opens_the_host() -> None:
    for path in TEXTS:
        text = path.read_text()
        assert not re.search(r"AKIA|BEGIN [A-Z ]*PRIVATE KEY|\b[0-9a-f]{40,}\b", text), path
        assert not re.search(r"RAY_AUTH_TOKEN(=|: )|privileged: true|hostNetwork|hostPath", text), path


def test_a_stopped_job_has_time_to_end_its_epochs_in_every_place() -> None:
    assert "RAY_JOB_STOP_WAIT_TIME_S=30 " in DOCKERFILE
    environment = yaml.safe_load(load("kuberay/rayjob.yaml")["spec"]["runtimeEnvYAML"])
    assert environment == {"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "30"}}


# --- scripts


@pytest.mark.parametrize("path", [ENTRYPOINT, SBATCH], ids=lambda path: path.name)
def test_shellcheck_and_bash_find_nothing_in_a_script(path: Path) -> None:
    done = subprocess.run([tool("shellcheck"), path], capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("", 0)
    assert subprocess.run(["bash", "-n", path]).returncode == 0
    assert path.stat().st_mode & stat.S_IXUSR or path == SBATCH


@pytest.fixture
def stand_ins(tmp_path: Path) -> dict[str, str]:
    """An environment where ray and hypertune say what they were asked, and SLURM's commands do next to nothing."""
    scripts = {
        "ray": """[[ $1 == start && -n $SLURM_JOB_ID ]] && exec sleep 600; echo "ray $*" """,
        "hypertune": """trap 'kill %1; echo ended; exit 143' TERM
            echo "hypertune $*"; [[ -z $HANG ]] && exit 3; sleep 600 & wait""",
        "srun": 'while [[ $1 != ray ]]; do shift; done; exec "$@"',
        "scontrol": f'echo "$@" > {tmp_path}/requeued',
        "hostname": 'echo "127.0.0.1 "',
        "python": "exit 0",
    }
    for name, text in scripts.items():
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    (tmp_path / "token").write_text("secret")
    slurm = {"SLURM_JOB_ID": "", "SLURM_JOB_NUM_NODES": "2", "SLURM_CPUS_PER_TASK": "4", "SLURM_GPUS_ON_NODE": "2"}
    ray = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(tmp_path / "token"), "RAY_HEAD": "localhost"}
    path = f"{tmp_path}/bin:/usr/bin:/bin"
    return {"PATH": path, "HOME": str(tmp_path), "TMPDIR": str(tmp_path), "HANG": "", **ray, **slurm}


def enter(environment: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([ENTRYPOINT, *words], env=environment, capture_output=True, text=True)


def test_a_container_without_a_token_is_no_node(stand_ins: dict[str, str]) -> None:
    for change in ({"RAY_AUTH_MODE": "disabled"}, {"RAY_AUTH_TOKEN_PATH": "/nowhere"}, {"RAY_AUTH_TOKEN_PATH": ""}):
        for role in ("head", "worker"):
            done = enter(stand_ins | change, role)
            assert done.returncode == 2 and "token" in done.stderr and not done.stdout


def test_a_head_takes_no_trials_and_is_asked_for_its_health(stand_ins: dict[str, str]) -> None:
    nobody = enter(stand_ins, "health")
    assert (nobody.returncode, nobody.stdout) == (0, "")
    assert {"--head", "--block", "--num-cpus=0", "--num-gpus=0"} <= set(enter(stand_ins, "head").stdout.split())
    assert enter(stand_ins, "health").stdout == "ray health-check --address 127.0.0.1:6379\n"


def test_a_worker_joins_the_head_by_its_name_and_asks_it_for_health(stand_ins: dict[str, str]) -> None:
    assert "--address=127.0.0.1:6379" in enter(stand_ins, "worker").stdout.split()
    assert enter(stand_ins, "health").stdout == "ray health-check --address 127.0.0.1:6379\n"
    lost = enter(stand_ins | {"RAY_HEAD": "no-such-host.invalid"}, "worker")
    assert lost.returncode == 2 and "no-such-host.invalid" in lost.stderr


def test_anything_else_is_a_hypertune_command_but_not_a_shell(stand_ins: dict[str, str]) -> None:
    assert enter(stand_ins, "jobs", "--json").stdout == "hypertune jobs --json\n"
    assert enter(stand_ins, "bash", "-c", "echo shell").stdout == "shell\n"
    assert enter(stand_ins, "ray", "status").stdout == "ray status\n"


@contextmanager
def begin(environment: dict[str, str], out: Path, **change: str) -> Iterator[subprocess.Popen[str]]:
    """The batch script in a process group of its own, of which nothing is left afterwards."""
    command: list[str | Path] = ["bash", SBATCH, "my.yaml", out]
    env = environment | {"SLURM_JOB_ID": "7", **change}
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True, start_new_session=True) as job:
        try:
            yield job
        finally:
            with suppress(ProcessLookupError):
                os.killpg(job.pid, signal.SIGKILL)


@pytest.mark.parametrize(("number", "requeued"), [(signal.SIGUSR1, True), (signal.SIGTERM, False)])
def test_a_search_on_slurm_ends_well_and_is_requeued_at_its_time_limit(
    stand_ins: dict[str, str], tmp_path: Path, number: signal.Signals, requeued: bool
) -> None:
    with begin(stand_ins, tmp_path / "out", HANG="yes") as job:
        assert job.stdout
        assert (
            job.stdout.readline() == f"hypertune run my.yaml --address auto --out {tmp_path}/out --resume-if-exists\n"
        )
        token = tmp_path / "out/.token-7"
        assert stat.S_IMODE(token.stat().st_mode) == 0o600 and re.fullmatch(r"[0-9a-f]{64}", token.read_text())
        job.send_signal(number)
        assert job.communicate(timeout=60)[0] == "ended\n"
    assert job.returncode == 143 and not token.exists()
    assert (tmp_path / "requeued").exists() == requeued


def test_a_search_on_slurm_that_fails_is_not_requeued(stand_ins: dict[str, str], tmp_path: Path) -> None:
    with begin(stand_ins, tmp_path / "out") as job:
        job.communicate(timeout=60)
    assert job.returncode == 3 and not (tmp_path / "requeued").exists()


def test_slurm_gives_the_search_more_time_to_end_than_it_takes() -> None:
    assert int(re.findall(r"^#SBATCH --signal=B:USR1@(\d+)$", SBATCH.read_text(), re.MULTILINE)[0]) >= 20 + 30 + 10


# --- commands


def our_commands() -> Iterator[tuple[str, str]]:
    names = "|".join(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    for path in TEXTS:
        for words in re.findall(rf"(?<![\w./-])hypertune(?::cpu|:cuda)? ((?:{names})\b[^`\n&;]*)", path.read_text()):
            if " " in words.strip():  # a bare name is prose
                yield path.name, re.split(r"\s{2,}", words.strip())[0]


@pytest.mark.parametrize(("where", "words"), sorted(set(our_commands())))
def test_every_hypertune_command_is_one_that_our_own_parser_takes(where: str, words: str) -> None:
    name, *rest = shlex.split(words)
    assert typer.main.get_command(app).commands[name].make_context(name, rest)  # type: ignore[attr-defined]


def test_the_commands_are_found_in_every_place() -> None:
    found = {where for where, _ in our_commands()}
    assert {"README.md", "ray-cluster.yaml", "rayjob.yaml", "hypertune.sbatch"} <= found


def ray_starts() -> Iterator[tuple[str, list[str]]]:
    """Where, and the options of every `ray start` in docker/, with a 1 for every variable."""
    for path in (ENTRYPOINT, DOCKER / "ray-cluster.yaml", SBATCH):
        text = joined(path).replace("$STORE", str(STORE))
        text = re.sub(r"\$\{\w+:-\d+\}|\$\w+", "1", text.replace(' "${@:2}"', "").replace(' "${@:3}"', ""))
        for options in re.findall(r"^ *(?:exec |- )?(?:srun .*)?ray start (--.*?)(?: &)?$", text, re.MULTILINE):
            yield path.name, shlex.split(options)
        for options in re.findall(r"^ *start_nodes (?:1|\$\(\(.*\)\)) \S+ (--.*)$", text, re.MULTILINE):
            yield path.name, shlex.split(options)
    spec = load("kuberay/raycluster.yaml")["spec"]
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        yield "raycluster.yaml", [f"--{name}={value}" for name, value in group["rayStartParams"].items()]


def test_every_option_of_ray_start_is_one_that_rays_own_parser_takes() -> None:
    from ray.scripts.scripts import start

    starts = list(ray_starts())
    assert [where for where, _ in starts].count("hypertune.sbatch") == 3
    places = {"entrypoint.sh", "ray-cluster.yaml", "raycluster.yaml", "hypertune.sbatch"}
    assert {where for where, _ in starts} == places
    for where, options in starts:
        given = start.make_context("start", options).params
        if given["head"]:
            assert given["port"] == 6379, where
            assert given["num_cpus"] == 0 or where == "hypertune.sbatch"
        elif where != "raycluster.yaml":
            assert given["port"] is given["include_dashboard"] is None, f"{where}: options of a head alone"
        if where in ("entrypoint.sh", "ray-cluster.yaml") and given["head"]:
            assert given["dashboard_port"] == 8265


def test_every_node_gives_rays_store_the_same_little_memory() -> None:
    stores = [
        option.split("=")[1]
        for _, options in ray_starts()
        for option in options
        if option.startswith("--object-store-memory")
    ]
    assert "STORE=$((100 * 1024 * 1024))\n" in ENTRYPOINT.read_text()
    assert len(stores) == 7 and set(stores) == {str(STORE)}


def test_the_readme_calls_commands_of_ray_that_exist() -> None:
    from ray.scripts.scripts import cli

    lines = re.findall(r"^(?:.*&& )?ray ([a-z-]+)((?: [^&>\s]+)*)", README, re.MULTILINE)
    assert {name for name, _ in lines} == {"get-auth-token", "up", "dashboard", "down"}
    for name, words in lines:
        assert cli.commands[name].make_context(name, shlex.split(words))
    assert all((ROOT / name).exists() for name in re.findall(r"\bdocker/[\w./-]+\w", README))


def test_the_readme_tells_of_every_file_and_links_to_what_is_there() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert links and all((DOCKER / name).exists() for name in links)
    assert {path.relative_to(DOCKER).parts[0] for path in TEXTS} <= {*links, "README.md", "slurm"}
