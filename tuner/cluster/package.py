"""Package: what is sent to a cluster: the space file, the user's code beside it, hypertune itself; nothing secret."""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

import tuner
from tuner.errors import BadInput, HypertuneError

MB = 2**20
MOST = 50 * MB
LARGE = 10 * MB
ENTRIES = 20_000
"""Files and folders of a project that are looked at: more are images or a whole disk."""

OWN = ("tuner", "analysis", "search_spaces")
"""hypertune itself, so that a bare image with its dependencies can search."""

SECRET = (
    *("*.pem", "*.key", "*.p12", "*.pfx", "*.kdbx", "*.keytab"),
    *("id_rsa*", "id_dsa*", "id_ecdsa*", "id_ed25519*", "*token*", "*credential*", "*secret*", "*password*"),
)
IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
FOLDERS = {
    **dict.fromkeys(("data", "datasets"), "images"),
    **dict.fromkeys(("results", "ray_results", "mlruns", "wandb"), "results"),
    **dict.fromkeys(("__pycache__", "node_modules", "venv"), "a cache"),
}


@dataclass(frozen=True)
class File:
    """One file: its name in the package, where it lies, its bytes; text: what is sent in place of its content."""

    name: str
    path: Path
    size: int
    text: str | None = None

    @property
    def ours(self) -> bool:
        """Whether it is of hypertune itself."""
        return self.name.split("/")[0] in OWN


@dataclass(frozen=True)
class Package:
    """What is sent. space: name of the space file in it. left_out: what of the project is not, and why."""

    space: str
    files: tuple[File, ...]
    left_out: tuple[tuple[str, str], ...]

    @property
    def size(self) -> int:
        """Bytes, before they are compressed."""
        return sum(file.size for file in self.files)


def gather(
    space_file: Path, text: str, *, project: Path | None = None, code: bool = True, images: Path | None = None
) -> Package:
    """The package of a space.

    text: sent as the space file. project: folder of the user's code, default: that of the space file; code: False
    leaves out all but the space file. images: a folder or file that is not sent.

    Raises:
        BadInput: the project is no folder of code, or too large.
        HypertuneError: a file cannot be read.
    """
    space_file = space_file.absolute()
    if not code:
        return Package(space_file.name, (_space(space_file.name, space_file, text),), ())
    root = (project or space_file.parent).absolute()
    if not root.is_dir():
        raise BadInput(f"--project {root}: there is no such folder")
    if Path.home().is_relative_to(root):
        raise BadInput(f"{root} is no folder of a project; name one with --project, or send the space alone: --no-code")
    files: dict[str, File] = {}
    left_out: list[tuple[str, str]] = []
    for name, path in _walk(root, left_out, images and images.absolute()):
        if path == space_file:
            continue
        if not name.isprintable():
            left_out.append((ascii(name)[1:-1], "its name is no plain text"))
        elif reason := _try(_reason, path):
            left_out.append((name, reason))
        elif name.split("/")[0] in OWN:
            left_out.append((name, "hypertune's own name"))
        else:
            files[name] = File(name, path, path.stat().st_size)
    inside = space_file.is_relative_to(root) and space_file.relative_to(root).parts[0] not in OWN
    space = space_file.relative_to(root).as_posix() if inside else space_file.name
    if not space.isprintable():
        raise BadInput(f"{space!a}: a space file that is sent must have a name of plain text; rename it")
    files[space] = _space(space, space_file, text)
    package = Package(space, (*sorted(files.values(), key=lambda f: f.name), *_own()), tuple(left_out))
    if package.size > MOST:
        largest = sorted(package.files, key=lambda f: f.size, reverse=True)[:5]
        shown = ", ".join(f"{f.name} ({f.size / MB:.1f} MB)" for f in largest)
        raise BadInput(
            f"{root}: {package.size / MB:,.0f} MB would be sent, at most {MOST // MB} can; the largest: {shown}; "
            "move them away, name another folder with --project, or send the space alone: --no-code"
        )
    return package


def write_zip(package: Package, path: Path) -> None:
    """Write the package; the same files give the same bytes, so that Ray takes it once.

    Raises:
        HypertuneError: a file cannot be read.
    """
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in package.files:
            entry = zipfile.ZipInfo(file.name, date_time=(1980, 1, 1, 0, 0, 0))
            entry.external_attr = 0o644 << 16
            try:
                content = file.path.read_bytes() if file.text is None else file.text.encode()
            except OSError as error:
                raise HypertuneError(f"{file.path} cannot be sent: {error.strerror or error}") from None
            archive.writestr(entry, content, zipfile.ZIP_DEFLATED)


