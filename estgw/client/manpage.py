"""The man page and the completion for Bash, made from the parser: `python -m estgw.client.manpage man|bash`.

Options that every command has are described once.  zsh reads the completion too, after `bashcompinit`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence

from estgw import __version__
from estgw.client.cli import parser

_TRUST = (
    "The server is checked before anything is sent to it: its certificate must lead to an anchor and be for the name "
    "in the URL or, under explicit anchors, be an RA's.  Requests are linked to their TLS connection."
)
_EXIT_STATUS = (
    ("0", "Done."),
    ("1", "Failed, for a reason on this side, or the server's own (5xx)."),
    ("2", "The call makes no sense as it stands."),
    ("3", "Try later: the server wants to see the same request again (202 with Retry-After)."),
    ("4", "Refused: the server understood and said no; its words are on standard error."),
    ("5", "TLS or trust: the server is not one that may be believed."),
    ("6", "No connection, or none that lasted until an answer."),
    ("7", "The answer is not what the protocol promises."),
)
_ENVIRONMENT = (
    ("SSLKEYLOGFILE", "A file to which the TLS secrets are appended, for a protocol analyzer."),
    ("SSL_CERT_FILE, SSL_CERT_DIR", "Where --implicit finds the system's anchors."),
    ("TLS_UNIQUE_SR", "Set for the script of -R: base64 of the connection's channel binding; unset without one."),
    ("EST_TLS_BINDING", "Set for it too: tls-unique, tls-exporter or tls13-finished."),
    ("EST_SERVER_URL", "Set for it too: the URL that the request goes to."),
)
_EXAMPLES = (
    ("Get to know a CA, by a fingerprint that its operator told you:",
     "estclient cacerts -u est.example --fingerprint HEX -o ca.pem"),
    ("Get a certificate with a password; key in device.key, certificate in device.pem:",
     "estclient enroll -u est.example -c ca.pem -p estuser --new-key --subject CN=device-1 -o device.pem"),
    ("The same with a script that makes the request:",
     "estclient enroll -u est.example -c ca.pem -p estuser -R handlers/examples/genp10 -o device.pem"),
    ("Renew it in place, with a new key, in its last month:",
     "estclient reenroll -u est.example -c ca.pem --cert device.pem --key device.key --new-key --if-expires-within 4w"),
    ("Get a first certificate by CMC, with a secret that the CA knows as device-7's and that is asked for:",
     "estclient fullcmc enroll -u est.example -c ca.pem --identification device-7 --new-key --dns d.example -o d.pem"),
    ("Have it revoked:",
     "estclient fullcmc revoke -u est.example -c ca.pem --cert device.pem --key device.key --reason keyCompromise"),
)  # fmt: skip
_FILE_METAVARS = ("FILE", "SCRIPT")
_KINDS = (
    "auto",
    "ec:P-256",
    "ec:P-384",
    "ec:P-521",
    "rsa:3072",
    "ed25519",
    "ed448",
    "ml-dsa-44",
    "ml-dsa-65",
    "ml-dsa-87",
)


def man(top: argparse.ArgumentParser) -> str:
    """The man page in roff's man macros."""
    commands = _commands(top)
    common = _common(commands)
    lines = [
        f'.TH ESTCLIENT 1 "" "estclient {_roff(__version__)}" "User Commands"',
        ".SH NAME",
        r"estclient \- a client for Enrollment over Secure Transport (RFC 7030)",
        ".SH SYNOPSIS",
        *(f".B estclient {name}\n{_roff(_usage(command))}\n.br" for name, command, _ in commands),
        ".SH DESCRIPTION",
        _roff(top.description or ""),
        _TRUST,
        ".SH COMMANDS",
    ]
    for name, command, aliases in commands:
        also = f" (also {', '.join(aliases)})" if aliases else ""
        lines += [f".SS {name}", _roff((command.description or "") + also)]
        lines += [line for action in _own(command, common) for line in _entry(action)]
    lines.append(".SH COMMON OPTIONS")
    lines += [line for action in common for line in _entry(action)]
    for title, table in (("EXIT STATUS", _EXIT_STATUS), ("ENVIRONMENT", _ENVIRONMENT)):
        lines.append(f".SH {title}")
        lines += [f".TP\n.B {_roff(name)}\n{_roff(text)}" for name, text in table]
    lines.append(".SH EXAMPLES")
    lines += [f".PP\n{_roff(text)}\n.PP\n.nf\n.RS\n{_roff(line)}\n.RE\n.fi" for text, line in _EXAMPLES]
    lines += [".SH SEE ALSO", r"RFC 7030, RFC 8951, RFC 9908; .BR openssl (1)".replace(" .BR", "\n.BR")]
    return "\n".join(lines) + "\n"


