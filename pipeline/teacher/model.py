"""Teachers that are models of transformers: find and check the files, load the model, match its classes with the task's by name."""

import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from pipeline.errors import InputError
from pipeline.plugins import folders_of
from pipeline.storage import read_json, sha256_of

logger = logging.getLogger(__name__)

WEIGHTS = "model.safetensors"
PICKLED = {".bin", ".pt", ".pth", ".ckpt", ".pkl"}


@dataclass(frozen=True)
class Files:
    """A model's files on this machine."""

    source: str
    """As in params.yaml."""
    folder: Path
    revision: str | None
    """The commit of a model from the Hugging Face Hub."""
    sha256: str
    """The hash of model.safetensors, or of the lines that `sha256sum` prints for the shards that its index lists."""


@dataclass(frozen=True)
class Teacher:
    """A sequence classifier, ready to label: in float32, on the CPU, in evaluation mode, with a fast tokenizer."""

    files: Files
    model: Any
    tokenizer: Any
    labels: tuple[str, ...]
    """The task's class names."""
    columns: tuple[int, ...]
    """For each of `labels`, the column of the model's output that holds it."""
    max_length: int | None
    """The most tokens that it can read, including special tokens; None if unknown."""


def find_files(source: str, sha256: str | None = None) -> Files:
    """Find a model's files and check its weights.

    :param source: `package:NAME:FOLDER`, a folder of an installed package, which is not imported; `folder:PATH`; or
        `hub:OWNER/NAME@REVISION`, downloaded into the Hugging Face cache if it is not cached.
    :param sha256: The expected hash of the weights; None skips the check.
    :raises InputError: If there is no such model, its weights are not safetensors, or their hash differs.
    """
    kind, _, place = source.partition(":")
    match kind:
        case "package":
            folder = _package_folder(source, *place.split(":", 1))
        case "hub":
            folder = _hub_folder(source, *place.rsplit("@", 1))
        case _:
            folder = Path(place)
    if not folder.is_dir():
        raise InputError(f"{source}: {folder} is not a folder")
    found = _weights_sha256(source, folder)
    if sha256 is not None and found != sha256.lower():
        raise InputError(f"{source}: the weights in {folder} have sha256 {found}, not {sha256}")
    return Files(source, folder, folder.name if kind == "hub" else None, found)


def _package_folder(source: str, package: str, inside: str) -> Path:
    folders = folders_of(package)
    if not folders:
        raise InputError(f"{source}: the Python package {package!r} is not installed; install it with pip")
    return folders[0] / inside


def _hub_folder(source: str, name: str, revision: str) -> Path:
    from huggingface_hub import snapshot_download

    with _clear_fault(source, "download failed"):
        wanted = ["*.json", "model*.safetensors", "*.txt", "*.model"]
        return Path(snapshot_download(name, revision=revision, allow_patterns=wanted))


def _weights_sha256(source: str, folder: Path) -> str:
    if (folder / WEIGHTS).is_file():
        return sha256_of(folder / WEIGHTS)
    index = folder / f"{WEIGHTS}.index.json"
    if index.is_file():
        shards = sorted(set(read_json(index)["weight_map"].values()))
        lines = "".join(f"{sha256_of(folder / name)}  {name}\n" for name in shards)
        return hashlib.sha256(lines.encode()).hexdigest()
    pickled = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLED)
    only = f", only {', '.join(pickled)}" if pickled else ""
    raise InputError(
        f"{source}: {folder} has no {WEIGHTS}{only}; pickled weights can run code, so they are never loaded: convert them "
        "once, on a machine where that is safe, with save_pretrained of transformers"
    )


@contextmanager
def _clear_fault(source: str, fault: str) -> Iterator[None]:
    """Turn an error of a library into an InputError with its first line."""
    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise InputError(f"{source}: {fault}: {first}") from error


def quieten() -> None:
    """Silence the warnings and the progress bars of transformers."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


def load_tokenizer(files: Files) -> Any:
    """Load a model's tokenizer. Raises an InputError if it does not load, or is not a fast tokenizer."""
    with _clear_fault(files.source, "its tokenizer does not load"):
        tokenizer = AutoTokenizer.from_pretrained(files.folder, local_files_only=True, trust_remote_code=False)
    if not tokenizer.is_fast:
        raise InputError(f"{files.source}: has no fast tokenizer (tokenizer.json)")
    return tokenizer


def load_classifier(files: Files, **config: Any) -> tuple[Any, list[str]]:
    """Load a sequence classifier in float32.

    :param config: Changes to its configuration: num_labels, id2label, label2id.
    :return: The model, and the names of the parameters that are missing in its file, which are random.
    :raises InputError: If transformers cannot open it.
    """
    quieten()
    with _clear_fault(files.source, "transformers cannot open it as a classifier"):
        model, loading = AutoModelForSequenceClassification.from_pretrained(
            files.folder,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=torch.float32,
            ignore_mismatched_sizes=True,  # a head of another size is reported as missing
            output_loading_info=True,
            **config,
        )
    missing = {*loading["missing_keys"], *(name for name, *_ in loading["mismatched_keys"])}
    return model, sorted(missing)


