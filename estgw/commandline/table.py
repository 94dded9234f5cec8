"""The rows of a command line: options, commands, and the program that holds them.

A command's name has one word (`serve`) or two (`pending list`).  `Program.parse` looks the words up in the table and
builds the parser of that one command, so a start costs no more with many commands than with one.  The rows are named
tuples because importing `dataclasses` takes longer than everything else that `estclient --version` does.
"""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, NoReturn, Protocol

_WIDTH = 100
"""Columns of the texts that argparse leaves as they are."""


Run = Callable[[argparse.Namespace], int]
"""Does what a command is for, and returns the exit status."""


class _Container(Protocol):
    """A parser or a group of one."""

    def add_argument(self, *names: str, **settings: Any) -> Any:
        """Add an option."""


class Option(NamedTuple):
    """An option such as `-u --url`; without hyphens, an argument."""

    spelling: str
    """All names of the option, with spaces between them."""
    help: str
    metavar: str | None = None
    """The name of the value in a help text; None: the option is a flag."""
    type: Callable[[str], Any] = str
    """Reads the value; `Path` also makes the completion offer files."""
    default: Any = None
    required: bool = False
    optional: bool = False
    """An argument that may be left out; it is the last one."""
    repeatable: bool = False
    """The value is a list, with one entry for each time that the option is given."""
    without_value: str | None = None
    """The value of an option that is given without one; None: a value is necessary."""
    choices: tuple[str, ...] = ()
    """All values that are allowed."""
    suggestions: tuple[str, ...] = ()
    """Some values that a completion offers."""
    dest: str | None = None

    @property
    def names(self) -> list[str]:
        """All spellings, as a person types them."""
        return self.spelling.split()

    @property
    def is_argument(self) -> bool:
        """Whether its place says what it is."""
        return not self.spelling.startswith("-")

    @property
    def value(self) -> str:
        """The value in a help text; empty for a flag."""
        return " | ".join(self.choices) or self.metavar or ""

    def add_to(self, container: _Container) -> None:
        """Teach it to a parser."""
        settings: dict[str, Any] = {"help": self.help.replace("%", "%%")}
        if not self.value:
            settings["action"] = "store_true"
        else:
            settings |= {"type": self.type, "choices": self.choices} if self.choices else {"type": self.type}
            settings |= {"metavar": self.metavar} if self.metavar else {}
            settings |= {"action": "append", "default": []} if self.repeatable else {"default": self.default}
            settings |= {"nargs": "?", "const": self.without_value} if self.without_value else {}
        if self.optional:
            settings["nargs"] = "?"
        if self.required and not self.is_argument:
            settings["required"] = True
        if self.dest:
            settings["dest"] = self.dest
        container.add_argument(*self.names, **settings)


class Group(NamedTuple):
    """Options that stand under one heading of a help text."""

    title: str
    options: tuple[Option, ...]
    exclusive: bool = False
    """At most one of them may be given."""
    required: bool = False
    """With `exclusive`: one of them must be given."""

    def add_to(self, parser: argparse.ArgumentParser) -> None:
        """Teach them to a parser."""
        group = parser.add_argument_group(self.title)
        container = group.add_mutually_exclusive_group(required=self.required) if self.exclusive else group
        for option in self.options:
            option.add_to(container)


class Command(NamedTuple):
    """A command, or the name that a family of commands has in common."""

    name: str
    summary: str
    """One sentence, for lists and at the head of its help."""
    run: Run | None
    """None: a family, whose commands do something."""
    options: Sequence[Option | Group] = ()
    description: str = ""
    """More sentences, for its help and the man page."""
    example: str = ""
    aliases: tuple[str, ...] = ()
    sets: Mapping[str, Any] = MappingProxyType({})
    """Values beside those that a person gives."""
    fault: Callable[[argparse.Namespace], str] | None = None
    """A sentence about values that do not fit together; empty if they do."""

    @property
    def names(self) -> tuple[str, ...]:
        """Its name, then its aliases."""
        return (self.name, *self.aliases)

    @property
    def groups(self) -> Iterator[Group]:
        """Its options, single ones as a group without a title."""
        for each in self.options:
            yield each if isinstance(each, Group) else Group("", (each,))

    @property
    def all_options(self) -> list[Option]:
        """Its options without their groups."""
        return [option for group in self.groups for option in group.options]