def bash(top: argparse.ArgumentParser) -> str:
    """Completion for Bash: commands, options, and values where they are files or few."""
    commands = _commands(top)
    names = [word for name, _, aliases in commands for word in (name, *aliases) if " " not in word]
    files = sorted(
        {option for action in _all(commands) if action.metavar in _FILE_METAVARS for option in action.option_strings}
    )
    cases = []
    # The longer ones first: `fullcmc enroll` is not `fullcmc` with a word behind it.
    for name, command, aliases in sorted(commands, key=lambda each: -len(each[0].split())):
        options = [option for action in _all([(name, command, aliases)]) for option in action.option_strings]
        second = [other.split()[1] for other, _, _ in commands if other.startswith(f"{name} ")]
        patterns = "|".join(f'"{word} "*' for word in (name, *aliases))
        cases.append(f"        {patterns}) words='{' '.join([*second, *options])}' ;;")
    values = {
        option: [str(choice) for choice in action.choices]
        for action in _all(commands)
        if action.choices
        for option in action.option_strings
    } | {"--new-key": list(_KINDS)}
    rest = sorted(
        {
            option
            for action in _all(commands)
            if action.nargs != 0 and action.metavar not in _FILE_METAVARS and not action.choices
            for option in action.option_strings
        }
        - {"--new-key"}
    )
    return "\n".join(
        [
            "# Completion for estclient, made from its parser by estgw.client.manpage.",
            "_estclient() {",
            "    local current=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} words=",
            "    COMPREPLY=()",
            '    case "$before" in',
            f"        {'|'.join(files)})",
            '            mapfile -t COMPREPLY < <(compgen -f -- "$current")',
            "            return",
            "            ;;",
            *(f"        {option}) words='{' '.join(choices)}' ;;" for option, choices in sorted(values.items())),
            f"        {'|'.join(rest)}) return ;;",
            "    esac",
            '    [[ -n $words ]] || case "${COMP_WORDS[*]:1:2} " in',
            *cases,
            f"        *) words='{' '.join([*names, '--help', '--version'])}' ;;",
            "    esac",
            '    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")',
            "}",
            "complete -o filenames -F _estclient estclient estgw-client",
            "",
        ]
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Print one of the two on stdout."""
    options = argparse.ArgumentParser(prog="python -m estgw.client.manpage", description="Print generated documents.")
    options.add_argument("what", choices=("man", "bash"))
    chosen = options.parse_args(argv)
    sys.stdout.write(man(parser()) if chosen.what == "man" else bash(parser()))
    return 0


Named = tuple[str, argparse.ArgumentParser, list[str]]


def _commands(top: argparse.ArgumentParser) -> list[Named]:
    """Name, parser and aliases of every command, in order."""
    (found,) = [action for action in top._actions if isinstance(action, argparse._SubParsersAction)]
    order: dict[int, Named] = {}
    for name, command in found.choices.items():
        if id(command) in order:
            order[id(command)][2].append(name)
        else:
            order[id(command)] = (name, command, [])
    return list(order.values())


def _all(commands: Sequence[Named]) -> Iterator[argparse.Action]:
    for _, command, _ in commands:
        yield from (action for action in command._actions if action.option_strings)


def _common(commands: Sequence[Named]) -> list[argparse.Action]:
    """The options that every command has, as the first one has them."""
    shared = set.intersection(*({tuple(action.option_strings) for action in _all([one])} for one in commands))
    return [action for action in _all(commands[:1]) if tuple(action.option_strings) in shared]


def _own(command: argparse.ArgumentParser, common: Sequence[argparse.Action]) -> list[argparse.Action]:
    known = {tuple(action.option_strings) for action in common}
    return [action for action in command._actions if tuple(action.option_strings) not in known]


def _entry(action: argparse.Action) -> list[str]:
    value = _value(action)
    spellings = ", ".join(rf"\fB{_roff(option)}\fR" for option in action.option_strings)
    return [".TP", f"{spellings} {value}".rstrip(), _roff(action.help or "")]


def _value(action: argparse.Action) -> str:
    if action.nargs == 0:
        return ""
    word = " | ".join(map(str, action.choices)) if action.choices else str(action.metavar or action.dest.upper())
    return rf"[\fI{_roff(word)}\fR]" if action.nargs == "?" else rf"\fI{_roff(word)}\fR"


def _usage(command: argparse.ArgumentParser) -> str:
    required = [f"{action.option_strings[0]} {action.metavar}" for action in command._actions if action.required]
    either = [group._group_actions for group in command._mutually_exclusive_groups if group.required]
    required += ["{ " + " | ".join(map(_brief, actions)) + " }" for actions in either]
    return " ".join([*required, "[options]"])


def _brief(action: argparse.Action) -> str:
    value = f"[{action.metavar}]" if action.nargs == "?" else action.metavar
    return f"{action.option_strings[0]} {value}"


def _roff(text: str) -> str:
    escaped = text.replace("\\", r"\e").replace("-", r"\-").replace("%%", "%")
    return r"\&" + escaped if escaped.startswith((".", "'")) else escaped


if __name__ == "__main__":
    sys.exit(main())
