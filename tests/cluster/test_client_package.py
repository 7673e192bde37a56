"""What is sent to a cluster: the space, the code beside it, hypertune; no secrets, images or results."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tuner.cluster import package as sending
from tuner.cluster.package import MB, gather, missing_modules, shown, write_zip
from tuner.cluster.submitting import check_out, make_order, pins
from tuner.errors import BadInput

SPACE = "name: one\ndata:\n  dataset: digits\nsearch:\n  trials: 1\n"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    root.mkdir()
    (root / "one.yaml").write_text(SPACE)
    (root / "nets.py").write_text("def build(): ...\n")
    return root


def put(root: Path, name: str, size: int = 1) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    with (root / name).open("wb") as file:
        file.truncate(size)


def names(root: Path) -> set[str]:
    return {file.name for file in gather(root / "one.yaml", SPACE).files if not file.ours}


@pytest.mark.parametrize(
    "name",
    [
        *(".git/config", ".env", ".env.local", ".venv/x.py", ".ssh/id", "env/pyvenv.cfg", "__pycache__/a.pyc", "a.pyc"),
        *("data/a.png", "photos/cats/1.JPG", "a.webp", "results/x/run.json", "mine/run.json", "x.egg-info/PKG"),
        *("key.pem", "id_rsa", "id_rsa.pub", "MyToken.txt", "credentials.json", "client_secret.json", "a/b/wifi.key"),
    ],
)
def test_secrets_images_results_and_caches_stay_here(name: str, project: Path) -> None:
    put(project, name)
    assert names(project) == {"one.yaml", "nets.py"}


def test_code_goes_along_even_in_a_package_called_data(project: Path) -> None:
    for name in ("lib/a/b.py", "data/__init__.py", "data/read.py", "weights.npz"):
        put(project, name)
    assert names(project) == {"one.yaml", "nets.py", "lib/a/b.py", "data/__init__.py", "data/read.py", "weights.npz"}


def test_images_are_named_by_folder(project: Path) -> None:
    for name in ("photos/cats/1.png", "photos/cats/2.png", "photos/dogs/1.jpg", "a.png"):
        put(project, name)
    assert "not sent (images): *.png, photos/cats/*.png, photos/dogs/*.jpg" in shown(
        gather(project / "one.yaml", SPACE)
    )


@pytest.mark.parametrize("name", ["two\nlines.txt", os.fsdecode(b"latin-\xe9.txt")])
def test_names_that_no_zip_can_hold_stay_here(name: str, project: Path, tmp_path: Path) -> None:
    put(project, name)
    package = gather(project / "one.yaml", SPACE)
    write_zip(package, tmp_path / "package.zip")
    assert package.left_out == ((ascii(name)[1:-1], "its name is no plain text"),)


def test_sockets_and_what_may_not_be_read_stay_here(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(project / "pipe")
    put(project, "closed/a.py")
    monkeypatch.setattr(os, "scandir", closing(project / "closed"))  # root may read every folder
    assert set(gather(project / "one.yaml", SPACE).left_out) == {("closed/", "Permission denied"), ("pipe", "no file")}


def closing(folder: Path) -> Callable[..., object]:
    scan = os.scandir

    def closed(path: str | Path) -> object:
        if Path(path) == folder:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return scan(path)

    return closed


def test_large_files_and_links_stay_here_and_are_named(project: Path, tmp_path: Path) -> None:
    put(project, "big.bin", 10 * MB + 1)
    put(project, "small.bin", 10 * MB)
    put(tmp_path, "outside/secret.txt")
    (project / "link").symlink_to(tmp_path / "outside")
    (project / "link.txt").symlink_to(tmp_path / "outside" / "secret.txt")
    found = gather(project / "one.yaml", SPACE)
    assert {f.name for f in found.files if not f.ours} == {"one.yaml", "nets.py", "small.bin"}
    assert {name for name, _ in found.left_out} == {"big.bin", "link/", "link.txt"}
    assert any("big.bin" in line for line in shown(found, 3))


def test_the_images_of_the_space_stay_here(project: Path) -> None:
    for name in ("flowers/a/1.png", "numbers.npz"):
        put(project, name)
    assert "flowers/a/1.png" not in {
        f.name for f in gather(project / "one.yaml", SPACE, images=project / "flowers").files
    }
    assert "numbers.npz" not in {
        f.name for f in gather(project / "one.yaml", SPACE, images=project / "numbers.npz").files
    }


def test_more_than_fifty_megabytes_are_refused_with_the_largest(project: Path) -> None:
    for number in range(6):
        put(project, f"part{number}.bin", 9 * MB + number)
    with pytest.raises(BadInput, match=r"at most 50 can; the largest: part5.bin \(9.0 MB\)"):
        gather(project / "one.yaml", SPACE)


def test_a_folder_of_very_many_files_is_no_project(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "ENTRIES", 1)
    with pytest.raises(BadInput, match="--no-code"):
        gather(project / "one.yaml", SPACE)


def test_a_home_folder_is_no_project(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(project))
    for root in (project, project.parent, Path("/")):
        with pytest.raises(BadInput, match="no folder of a project"):
            gather(project / "one.yaml", SPACE, project=root)


def test_a_space_file_from_elsewhere_lies_beside_the_project(project: Path, tmp_path: Path) -> None:
    (tmp_path / "two.yaml").write_text(SPACE)
    found = gather(tmp_path / "two.yaml", SPACE, project=project)
    assert found.space == "two.yaml"
    assert {"two.yaml", "one.yaml", "nets.py"} <= {file.name for file in found.files}


def test_without_code_only_the_space_goes(project: Path) -> None:
    assert [file.name for file in gather(project / "one.yaml", SPACE, code=False).files] == ["one.yaml"]


def test_the_same_files_give_the_same_bytes(project: Path, tmp_path: Path) -> None:
    for name in ("a.zip", "b.zip"):
        write_zip(gather(project / "one.yaml", SPACE), tmp_path / name)
        os.utime(project / "nets.py", (0, 0))
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_hypertune_in_the_package_runs_from_there(project: Path, tmp_path: Path) -> None:
    write_zip(gather(project / "one.yaml", SPACE), tmp_path / "a.zip")
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        archive.extractall(tmp_path / "there")
    code = "import tuner.spec.space as s, analysis; print(s.__file__, analysis.__file__); s.load_space('one.yaml')"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path / "there", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(str(tmp_path / "there")) == 2


def test_own_modules_that_are_not_sent_are_named(project: Path) -> None:
    text = "model: {name: 'nets:build'}\ndata: {dataset: other.module:load}  # see docs:x\nurl: s3://x/y\n"
    assert missing_modules(gather(project / "one.yaml", text), text) == ["other"]


def test_set_is_applied_to_the_space_that_is_sent(project: Path) -> None:
    order = make_order(project / "one.yaml", "/shared", sets=["search.trials=7"])
    (text,) = (file.text for file in order.package.files if file.name == "one.yaml")
    assert text is not None
    assert "trials: 7" in text
    assert order.metadata["again"].endswith("--set search.trials=7")


def test_the_command_is_quoted_and_goes_on_with_a_run_that_is_there(project: Path) -> None:
    (project / "one.yaml").rename(project / "my $(space).yaml")
    order = make_order(project / "my $(space).yaml", "/shared/my runs/")
    assert order.entrypoint == (
        "exec python -m tuner.cli run 'my $(space).yaml' --address auto --out '/shared/my runs/' --resume-if-exists"
    )
    assert order.run == order.metadata["run"] == "/shared/my runs/one"


def test_a_job_has_time_to_end_its_epochs_and_no_token(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "sesame")
    order = make_order(project / "one.yaml", "s3://bucket/x", width=99)
    assert order.env == {"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "30", "HYPERTUNE_RELAY": "99"}}
    assert "sesame" not in repr(order)
    assert "HYPERTUNE_RELAY" not in make_order(project / "one.yaml", "/x").env["env_vars"]


@pytest.mark.parametrize(
    ("out", "run"),
    [
        ("/a/b/", "/a/b/one"),
        ("s3://bucket/x/?region=eu-1", "s3://bucket/x/one?region=eu-1"),
        ("gs://bucket", "gs://bucket/one"),
    ],
)
def test_a_run_lies_below_the_place_for_results(out: str, run: str, project: Path) -> None:
    assert make_order(project / "one.yaml", out).run == run


@pytest.mark.parametrize("out", ["s3://key:secret@bucket/x", "http://bucket/x"])
def test_what_is_no_store_is_refused(out: str) -> None:
    with pytest.raises(BadInput) as caught:
        check_out(out)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("out", [None, "", "results", "./results", "~/results"])
def test_results_must_lie_where_the_cluster_can_find_them(out: str | None) -> None:
    with pytest.raises(BadInput, match="--out"):
        check_out(out)


@pytest.mark.parametrize(("root", "said"), [("images", "own folder"), ("~/images", "home folder"), ("/data/im", None)])
def test_images_that_the_cluster_may_not_have_are_warned_of(root: str, said: str | None, project: Path) -> None:
    order = make_order(project / "one.yaml", "/x", sets=["data.dataset=image_folder", f"data.root={root}"])
    assert [said in note for note in order.notes if said] == ([True] if said else [])
    assert bool(order.notes) == bool(said)


def test_pins_are_the_versions_here_but_ray_is_the_clusters() -> None:
    import numpy

    found = pins()
    assert f"numpy=={numpy.__version__}" in found
    assert not [pin for pin in found if pin.startswith("ray=") or "+" in pin]


def test_a_dry_run_lists_everything_and_speaks_to_nobody(project: Path, call: object) -> None:
    assert callable(call)
    code, out, _ = call("submit", project / "one.yaml", "--out", "/x", "--dry-run", "--address", "http://127.0.0.1:1")
    assert code == 0
    assert "nets.py" in out
    code, out, err = call("submit", project / "one.yaml", "--out", "/x", "--dry-run", "--set", "search.trials=-1")
    assert code == 2
    assert "search.trials" in out + err
