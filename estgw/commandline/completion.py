"""Completion for Bash, made from the table of a program; zsh reads it too, after `bashcompinit`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from estgw.commandline.table import Command, Option, Program


def bash(program: Program) -> str:
    """Commands, options, and values where they are files or few."""
    options = [option for command in program.commands for option in command.all_options if not option.is_argument]
    files = [option for option in options if option.type is Path]
    few = {name: option.choices or option.suggestions for option in options for name in option.names}
    free = [option for option in options if option.value and option.type is not Path and not few[option.names[0]]]
    first = [name for command in program.commands for name in command.names if " " not in name]
    # Two words come first: `fullcmc enroll` is not `fullcmc` with an argument.
    ordered = sorted(program.commands, key=lambda each: -len(each.name.split()))
    function = f"_{program.name}"
    return "\n".join(
        [
            f"# Completion for {program.name}, made from its table of commands by estgw.commandline.completion.",
            f"{function}() {{",
            "    local current=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} words= files=",
            "    COMPREPLY=()",
            '    case "$before" in',
            f"        {_any(files)})",
            '            mapfile -t COMPREPLY < <(compgen -f -- "$current")',
            "            return",
            "            ;;",
            *(f"        {name}) words='{' '.join(values)}' ;;" for name, values in sorted(few.items()) if values),
            *([f"        {_any(free)}) return ;;"] if free else []),
            "    esac",
            '    [[ -n $words ]] || case "${COMP_WORDS[*]:1:2} " in',
            *(_case(program, command) for command in ordered),
            f"        *) words='{' '.join([*dict.fromkeys(first), '--help', '--version'])}' ;;",
            "    esac",
            '    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")',
            '    [[ -z $files ]] || mapfile -t -O "${#COMPREPLY[@]}" COMPREPLY < <(compgen -f -- "$current")',
            "}",
            f"complete -o filenames -F {function} {' '.join([program.name, *program.aliases])}",
            "",
        ]
    )


def _any(options: Sequence[Option]) -> str:
    return "|".join(sorted({name for option in options for name in option.names}))


def _case(program: Program, command: Command) -> str:
    words = [each.name.split()[1] for each in program.family(command) if each is not command]
    arguments = [option for option in command.all_options if option.is_argument]
    words += [value for option in arguments for value in option.choices or option.suggestions]
    words += [name for option in command.all_options if not option.is_argument for name in option.names]
    patterns = "|".join(f'"{name} "*' for name in command.names)
    files = " files=1" if any(option.type is Path for option in arguments) else ""
    return f"        {patterns}) words='{' '.join([*words, '--help'])}'{files} ;;"
