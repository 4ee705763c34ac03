"""Starts Python and DVC in milliseconds: commands of these names that hand over to a fork server (see fork_server.py).

`commands()` is a folder with a `python`, a `python3` and a `dvc`, for the front of PATH. A test that is about the start of Python, about signals or
about what a command imports uses `sys.executable` instead.
"""

import atexit
import os
import socket
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

STAGES = (
    "torch torch.utils.data torch._dynamo torch.onnx transformers transformers.models.auto.tokenization_auto transformers.conversion_mapping transformers.models.bert.modeling_bert "
    "transformers.models.bert.tokenization_bert transformers.tokenization_utils_tokenizers accelerate tokenizers safetensors.torch pyarrow "
    "pyarrow.parquet pyarrow.dataset pyarrow.compute pyarrow.acero pandas pyarrow.csv pyarrow.json numpy pydantic yaml joblib joblib.externals.loky tqdm "
    "tqdm.contrib.logging filelock jinja2 xxhash nltk nltk.corpus spacy spacy.pipeline.factories onnx sklearn.linear_model "
    "sklearn.feature_extraction.text multiprocessing.pool concurrent.futures.process"
)
"""What stages import; none of the project's own modules, which come from a clone's folder, and neither polars nor onnxruntime, which start threads."""
DVC = (
    "dvc.cli dvc.cli.parser dvc.repo.open_repo dvc.repo.reproduce dvc.repo.experiments.run dvc.repo.experiments.queue.celery "
    "dvc.repo.experiments.show dvc.scm dvc.stage.run dvc.utils.hydra dvc.utils.strictyaml dvc.utils.studio dvc.daemon dvc.ignore hydra.main "
    "dvc_studio_client.post_live_metrics dvc_task.app.filesystem dvc_task.proc.manager dvc_data.index.checkout dvc_data.hashfile.status "
    "scmrepo.git scmrepo.fs pygit2 dulwich.porcelain dvc_render pyparsing flatten_dict fsspec.implementations.memory networkx celery.app.task celery.app.amqp celery.worker.worker "
    "celery.backends.filesystem kombu.transport.filesystem requests tabulate"
)
ENVIRONMENT = os.environ | {
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",  # a fork keeps one thread
}
ENVIRONMENT.pop("PYTHONPATH", None)
"""Of the servers; each command brings its own."""

REAL = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
"""PATH with the commands of this Python's environment in front."""

CLIENT = """#!{interpreter} -ISE
import sys, posix, marshal, _signal, _socket

# a command of the tests; see tests/served.py
name = sys.argv[0].rpartition("/")[2]
if name != "dvc":
    name = "python"
    first = sys.argv[1] if len(sys.argv) > 1 else "-"
    if first[0] == "-" and first not in ("-c", "-m") or b"PYTHONIOENCODING" in posix.environ:
        posix.execv("{python}", ["{python}", *sys.argv[1:]])  # an option of Python's start, or no program

server = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
server.connect("{folder}/" + name + ".socket")
ends = (_signal.SIGHUP, _signal.SIGINT, _signal.SIGTERM)
ignored = [int(number) for number in ends if _signal.getsignal(number) == _signal.SIG_IGN]
data = marshal.dumps(([name, *sys.argv[1:]], posix.getcwd(), dict(posix.environ), ignored))
files = b"".join(file.to_bytes(4, sys.byteorder) for file in (0, 1, 2))
server.sendmsg([len(data).to_bytes(8, sys.byteorder)], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, files)])
server.sendall(data)
for number in ends:
    if number not in ignored:
        _signal.signal(number, lambda number, frame: server.send(bytes([number])))
answer = server.recv(4)
if len(answer) < 4:
    posix.write(2, b"the fork server of the tests died\\n")
    posix._exit(70)
code = int.from_bytes(answer, sys.byteorder, signed=True)
if code < 0:
    _signal.signal(-code, _signal.SIG_DFL) if -code not in (9, 19) else None
    posix.kill(posix.getpid(), -code)
posix._exit(code)
"""


def stop(server: subprocess.Popen) -> None:
    """End a server. One whose tests were killed ends as well, for its standard input closes."""
    server.stdin.close()
    server.wait()


@cache
def commands() -> Path:
    """Return a folder with the commands. The first call starts the servers."""
    folder = Path(tempfile.mkdtemp(prefix="served-", dir="/tmp"))  # the path of a socket is short
    text = CLIENT.format(interpreter=Path(sys._base_executable).resolve(), python=sys.executable, folder=folder)
    for name in ("python", "python3", "dvc"):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    for name, modules in (("python", STAGES), ("dvc", DVC)):
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(f"{folder}/{name}.socket")
            listening.listen()
            errors = os.dup(2)
            files = [listening.fileno(), errors]
            server = subprocess.Popen(
                [sys.executable, Path(__file__).with_name("fork_server.py"), *map(str, files), modules],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=files,
                env=ENVIRONMENT,
                start_new_session=True,  # Ctrl-C is for the tests
            )
            os.close(errors)
        atexit.register(stop, server)
    return folder


def python() -> str:
    """Return the `python` that the fork server serves."""
    return str(commands() / "python")


def path() -> str:
    """Return PATH with the commands in front."""
    return os.pathsep.join([str(commands()), REAL])
