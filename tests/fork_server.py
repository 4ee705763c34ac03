"""A process that has imported heavy modules and forks once per command, so that dozens of commands need only one import.

Run as `python fork_server.py SOCKET ERRORS MODULES`: the numbers of a listening Unix socket and of a file for the server's own errors, and names with
spaces between them. Its standard output and error must be pipes, for Python asks at the start whether they can seek. It ends when its standard input
closes, and its children with it. A client (see served.py) sends its command line, working folder, environment and standard streams.
It gets four bytes back: the exit code, negative where a signal ended the command. A byte from a client is the number of a signal for the command. A
client that dies kills its command and whatever that started.

A command is not a new process in every way: C libraries have read OMP_NUM_THREADS and MALLOC_* before it sets them, and the modules that the server
has imported are there from the start.
"""

import atexit
import contextlib
import gc
import importlib
import marshal
import os
import pickle
import select
import shutil
import signal
import socket
import sys
import threading
import types
import weakref
from pathlib import Path

STREAMS = 3


def preload(names: list[str]) -> None:
    for name in names:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError:  # an optional package
            continue
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    if "dvc" in sys.modules:
        parse_yaml_once()
    if (
        "transformers.conversion_mapping" in sys.modules
    ):  # a thousand regular expressions, compiled where a process opens its first model
        sys.modules["transformers.conversion_mapping"].get_checkpoint_conversion_mapping("bert")
    ours = [name for name in sys.modules if name.partition(".")[0] in ("pipeline", "stages")]
    assert not ours, f"these come from a clone, which may have changed them: {ours}"
    threads = Path("/proc/self/task")  # on Linux
    assert not threads.exists() or len([*threads.iterdir()]) == 1, (
        "a fork keeps one thread alone, and locks that the others hold for ever"
    )
    for registered in list(
        weakref.finalize._registry
    ):  # what modules do at the end of a process costs each command 30 ms
        registered.atexit = False
    if "torch._dynamo.utils" in sys.modules:
        atexit.unregister(sys.modules["torch._dynamo.utils"].dump_compile_times)
    gc.collect()
    gc.freeze()


def parse_yaml_once() -> None:
    """Make DVC parse a text once a command. It parses dvc.yaml and dvc.lock dozens of times, which is half of its work."""
    yaml = sys.modules["dvc.utils.serialize._yaml"]
    parse, parsed = yaml.parse_yaml, {}

    def parse_yaml(text: str, path: object, typ: str = "safe") -> object:
        if typ != "safe":  # with comments, which a caller changes
            return parse(text, path, typ)
        if text not in parsed:
            parsed[text] = pickle.dumps(parse(text, path))
        return pickle.loads(parsed[text])

    for module in [module for name, module in sys.modules.items() if name.startswith("dvc.")]:
        if getattr(module, "parse_yaml", None) is parse:
            module.parse_yaml = parse_yaml


def receive(client: socket.socket) -> tuple[tuple, list[int]]:
    header, files, _, _ = socket.recv_fds(client, 8, STREAMS)
    length = int.from_bytes(header, sys.byteorder)
    data = bytearray()
    while len(data) < length:
        part = client.recv(min(length - len(data), 1 << 20))
        if not part:
            raise ConnectionError("the client died")
        data += part
    return marshal.loads(bytes(data)), files


def run(argv: list[str]) -> None:
    """Run `python ARGUMENTS` or `dvc ARGUMENTS` as Python would, in this process."""
    command, *arguments = argv
    main = types.ModuleType("__main__")
    main.__dict__["__builtins__"] = __builtins__
    sys.modules["__main__"] = main
    own = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.path[:0] = own
    if any(Path(folder, "sitecustomize.py").exists() for folder in own):
        sys.modules.pop("sitecustomize", None)
        importlib.import_module("sitecustomize")
    if command == "dvc":
        sys.argv = argv
        code, file = "import sys; from dvc.cli import main; sys.exit(main())", "<dvc>"
    elif arguments[0] == "-c":
        sys.path.insert(0, "")
        sys.argv = ["-c", *arguments[2:]]
        code, file = arguments[1], "<string>"
    elif arguments[0] == "-m":
        sys.path.insert(0, str(Path.cwd()))
        sys.argv = arguments[:1] + arguments[2:]
        code = f"import runpy; runpy.run_module({arguments[1]!r}, run_name='__main__', alter_sys=True)"
        file = "<module>"
    else:
        file = main.__file__ = str(Path(arguments[0]).absolute())
        sys.path.insert(0, str(Path(file).resolve().parent))
        sys.argv = arguments
        code = Path(file).read_text(encoding="utf-8")
    exec(compile(code, file, "exec"), main.__dict__)