class Program(NamedTuple):
    """A program: its commands, and what is true of all of them."""

    name: str
    version: str
    description: str
    commands: tuple[Command, ...]
    exit_status: tuple[tuple[int, str, str], ...]
    """Number, a few words, and a sentence."""
    example: str = ""
    aliases: tuple[str, ...] = ()

    def parse(self, argv: Sequence[str]) -> tuple[Run, argparse.Namespace]:
        """The function of the command that was given, and the values for it.

        Ends the process for --help, --version and a wrong command line, as argparse does.
        """
        command, rest = self._find(argv)
        if command is None or command.run is None:
            self._no_command(command, rest)
        typed = " ".join(argv[: len(argv) - len(rest)])
        values = argparse.Namespace(command=typed, **command.sets)
        parser = self.parser(command)
        values, late = parser.parse_known_args(rest, values)
        # argparse leaves out an optional argument that comes behind an option, as in `passwd FILE --generate USER`.
        last = next((each for each in command.all_options if each.optional), None)
        if (
            last is not None
            and len(late) == 1
            and not late[0].startswith("-")
            and getattr(values, last.spelling) is None
        ):
            setattr(values, last.spelling, last.type(late.pop()))
        if late:
            parser.error(f"unrecognized arguments: {' '.join(late)}")
        if command.fault is not None and (fault := command.fault(values)):
            parser.error(fault)
        return command.run, values

    def parser(self, command: Command | None) -> argparse.ArgumentParser:
        """The parser of one command, of a family of commands, or of the program alone."""
        name = f"{self.name} {command.name}" if command else self.name
        runs = command is not None and command.run is not None
        parser = argparse.ArgumentParser(
            prog=name,
            usage=None if runs else f"{name} COMMAND [options]",
            description=textwrap.fill(_text(command) if command else self.description, _WIDTH),
            epilog=self._epilog(command),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if command is None:
            parser.add_argument("--version", action="version", version=f"{self.name} {self.version}")
        for each in command.options if command else ():
            each.add_to(parser)
        return parser

    def family(self, command: Command | None) -> list[Command]:
        """The commands that begin with the name of a command; all commands for None."""
        start = f"{command.name} " if command else ""
        return [each for each in self.commands if each.run is not None and each.name.startswith(start)]

    def _find(self, argv: Sequence[str]) -> tuple[Command | None, list[str]]:
        named = {name: command for command in self.commands for name in command.names}
        for count in (2, 1):
            command = named.get(" ".join(argv[:count])) if len(argv) >= count else None
            if command is not None:
                return command, list(argv[count:])
        return None, list(argv)

    def _no_command(self, family: Command | None, rest: Sequence[str]) -> NoReturn:
        parser = self.parser(family)
        if rest and rest[0].startswith("-"):
            parser.parse_args(rest)
        start = f"{family.name} " if family else ""
        import difflib  # a good command line does without

        known = [name.removeprefix(start) for each in self.family(family) for name in each.names]
        near = difflib.get_close_matches(rest[0], known, n=1) if rest else []
        fault = f"there is no command {rest[0]!r}" if rest else "a command is missing"
        parser.error(f"{fault}; {f'do you mean {near[0]}? All' if near else 'the'} commands: {', '.join(known)}")

    def _epilog(self, command: Command | None) -> str:
        parts = []
        if family := self.family(command):
            parts.append("\n".join(["commands:", *_listed(family)]))
        parts.append("\n".join(["exit status:", *(f"  {number} {words}" for number, words, _ in self.exit_status)]))
        if example := command.example if command else self.example:
            parts.append(f"example: {self.name} {example}")
        return "\n\n".join(parts)


def _text(command: Command) -> str:
    return f"{command.summary}  {command.description}".rstrip()


def _listed(commands: Sequence[Command]) -> Iterator[str]:
    width = max(len(command.name) for command in commands) + 4
    for command in commands:
        also = f"  Also: {', '.join(command.aliases)}." if command.aliases else ""
        yield textwrap.fill(
            command.summary + also,
            _WIDTH,
            initial_indent=f"  {command.name}".ljust(width),
            subsequent_indent=" " * width,
        )
