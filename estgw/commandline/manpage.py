"""A man page, made from the table of a program: options that every command has are described once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from estgw.commandline.table import Command, Group, Option, Program


@dataclass(frozen=True, kw_only=True)
class Manual:
    """The texts of a man page that are not in the table."""

    name: str
    """Behind the program's name in the section NAME."""
    description: str
    environment: tuple[tuple[str, str], ...]
    examples: tuple[tuple[str, str], ...]
    """Purpose and command line of each example."""
    see_also: str


def man(program: Program, manual: Manual) -> str:
    """The man page in roff's man macros."""
    commands = program.family(None)
    common = _common(commands)
    lines = [
        f'.TH {program.name.upper()} 1 "" "{program.name} {_roff(program.version)}" "User Commands"',
        ".SH NAME",
        rf"{program.name} \- {_roff(manual.name)}",
        ".SH SYNOPSIS",
        *(f".B {program.name} {_roff(each.name)}\n{_roff(_usage(each))}\n.br" for each in commands),
        ".SH DESCRIPTION",
        _roff(program.description),
        _roff(manual.description),
        ".SH COMMANDS",
    ]
    for command in commands:
        also = f"  (Also {', '.join(command.aliases)}.)" if command.aliases else ""
        lines += [f".SS {_roff(command.name)}", _roff(f"{command.summary}  {command.description}".rstrip() + also)]
        lines += [line for option in command.all_options if option not in common for line in _entry(option)]
    if common:
        lines.append(".SH COMMON OPTIONS")
        lines += [line for option in common for line in _entry(option)]
    statuses = [(str(number), sentence) for number, _, sentence in program.exit_status]
    for title, table in (("EXIT STATUS", statuses), ("ENVIRONMENT", manual.environment)):
        lines.append(f".SH {title}")
        lines += [f".TP\n.B {_roff(name)}\n{_roff(text)}" for name, text in table]
    lines.append(".SH EXAMPLES")
    lines += [f".PP\n{_roff(text)}\n.PP\n.nf\n.RS\n{_roff(line)}\n.RE\n.fi" for text, line in manual.examples]
    lines += [".SH SEE ALSO", _roff(manual.see_also)]
    return "\n".join(lines) + "\n"


def _common(commands: Sequence[Command]) -> list[Option]:
    """The options that every command has."""
    return [option for option in commands[0].all_options if all(option in each.all_options for each in commands)]


def _entry(option: Option) -> list[str]:
    value = rf"\fI{_roff(option.value)}\fR" if option.value else ""
    if option.is_argument:
        return [".TP", value, _roff(option.help)]
    spellings = ", ".join(rf"\fB{_roff(name)}\fR" for name in option.names)
    return [".TP", f"{spellings} {f'[{value}]' if option.without_value else value}".rstrip(), _roff(option.help)]


def _usage(command: Command) -> str:
    """The necessary options, then the arguments."""
    words = [_brief(option) for option in command.all_options if option.required and not option.is_argument]
    words += [_either(group) for group in command.groups if group.required]
    if any(not option.is_argument and not option.required for option in command.all_options):
        words.append("[options]")
    arguments = [option for option in command.all_options if option.is_argument]
    return " ".join([*words, *(f"[{each.value}]" if each.optional else each.value for each in arguments)])


def _either(group: Group) -> str:
    return "{ " + " | ".join(map(_brief, group.options)) + " }"


def _brief(option: Option) -> str:
    return f"{option.names[0]} {f'[{option.value}]' if option.without_value else option.value}".rstrip()


def _roff(text: str) -> str:
    escaped = text.replace("\\", r"\e").replace("-", r"\-")
    return r"\&" + escaped if escaped.startswith((".", "'")) else escaped
