"""Scripts that must end alike with every runner: status, output, and stderr to the letter."""

ALIKE = {
    # Exit statuses.
    "falls-off-the-end": "print('done')",
    "exit-none": "import sys; sys.exit()",
    "exit-text": "import sys; print('out'); sys.exit('words for stderr')",
    "exit-object": "import sys; sys.exit((1, 'two'))",
    "exit-true": "raise SystemExit(True)",
    "exit-beyond-a-byte": "import sys; sys.exit(256 + 77)",
    "exit-negative": "import sys; sys.exit(-1)",
    "exit-huge": "import sys; sys.exit(1 << 80)",
    "os-exit": "import os; print('lost'); os._exit(9)",
    "os-exit-after-a-flush": "import os; print('kept', flush=True); os._exit(200)",
    "exit-in-a-function": "def main():\n    raise SystemExit(65)\nmain()",
    "exit-subclass": "class Refused(SystemExit): pass\nraise Refused(77)",
    "traceback": "def one():\n    return 1 / 0\n\ndef main():\n    one()\n\nmain()",
    "traceback-of-two": "try:\n    {}['x']\nexcept KeyError as fault:\n    raise ValueError('second') from fault",
    "traceback-group": "raise ExceptionGroup('several', [ValueError(1), TypeError('two')])",
    "output-before-a-traceback": "print('so far')\nraise RuntimeError('Zoë')",
    "own-excepthook": "import sys\nsys.excepthook = lambda *a: print('hooked', a[0].__name__)\n1 / 0",
    "broken-excepthook": "import sys\nsys.excepthook = lambda: None\nsys.exit(3)",
    "keyboard-interrupt": "print('so far')\nraise KeyboardInterrupt",
    "killed": "import os, signal\nprint('so far', flush=True)\nos.kill(os.getpid(), signal.SIGKILL)",
    "terminated": "import os, signal\nos.kill(os.getpid(), signal.SIGTERM)",
    "interrupted": "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(1)",
    "user-signal": "import os, signal\nos.kill(os.getpid(), signal.SIGUSR1)",
    "broken-pipe-is-an-error": "import os\nr, w = os.pipe()\nos.close(r)\nos.write(w, b'x')",
    "recursion": "def f():\n    f()\ntry:\n    f()\nexcept RecursionError as fault:\n    print(type(fault))",
    "generator-exit": "raise GeneratorExit",
    # Not valid Python.
    "syntax-error": "print('never')\nif:",
    "indentation-error": "if True:\nprint(1)",
    "syntax-warning": "print(1 is 1)",
    "future": "from __future__ import annotations\ndef f(x: no_such_name): pass\nprint(f.__annotations__)",
    "no-future-of-ours": "def f(x: int): pass\nprint(f.__annotations__, f.__code__.co_flags & 0x1000000)",
    # Standard streams.
    "stdin-text": "import sys\nprint([line for line in sys.stdin])",
    "stdin-bytes": "import sys\nprint(sys.stdin.buffer.read())",
    "stdin-input": "print(input(), input('prompt'))",
    "stdin-descriptor": "import os\nprint(os.read(0, 5), os.lseek(0, 0, 0), os.read(0, 100))",
    "stdin-reopened": "print(open('/dev/stdin', 'rb').read())",
    "stdin-written": "import os\nos.write(0, b'x')",
    "stdout-bytes": "import sys\nsys.stdout.buffer.write(bytes(range(256)))",
    "stdout-mixed": "import os, sys\nprint('one')\nos.write(1, b'two\\n')\nprint('three')",
    "stdout-surrogates": "print('\\udcff\\udc80 Zoë €')",
    "stderr-surrogates": "import sys\nprint('\\ud800 Zoë', file=sys.stderr)",
    "stdout-large": "print('x' * 60000)",
    "stdout-closed": "import os\nprint('lost')\nos.close(1)",
    "stdout-closed-properly": "import sys\nprint('kept')\nsys.stdout.close()",
    "stdout-none": "import sys\nsys.stdout = None\nprint('nowhere')",
    "stdout-replaced": "import io, sys\nsys.stdout = io.StringIO()\nprint('nowhere')",
    "stdout-replaced-later": "import sys\nprint('kept')\nsys.stdout = sys.stderr\nprint('there')",
    "stderr-unbuffered": "import os, sys\nsys.stderr.write('half')\nsys.stderr.write(' line\\n')\nos._exit(0)",
    "streams": "import sys\nfor s in (sys.stdin, sys.stdout, sys.stderr):\n    print(s, s.mode, s.encoding, s.errors, "
    "s.newlines, s.line_buffering, s.write_through, s.buffer, s.buffer.raw.name, s.buffer.raw.closefd, s.fileno(), "
    "s.isatty())\nprint(sys.stdin is sys.__stdin__, sys.stdout is sys.__stdout__, sys.stderr is sys.__stderr__)",
    # After the body.
    "atexit": "import atexit\natexit.register(print, 'bye')\natexit.register(print, 'good')\nprint('body')",
    "atexit-after-a-traceback": "import atexit\natexit.register(print, 'bye')\n1 / 0",
    "atexit-that-fails": "import atexit\natexit.register(lambda: 1 / 0)\nprint('body')",
    "a-thread-that-goes-on": "import threading, time\ndef f():\n    time.sleep(0.2)\n    print('thread')\n"
    "threading.Thread(target=f).start()\nprint('main')",
    "a-daemon-thread": "import threading, time\nthreading.Thread(target=time.sleep, args=[9], daemon=True).start()",
    "a-thread-that-fails": "import threading\nt = threading.Thread(None, lambda: 1 / 0, 't')\nt.start()\nt.join()",
    "an-open-file": "f = open('left', 'w')\nf.write('words')",
    "a-destructor": "class C:\n    def __del__(self):\n        print('gone')\nc = C()\nd = C()\nd.me = d",
    "fork": "import os\nprint('once')\nif os.fork() == 0:\n    os._exit(0)\nos.wait()",
    "fork-that-ends-like-us": "import os, sys\nprint('twice')\npid = os.fork()\nif pid == 0:\n    sys.exit(5)\n"
    "os.wait()\nsys.exit(6)",
    "subprocess": "import subprocess\nprint(subprocess.run(['sh', '-c', 'cat; echo err >&2; exit 3']).returncode)",
    "multiprocessing": "import multiprocessing\nwith multiprocessing.get_context('fork').Pool(2) as p:\n"
    "    print(p.map(abs, [-1, -2]))",
    "asyncio": "import asyncio\nasync def main():\n    p = await asyncio.create_subprocess_exec('true')\n"
    "    print(await p.wait())\nasyncio.run(main())",
    "executor": "from concurrent.futures import ThreadPoolExecutor\n"
    "with ThreadPoolExecutor() as e:\n    print(list(e.map(abs, [-1])))",
    # The process.
    "main": "print({k: v for k, v in sorted(globals().items())}.keys(), __name__, __file__, __spec__, __package__, "
    "__cached__, __doc__, __annotations__, type(__builtins__), type(__loader__).__name__)\n"
    "import __main__, sys\nprint(__main__.__dict__ is globals(), sys.modules['__main__'] is __main__)",
    "argv": "import sys\nprint(sys.argv, sys.orig_argv, sys.executable, sys.prefix, sys.flags, "
    "sys.warnoptions, sys._xoptions)",
    "path": "import sys\nprint(sys.path)",
    "environment": "import os\nprint(sorted(os.environ.items()), sorted(os.environb.items()))",
    "environment-of-children": "import subprocess\nsubprocess.run(['env'])",
    "time-zone": "import time\nprint(time.tzname, time.localtime(0))",
    "where": "import os\nprint(os.getcwd(), oct(os.umask(0)), os.getsid(0) == os.getpgid(0) == os.getpid())",
    "limits": "import resource\nprint([resource.getrlimit(n) for n in range(16)])",
    "nice": "import os\nprint(os.nice(0), os.getgroups(), os.getuid(), os.sched_getaffinity(0))",
    "signals": "import signal\nprint([(n, str(signal.getsignal(n))) for n in sorted(signal.valid_signals())], "
    "signal.pthread_sigmask(signal.SIG_BLOCK, []), signal.set_wakeup_fd(-1), signal.getitimer(0))",
    # Without the two signals that the C library reserves.
    "signals-of-children": "import subprocess\ngrep = ['grep', '^Sig[BIC]', '/proc/self/status']\n"
    "lines = subprocess.run(grep, capture_output=True, text=True).stdout.splitlines()\n"
    "print([hex(int(line.split()[1], 16) & ~(3 << 31)) for line in lines])",
    "descriptors-of-children": "import subprocess\nsubprocess.run(['ls', '/proc/self/fd'])",
    "files": "import os, stat\nprint([stat.S_ISREG(os.fstat(n).st_mode) for n in (0, 1, 2)], "
    "[os.get_inheritable(n) for n in (0, 1, 2)], [os.lseek(n, 0, 1) for n in (0, 1, 2)])",
    "appending": "import fcntl, os\nprint([bool(fcntl.fcntl(n, fcntl.F_GETFL) & os.O_APPEND) for n in (1, 2)])",
    "terminal": "open('/dev/tty')",
    "collector": "import gc\nprint(gc.isenabled(), gc.get_threshold(), gc.garbage)",
    "threads": "import threading\nmain = threading.main_thread()\n"
    "print(threading.current_thread() is main, threading.active_count(), main.name)",
    "locale": "import locale, sys\nprint(locale.getlocale(), sys.getfilesystemencoding())",
    "limits-of-python": "import sys\nprint(sys.getrecursionlimit(), sys.getswitchinterval(), sys.gettrace(), "
    "sys.dont_write_bytecode, sys.pycache_prefix, sys.hexversion)",
    "hooks": "import sys\nprint(sys.excepthook is sys.__excepthook__, sys.displayhook is sys.__displayhook__, "
    "hasattr(sys, 'last_value'), hasattr(sys, 'ps1'))",
    "warnings": "import warnings\nprint(warnings.filters)\nwarnings.warn('!')\nwarnings.warn('', DeprecationWarning)",
    "logging": "import logging\nlogging.warning('to stderr')\nprint(logging.root.handlers)",
    "decimal": "import decimal, random\nprint(decimal.getcontext(), random.getstate()[0])",
    "pickle": "import pickle\nclass C: pass\nprint(pickle.loads(pickle.dumps(C())).__class__ is C)",
    "importlib": "from importlib.util import find_spec\nprint(find_spec('helper'), find_spec('sqlite3').origin)",
    "inspect": "import inspect\ndef f():\n    return 1\nprint(inspect.getsource(f), inspect.getfile(f))",
}  # fmt: skip

STDIN = b"one\r\ntwo\rthree \xff\nfour"
NOT_IN_A_WORKER = {"warnings", "logging", "a-destructor"}
"""A worker keeps the state that these scripts look at, and the manual says so."""
