"""The command line: every verb, argument and option, asked from the program."""

from typing import Any

import typer

from prunekit.cli.app import build
from prunekit.registry import Registry

HEAD = """# Command line

Every verb with its arguments and options, asked from the program itself: `prunekit VERB --help` says the same. Verbs
below `mir_l` come from the plugin. These options stand without a verb, as in `prunekit --version`:
"""


def program() -> Any:
    """Return the root command, with the verbs of installed plugins."""
    return typer.main.get_command(build(Registry.discover()))


def verbs(command: Any, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """Return every command that does something, by its words."""
    below = getattr(command, "commands", None)
    if not below:
        return {path: command}
    return {words: each for name, sub in below.items() for words, each in verbs(sub, (*path, name)).items()}


def pages() -> dict[str, str]:
    """Return the page."""
    root = program()
    parts = [_verb(words, each) for words, each in verbs(root).items()]
    return {"reference/cli.md": "\n".join([HEAD, _table(_records(root)), "", *parts])}


def _records(command: Any) -> list[tuple[str, str]]:
    """Return what a command's help says of each argument and option."""
    context = command.context_class(command)
    found = (each.get_help_record(context) for each in command.params if each.name != "help")
    return [record for record in found if record]


def _table(records: list[tuple[str, str]]) -> str:
    rows = [f"| `{' '.join(name.split())}` | {_marks(about)} |" for name, about in records]
    return "\n".join(["| argument or option | what it says |\n| --- | --- |", *rows]) if rows else ""


def _verb(words: tuple[str, ...], command: Any) -> str:
    text, records = " ".join((command.help or "").split()), _records(command)
    arguments = [each.metavar or each.name.upper() for each in command.params if each.param_type_name == "argument"]
    usage = " ".join(["prunekit", *words, *arguments, *(["[OPTIONS]"] if len(records) > len(arguments) else [])])
    return "\n".join([f"## {' '.join(words)}\n", text, "", f"```text\n{usage}\n```", "", _table(records), ""])


def _marks(about: str) -> str:
    """Return a help text in one line; what typer adds in brackets in other ones, for Markdown makes links of those."""
    return " ".join(about.split()).replace("[", "(").replace("]", ")").replace("|", "\\|")
