"""The API reference: one page a group of modules, each public name from its docstring (mkdocstrings reads it)."""

import prunekit
import prunekit.errors

GROUPS = {
    "masks": (
        "Masks",
        "What a ticket is: boolean masks by parameter name, what holds them in training, and cutting.",
        ("masks", "pruner", "rewind", "select", "amount", "target"),
    ),
    "scorers": (
        "Scorers and data",
        "What a weight is worth, and what a scorer may ask of the data.",
        ("score", "gradients", "flow", "activations", "tracking", "calibration", "folder", "imaging", "sensitivities"),
    ),
    "allocations": ("Allocations", "How many weights each tensor keeps, and which.", ("allocate", "groups")),
    "plans": (
        "Schedules and plans",
        "How the density falls, and when to train, cut and rewind; pure data, no torch.",
        ("schedule", "plan"),
    ),
    "channels": (
        "Channels",
        "Whole channels instead of single weights.",
        ("shape", "structured.pruner", "structured.declare"),
    ),
    "tickets": ("Tickets", "Files to ship, and what is in them.", ("sparse.source", "sparse.ticket")),
    "tasks": ("Tasks and data", "What a plugin writes, and what helps it.", ("task", "data", "measure")),
}
BESIDE = {  # what is public without being a name of `prunekit` itself, because few need it
    "scorers": ("prunekit.score.PerTensor", "prunekit.score.FromData"),
    "plans": ("prunekit.schedule.rate",),
    "tickets": ("prunekit.sparse.runtime.compile",),
    "tasks": ("prunekit.task.Pictured", "prunekit.network.bind_network", "prunekit.digits.digits"),
    "rest": (
        "prunekit.watch.Watch",
        *(
            f"prunekit.errors.{name}"
            for name, thing in vars(prunekit.errors).items()
            if isinstance(thing, type) and issubclass(thing, Exception) and name not in prunekit.__all__
        ),
    ),
}
LAWS = """# Laws for plugins

What any scorer, allocation, schedule, strategy and cut must keep, as functions for the tests of a plugin.

::: prunekit.testing
    options: {show_root_heading: false}
"""
PLUGIN = """# The MIR-L plugin

The parts of `prunekit_mir_l` that are of use by themselves: its task, its networks, web damage and codecs.

::: prunekit_mir_l.task.mir_l

::: prunekit_mir_l.presets.promptir

::: prunekit_mir_l.presets.promptir_small

::: prunekit_mir_l.presets.promptir_tiny

::: prunekit_mir_l.promptir.PromptIR
    options: {members: false}

::: prunekit_mir_l.spandrel_arch.register_spandrel

::: prunekit_mir_l.web

::: prunekit_mir_l.codecs
"""
REST = ("rest", "Everything else", "Public names that belong to no group of their own.")


def homes() -> dict[str, str]:
    """Return the module below ``prunekit`` in which each public name is defined."""
    return {name: prunekit._HOME[name] for name in prunekit.__all__}


def pages() -> dict[str, str]:
    """Return the API pages; a public name that no group claims stands on the last."""
    claimed = {module for *_, modules in GROUPS.values() for module in modules}
    rest = tuple(sorted(set(homes().values()) - claimed))
    slug, title, about = REST
    found = {slug: _page(*group, BESIDE.get(slug, ())) for slug, group in GROUPS.items()}
    found |= {slug: _page(title, about, rest, BESIDE[slug]), "testing": LAWS, "mir_l": PLUGIN}
    return {f"reference/api/{slug}.md": text for slug, text in found.items()}


def reference(name: str) -> str:
    """Return a link to where a public name is described."""
    paths = {path.rpartition(".")[2]: path for paths in BESIDE.values() for path in paths}
    paths |= {each: f"prunekit.{home}.{each}" for each, home in homes().items()}
    return f"[`{name}`][{paths[name]}]" if name in paths else f"`{name}`"


def linked(name: str, path: str) -> str:
    """Return a link to what a dotted path is, where it is described."""
    return f"[`{name}`][{path}]" if any(f"::: {path}\n" in text for text in pages().values()) else f"`{name}`"


def _page(title: str, about: str, modules: tuple[str, ...], beside: tuple[str, ...] = ()) -> str:
    names = [f"prunekit.{home}.{name}" for module in modules for name, home in homes().items() if home == module]
    head = f"# {title}\n\n{about} Names are those of `import prunekit as pk`, described where each is defined.\n"
    return "\n".join([head, *(f"::: {name}\n" for name in [*names, *beside])])
