"""``prunekit doctor``: what is there, what is missing, and the command that mends it; never a traceback."""

from __future__ import annotations

import json
import os
import platform
import shlex
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, distribution, entry_points, requires, version
from pathlib import Path
from typing import TYPE_CHECKING, Literal, final
from urllib.parse import urlsplit
from urllib.request import url2pathname

import typer

from prunekit.errors import PruneKitError
from prunekit.registry import KINDS, Registry

if TYPE_CHECKING:
    from packaging.requirements import Requirement

State = Literal["ok", "optional", "missing"]
LEAST_PYTHON = (3, 11)
LEAST_FREE_GB = 1.0
TORCH = "pip install --force-reinstall torch"
NEED_TORCH = ("devices", "threads", "kernels", "plugins")
EXTRAS = {"docs", "test"}  # for those who work on PruneKit itself


@final
@dataclass(frozen=True)
class Finding:
    """One line: ``missing`` is needed and not there, ``optional`` could be there; ``mend`` is what to do."""

    area: str
    state: State
    text: str
    mend: str = ""


def examine() -> list[Finding]:
    """Look at everything; what goes wrong while looking is a finding itself."""
    areas: dict[str, Callable[[], Iterator[Finding]]] = {
        "versions": _versions,
        "packages": _packages,
        "extras": _extras,
        "devices": _devices,
        "threads": _threads,
        "kernels": _kernels,
        "plugins": _plugins,
        "data": _data,
        "disk": _disk,
    }
    found: list[Finding] = []
    for area, look in areas.items():
        if area in NEED_TORCH and any(each.mend == TORCH for each in found):
            found.append(Finding(area, "optional", "cannot be looked at before torch is mended"))
            continue
        try:
            found += look()
        except PruneKitError as cause:  # says itself what to do
            found.append(Finding(area, "missing", _line(cause)))
        except Exception as cause:  # whatever is broken: that is what a person wants to know
            found.append(Finding(area, "missing", f"{type(cause).__name__}: {_line(cause)}", _reinstall("prunekit")))
    return found


def show_doctor(*, as_json: bool) -> None:
    """Print the findings; end with exit code 1 if something needed is missing."""
    found = examine()
    healthy = all(each.state != "missing" for each in found)
    if as_json:
        typer.echo(json.dumps({"healthy": healthy, "findings": [asdict(each) for each in found]}, indent=1))
    else:
        signs = {"ok": "ok", "optional": "--", "missing": "!!"}
        for each in found:
            typer.echo(f"{signs[each.state]}  {each.area:<9} {each.text}")
            if each.mend:
                typer.echo(f"{'':<14}{each.mend}")
        typer.echo("everything needed is here" if healthy else "something needed is missing: see the lines with !!")
    raise typer.Exit(0 if healthy else 1)


def _versions() -> Iterator[Finding]:
    yield Finding("versions", "ok", f"prunekit {version('prunekit')}")
    python, here = platform.python_version(), platform.python_version_tuple()
    old = (int(here[0]), int(here[1])) < LEAST_PYTHON
    mend = "install Python 3.11 or newer, and make a new virtual environment with it" if old else ""
    yield Finding("versions", "missing" if old else "ok", f"python {python}, {platform.platform()}", mend)


def _packages() -> Iterator[Finding]:
    """Every package that PruneKit or a plugin needs, at a version that it takes; torch is imported, too."""
    told: set[str] = set()
    for owner in _owners():
        names = []
        for needed in _needs(owner):
            problem = _problem(needed.name, str(needed.specifier))
            text = problem or f"{needed.name} {version(needed.name)}"
            if problem and text not in told:
                mend = TORCH if needed.name == "torch" else f'pip install "{needed.name}{needed.specifier}"'
                yield Finding("packages", "missing", problem, mend)
            elif text not in told:
                names.append(text)
            told.add(text)
        if names:
            yield Finding("packages", "ok", f"{'' if owner == 'prunekit' else f'{owner}: '}{', '.join(names)}")


def _owners() -> list[str]:
    """Return the packages whose needs are looked at: this one, and those of plugins."""
    installed = entry_points()
    points = (point for kind in KINDS for point in installed.select(group=f"prunekit.{kind}"))
    return ["prunekit", *sorted({point.dist.name for point in points if point.dist} - {"prunekit"})]


def _needs(owner: str, extra: str = "") -> Iterator[Requirement]:
    """Yield what a package needs, or what an extra of it adds; extras that are named in turn are followed."""
    from packaging.requirements import Requirement

    for text in requires(owner) or ():
        needed = Requirement(text)
        always, here = (not needed.marker or needed.marker.evaluate({"extra": each}) for each in ("", extra))
        if here and always == (not extra):
            yield needed
            for further in needed.extras if not _problem(needed.name, "") else ():
                yield from _needs(needed.name, further)


