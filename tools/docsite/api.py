"""The API reference: one page a group of modules, each public name from its docstring (mkdocstrings reads it)."""

import prunekit

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
REST = ("rest", "Everything else", "Public names that belong to no group of their own.")


def homes() -> dict[str, str]:
    """Return the module below ``prunekit`` in which each public name is defined."""
    return {name: prunekit._HOME[name] for name in prunekit.__all__}


def pages() -> dict[str, str]:
    """Return the API pages; a public name that no group claims stands on the last."""
    claimed = {module for *_, modules in GROUPS.values() for module in modules}
    rest = tuple(sorted(set(homes().values()) - claimed))
    written = {f"reference/api/{slug}.md": _page(*group) for slug, group in GROUPS.items()}
    slug, title, about = REST
    return {**written, f"reference/api/{slug}.md": _page(title, about, rest)}


def reference(name: str) -> str:
    """Return a link to where a public name is described."""
    return f"[`{name}`][prunekit.{homes()[name]}.{name}]" if name in homes() else f"`{name}`"


def _page(title: str, about: str, modules: tuple[str, ...]) -> str:
    names = [(module, name) for module in modules for name, home in homes().items() if home == module]
    entries = [f"::: prunekit.{module}.{name}\n" for module, name in names]
    return "\n".join(
        [
            f"# {title}\n",
            f"{about} All names are those of `import prunekit as pk`; each is described where it is defined.\n",
            *entries,
            *(["::: prunekit.sparse.runtime.compile\n"] if title == "Tickets" else []),
        ]
    )