def open_teacher(files: Files, labels: Sequence[str], names: Mapping[str, str]) -> Teacher:
    """Load a classifier that is ready to label.

    :param labels: The task's class names.
    :param names: The teacher's class name -> the task's, where they differ.
    :raises InputError: If it has no trained classification head, or other classes.
    """
    columns = align(files, labels, names)  # first, because it is cheap
    model, missing = load_classifier(files)
    if missing:
        raise InputError(
            f"{files.source}: its weights have no {', '.join(missing[:4])}{', ...' if len(missing) > 4 else ''}: it has no trained "
            "classification head; add `finetune` to the teacher's model, which trains one"
        )
    tokenizer = load_tokenizer(files)
    return Teacher(files, model.eval(), tokenizer, tuple(labels), columns, max_length(model, tokenizer))


def align(files: Files, labels: Sequence[str], names: Mapping[str, str]) -> tuple[int, ...]:
    """Match the classes in a model's config.json with the task's, as `match` does."""
    with _clear_fault(files.source, "its config.json does not load"):
        id2label = AutoConfig.from_pretrained(files.folder, local_files_only=True, trust_remote_code=False).id2label
    return match(files.source, [str(id2label[i]) for i in range(len(id2label))], labels, names)


def match(source: str, classes: Sequence[str], labels: Sequence[str], names: Mapping[str, str]) -> tuple[int, ...]:
    """Match a teacher's classes with the task's by name, ignoring case.

    :param source: The teacher, for the message.
    :param classes: Its class names, in the order of its logits.
    :param labels: The task's class names.
    :param names: The teacher's class name -> the task's, where they differ.
    :return: For each of `labels`, its position in `classes`.
    :raises InputError: If the two sets of names differ; the message shows both.
    """
    if (len(labels), list(classes), dict(names)) == (1, ["LABEL_0"], {}):
        return (0,)  # a regression whose output has only the default name of transformers
    # If two of the task's labels differ in case only, names must match exactly.
    fold = str.casefold if len({name.casefold() for name in labels}) == len(labels) else str
    mapping = {fold(name): label for name, label in names.items()}
    unknown = sorted(mapping.keys() - {fold(name) for name in classes})
    renamed = [fold(mapping.get(fold(name), name)) for name in classes]
    if unknown or sorted(renamed) != sorted(fold(name) for name in labels):
        also = f", and `labels` maps {unknown[0]!r}, which the teacher does not have" if unknown else ""
        raise InputError(
            f"{source}: the teacher's classes are [{', '.join(classes)}], the task's are [{', '.join(labels)}]{also}; map "
            f"the names under the teacher's model, as `labels: {{{classes[0]}: {labels[0]}, ...}}`"
        )
    return tuple(renamed.index(fold(name)) for name in labels)


def max_length(model: Any, tokenizer: Any) -> int | None:
    """Return the most tokens that a model can read, including special tokens; None if neither it nor its tokenizer has a limit."""
    limits = [tokenizer.model_max_length, getattr(model.config, "max_position_embeddings", None)]
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, torch.nn.Embedding):
            # RoBERTa-like models count positions from padding_idx + 1.
            reserved = 0 if module.padding_idx is None else module.padding_idx + 1
            limits.append(module.num_embeddings - reserved)
    return min((n for n in limits if n is not None and 0 < n < 10**9), default=None)  # 10^30 means "no limit"


def mask_token(teacher: Teacher) -> str:
    """Return the teacher's mask token. Raises an InputError if it has none, or its tokenizer splits it."""
    tokenizer = teacher.tokenizer
    if tokenizer.mask_token is None:
        raise InputError(f"{teacher.files.source}: has no mask token, but augmented rows contain masked words")
    ids = tokenizer(f"a {tokenizer.mask_token} b", add_special_tokens=False)["input_ids"]
    if ids.count(tokenizer.mask_token_id) != 1:
        raise InputError(f"{teacher.files.source}: its tokenizer splits the mask token {tokenizer.mask_token!r}")
    return str(tokenizer.mask_token)


def describe(teacher: Teacher, licence: str) -> dict[str, Any]:
    """Return what identifies a teacher, as JSON, for users of its logits; the licence is that of its weights."""
    id2label = teacher.model.config.id2label
    return {
        "source": teacher.files.source,
        "revision": teacher.files.revision,
        "sha256": teacher.files.sha256,
        "tokenizer_sha256": tokenizer_sha256(teacher.tokenizer),
        "licence": licence,
        "architecture": type(teacher.model).__name__,
        "labels": {name: id2label[column] for name, column in zip(teacher.labels, teacher.columns, strict=True)},
        "max_length": teacher.max_length,
        "parameters": sum(parameter.numel() for parameter in teacher.model.parameters()),
        "bytes": sum(path.stat().st_size for path in teacher.files.folder.glob("model*.safetensors")),
    }


def tokenizer_sha256(tokenizer: Any) -> str:
    """Return the SHA-256 of a fast tokenizer's JSON, without the padding and truncation that calls set."""
    state = tokenizer.backend_tokenizer
    state.no_padding()
    state.no_truncation()
    return hashlib.sha256(state.to_str().encode()).hexdigest()