def missing_modules(package: Package, text: str) -> list[str]:
    """Modules of the user's own that a space names as `module:function` and that are not in the package."""
    bare = re.sub(r"(?m)(^|\s)#.*$", "", text)
    named = {match.split(".")[0] for match in re.findall(r"(?<![\w./])([A-Za-z_][\w.]*):[A-Za-z_]\w*", bare)}
    sent = {file.name.split("/")[0].removesuffix(".py") for file in package.files}
    return sorted(named - sent)


def _space(name: str, path: Path, text: str) -> File:
    return File(name, path, len(text.encode()), text)


def _own() -> Iterator[File]:
    home = Path(tuner.__file__).parent.parent
    for package in OWN:
        for path in sorted((home / package).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                yield File(path.relative_to(home).as_posix(), path, path.stat().st_size)


def _walk(root: Path, left_out: list[tuple[str, str]], images: Path | None) -> Iterator[tuple[str, Path]]:
    """The files of a project and their names in it; folders that are left out are not entered."""
    seen = 0
    for folder, names, files in os.walk(root):
        here = Path(folder)
        seen += len(names) + len(files)
        if seen > ENTRIES:
            raise BadInput(
                f"{root} holds more than {ENTRIES:,} files: is it a project? name its folder with --project, "
                "or send the space alone: --no-code"
            )
        for name in sorted(names):
            if reason := _try(_folder_reason, here / name, images):
                names.remove(name)
                left_out.append(((here / name).relative_to(root).as_posix() + "/", reason))
        names.sort()
        for name in sorted(files):
            if here / name == images:
                left_out.append(((here / name).relative_to(root).as_posix(), "images"))
            else:
                yield (here / name).relative_to(root).as_posix(), here / name


def _try(look: Callable[..., str], path: Path, *more: Path | None) -> str:
    """What `look` says; or why it may not look, which is a reason too."""
    try:
        return look(path, *more)
    except OSError as error:
        return error.strerror or str(error)


def _folder_reason(path: Path, images: Path | None) -> str:
    """Why a folder is not sent; empty where it is."""
    if path.name.startswith("."):
        return "hidden"
    if path.is_symlink():
        return "a link"
    if path == images:
        return "images"
    os.scandir(path).close()  # a folder that may not be read has no place in the package either
    if (path / "pyvenv.cfg").exists() or path.name.endswith(".egg-info"):
        return "a cache"
    if (path / "run.json").exists() or (path / "checkpoint_best").is_dir():
        return "results"
    if (path / "__init__.py").exists():  # a package of Python may be called data
        return ""
    return FOLDERS.get(path.name.lower(), "")


def _reason(path: Path) -> str:
    """Why a file is not sent; empty where it is."""
    name = path.name.lower()
    if name.startswith("."):
        return "hidden"
    if path.is_symlink():
        return "a link"
    if not path.is_file():
        return "no file"
    if any(fnmatch(name, pattern) for pattern in SECRET):
        return "looks like a secret"
    if name.endswith((".pyc", ".pyo")):
        return "a cache"
    if name.endswith(IMAGES):
        return "images"
    size = path.stat().st_size
    return f"{size / MB:,.0f} MB, above {LARGE // MB}" if size > LARGE else ""


def shown(package: Package, most: int | None = None) -> list[str]:
    """The package in lines: the user's files with their sizes, hypertune in one line, what was left out by reason."""
    theirs: Sequence[File] = [file for file in package.files if not file.ours]
    ours = [file for file in package.files if file.ours]
    lines = [f"{file.name}  {_size(file.size)}" for file in theirs[:most]]
    if most is not None and len(theirs) > most:
        lines.append(f"and {len(theirs) - most} more files; --dry-run lists them")
    if ours:
        lines.append(f"hypertune itself: {len(ours)} files  {_size(sum(file.size for file in ours))}")
    reasons: dict[str, dict[str, None]] = {}
    for name, reason in package.left_out:
        reasons.setdefault(reason, {})[_all_images(name)] = None
    for reason, found in sorted(reasons.items()):
        names = list(found)
        few = names if most is None else names[:4]
        more = f" and {len(names) - len(few)} more" if len(names) > len(few) else ""
        lines.append(f"not sent ({reason}): {', '.join(few)}{more}")
    return lines


def _all_images(name: str) -> str:
    """One name for all images of a folder: there may be thousands."""
    path = PurePosixPath(name)
    return str(path.with_name(f"*{path.suffix}")) if path.name.lower().endswith(IMAGES) else name


def _size(size: int) -> str:
    return f"{size / MB:.1f} MB" if size >= MB else f"{size / 1024:.1f} kB"