def end(error: BaseException | None) -> int:
    """Return the exit code of a program that ended with an error or without one, after all that Python does at its end."""
    code = 0
    if isinstance(error, SystemExit):
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
        if not isinstance(error.code, int | None):
            sys.stderr.write(f"{error.code}\n")
    elif error is not None:
        sys.excepthook(type(error), error, error.__traceback__)
        code = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and not stream.closed:
            stream.flush()
    if isinstance(error, KeyboardInterrupt):
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    return code & 0xFF


def become(request: tuple, files: list[int]) -> None:
    """Be the process that a client asked for, and end."""
    code = 70
    try:
        argv, folder, environment, ignored = request
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for number in ignored:
            signal.signal(number, signal.SIG_IGN)
        for target, file in enumerate(files):
            os.dup2(file, target)
            os.close(file)
        os.chdir(folder)
        os.environb.clear()
        os.environb.update(environment)
        for name, attribute in (("tempfile", "tempdir"), ("multiprocessing.process", "ORIGINAL_DIR")):
            if name in sys.modules:  # found for the server's folder and environment
                setattr(sys.modules[name], attribute, None if attribute == "tempdir" else folder)
        error = None
        try:
            run(argv)
        except BaseException as found:
            error = found
        code = end(error)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(code)


class Server:
    """Accepts commands and answers with their exit codes."""

    def __init__(self, listening: socket.socket) -> None:
        self.listening = listening
        self.woken, waker = os.pipe()
        for file in (self.woken, waker):
            os.set_blocking(file, False)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self.clients: dict[int, socket.socket] = {}
        """By the process that runs a client's command."""
        self.poll = select.poll()
        for file in (0, self.woken, listening.fileno()):
            self.poll.register(file, select.POLLIN)

    def serve(self) -> None:
        while True:
            for file, _ in self.poll.poll():
                if file == 0:
                    for pid in self.clients:
                        kill(pid)
                    return
                if file == self.woken:
                    os.read(self.woken, 4096)
                    self.collect()
                elif file == self.listening.fileno():
                    self.start()
                else:
                    self.forward(file)

    def start(self) -> None:
        client, _ = self.listening.accept()
        try:
            request, files = receive(client)
        except ConnectionError:
            client.close()
            return
        pid = os.fork()
        if pid == 0:
            os.setsid()
            for other in (self.listening, client, *self.clients.values()):
                other.close()
            become(request, files)
        for file in files:
            os.close(file)
        client.setblocking(False)
        self.clients[pid] = client
        self.poll.register(client.fileno(), select.POLLIN)

    def collect(self) -> None:
        """Answer the clients whose commands have ended."""
        while self.clients:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            with self.clients.pop(pid) as client, contextlib.suppress(KeyError, OSError):
                self.poll.unregister(client.fileno())
                client.sendall(os.waitstatus_to_exitcode(status).to_bytes(4, sys.byteorder, signed=True))

    def forward(self, file: int) -> None:
        """Send the command the signals that its client got, or end it with its client."""
        found = [(pid, client) for pid, client in self.clients.items() if client.fileno() == file]
        if not found:  # answered since
            return
        ((pid, client),) = found
        try:
            numbers = client.recv(16)
        except BlockingIOError:
            return
        except ConnectionError:
            numbers = b""
        for number in numbers:
            os.kill(pid, number)
        if not numbers:
            self.poll.unregister(file)
            kill(pid)


def kill(pid: int) -> None:
    """Kill a command and what it started in its session's first process group."""
    for send in (os.killpg, os.kill):  # its group may not exist yet
        with contextlib.suppress(ProcessLookupError):
            send(pid, signal.SIGKILL)


def main(file: str, errors: str, modules: str) -> None:
    listening = socket.socket(fileno=int(file))
    for inherited in (int(file), int(errors)):
        os.set_inheritable(inherited, False)
    folder = Path(listening.getsockname()).parent
    try:
        preload(modules.split())
        Server(listening).serve()
    except BaseException:
        os.dup2(int(errors), 2)
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # with the commands, which need all servers


if __name__ == "__main__":
    del sys.path[0]  # this folder
    main(*sys.argv[1:])