def _problem(name: str, specifier: str) -> str:
    """Say what is wrong with an installed package, if anything is."""
    from packaging.specifiers import SpecifierSet

    try:
        installed = version(name)
    except PackageNotFoundError:
        return f"{name} is not installed"
    if not SpecifierSet(specifier).contains(installed, prereleases=True):
        return f"{name} is {installed}, and {specifier} is needed"
    if name == "torch":  # large, and with libraries of its own: the one whose import fails in practice
        try:
            import_module(name)
        except Exception as cause:
            return f"torch {installed} cannot be imported: {_line(cause)}"
    return ""


def _extras() -> Iterator[Finding]:
    from packaging.requirements import Requirement

    for owner in _owners():
        markers = [str(Requirement(text).marker or "") for text in requires(owner) or ()]
        extras = dict.fromkeys(each.partition("extra == ")[2].strip('"') for each in markers)
        for extra in (each for each in extras if each and each not in EXTRAS):
            wrong = [text for each in _needs(owner, extra) if (text := _problem(each.name, str(each.specifier)))]
            mend = f'pip install "{owner}[{extra}]"' if wrong else ""
            name = extra if owner == "prunekit" else f"{owner}[{extra}]"
            yield Finding("extras", "optional" if wrong else "ok", f"{name}: {'; '.join(wrong) or 'there'}", mend)


def _devices() -> Iterator[Finding]:
    import torch

    from prunekit.environment import cpu_name

    yield Finding("devices", "ok", f"cpu: {cpu_name()}, {torch.backends.cpu.get_cpu_capability()}")
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    yield Finding("devices", "ok" if gpus else "optional", f"CUDA: {', '.join(gpus) or 'none; runs use the CPU'}")


def _threads() -> Iterator[Finding]:
    import torch

    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = torch.get_num_threads()
    much = threads > allowed
    mend = f"export OMP_NUM_THREADS={allowed}" if much else ""
    yield Finding("threads", "optional" if much else "ok", f"torch uses {threads} of {allowed} cores", mend)


def _kernels() -> Iterator[Finding]:
    from prunekit.native import kernels, missing

    there = kernels() is not None
    text = "compiled, and loaded" if there else f"cut layers stay dense: {missing()}"
    mend = "" if there else _reinstall("prunekit", build=True)
    yield Finding("kernels", "ok" if there else "optional", text, mend)


def _plugins() -> Iterator[Finding]:
    """Everything that other packages register, imported."""
    registry = Registry.discover()
    good: dict[str, int] = {}
    bad: dict[str, str] = {}  # the first problem of each package
    for kind in KINDS:
        for name in registry.names(kind):
            entry = registry.find(kind, name)
            if entry.distribution == "prunekit":
                continue
            try:
                entry.load()
                good[entry.distribution] = good.get(entry.distribution, 0) + 1
            except Exception as cause:
                bad.setdefault(entry.distribution, _line(cause))
    for name, problem in bad.items():
        yield Finding("plugins", "missing", problem, _reinstall(name))
    told = ", ".join(f"{name} {version(name)} ({count} names)" for name, count in good.items())
    yield Finding("plugins", "ok", told or "none installed")


def _data() -> Iterator[Finding]:
    """The folder that each recipe names."""
    from prunekit.recipe import read_recipe

    registry, inside = Registry.discover(), []
    for name in registry.names("recipe"):
        folder = read_recipe(name, (), registry).task.options.get("data")
        if not isinstance(folder, str) or folder == "embedded" or Path(folder).is_dir():
            inside.append(name)
        else:
            text = f"{name}: its folder {folder!r} is not here"
            yield Finding("data", "optional", text, f"prunekit run {name} task.data=DIR, with your own folder")
    yield Finding("data", "ok", f"there for the recipes {', '.join(inside)}")


def _disk() -> Iterator[Finding]:
    free = shutil.disk_usage(Path.cwd()).free / 1e9
    ok = free >= LEAST_FREE_GB and os.access(Path.cwd(), os.W_OK)
    mend = "" if ok else "free some space, or change to a folder that may be written"
    yield Finding("disk", "ok" if ok else "missing", f"{free:.1f} GB free in {Path.cwd()}", mend)


def _reinstall(name: str, *, build: bool = False) -> str:
    """Return the command that installs a package again from where it came, or nothing where that is not known."""
    try:
        held = json.loads(distribution(name).read_text("direct_url.json") or "{}")
    except PackageNotFoundError:
        return ""
    url = held.get("url", "")
    place = url2pathname(urlsplit(url).path) if url.startswith("file:") else url
    if "vcs_info" in held:
        place = f"{held['vcs_info']['vcs']}+{url}"
    source = ["-e", place] if held.get("dir_info", {}).get("editable") else [place or name]
    options = ["--no-binary", name] if build and not place else []
    return shlex.join(["pip", "install", "--force-reinstall", "--no-deps", *options, *source])


def _line(cause: BaseException) -> str:
    return " ".join(str(cause).split())
