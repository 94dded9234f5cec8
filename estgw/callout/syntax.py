"""Syntax errors in scripts and in what lies beside them, found without running anything: for `estgw check`."""

from __future__ import annotations

import re
import subprocess
import warnings
from pathlib import Path

from estgw.callout import program
from estgw.callout.language import Language, language

SHELLS = {"sh", "bash", "dash", "ksh"}
"""Interpreters whose option -n reads a script and runs nothing."""
SECONDS = 10.0
"""For one script."""
_COMPILE = "import sys; compile(open(sys.argv[1], 'rb').read(), sys.argv[1], 'exec', dont_inherit=True)"
_SHELL_WORDS = re.compile(r": (?:line )?(\d+): (.*)")
_PYTHON_WORDS = re.compile(r'File ".*", line (\d+)')


def faults(script: Path, search_path: str) -> list[str]:
    """The first syntax error of a Bash, sh or Python script, as `file:line: syntax error: words`; of others none."""
    command = program.interpreter(script)
    name = next((Path(word).name for word in command if Path(word).name != "env" and not word.startswith("-")), "")
    if language(script) is Language.OURS:
        found = _python(script)
    elif language(script) is Language.PYTHON:
        found = _other_python(script, command, search_path)
    elif name in SHELLS:
        found = _shell(script, command, search_path)
    else:
        found = None
    return [found] if found else []


def library_faults(folder: Path, search_path: str) -> list[str]:
    """The same for modules and packages beside scripts, and for files that Bash scripts read with `source`."""
    return [fault for path in program.libraries(folder) for fault in library_fault(path, search_path)]


def library_fault(path: Path, search_path: str) -> list[str]:
    """The same for one such file, by its suffix."""
    match path.suffix:
        case ".py":
            found = _python(path)
        case ".sh":
            found = _shell(path, ["bash"], search_path)
        case _:
            found = None
    return [found] if found else []


def _shell(script: Path, command: list[str], search_path: str) -> str | None:
    done = _run([*command, "-n", str(script)], search_path)
    if done is None or done.returncode == 0:
        return None
    first = done.stderr.splitlines()[0] if done.stderr.strip() else f"exit status {done.returncode}"
    found = _SHELL_WORDS.search(first)
    return _sentence(script, found[1], found[2]) if found else _sentence(script, None, first)


def _python(script: Path) -> str | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(script.read_bytes(), str(script), "exec", dont_inherit=True)
    except SyntaxError as fault:
        return _sentence(script, str(fault.lineno or 1), fault.msg)
    except (OSError, ValueError) as fault:  # ValueError: a zero in it
        return _sentence(script, None, str(fault))
    return None


def _other_python(script: Path, command: list[str], search_path: str) -> str | None:
    """By the interpreter that would run it, as another version may have another grammar."""
    done = _run([*command, "-c", _COMPILE, str(script)], search_path)
    if done is None or done.returncode == 0:
        return None
    lines = _PYTHON_WORDS.findall(done.stderr)  # of the traceback; the last one is the script's
    words = (done.stderr.strip().splitlines() or ["?"])[-1].removeprefix("SyntaxError: ")
    return _sentence(script, lines[-1] if lines else None, words)


def _run(command: list[str], search_path: str) -> subprocess.CompletedProcess[str] | None:
    """None if the interpreter can't be started, which is a fault of its own, or does not end."""
    try:
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=SECONDS,
            check=False,
            # No BASH_ENV: Bash would run what it names.
            env={"PATH": search_path, "LC_ALL": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return None


def _sentence(script: Path, line: str | None, words: str) -> str:
    words = re.sub("^syntax error:? ", "", words, flags=re.IGNORECASE)
    return f"{script}{f':{line}' if line else ''}: syntax error: {words}"
