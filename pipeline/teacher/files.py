"""A model's files: find them, and refuse what cannot be a right teacher. It reads JSON and safetensors headers, never the weights.

Neither PyTorch nor transformers is imported, so that `offline-distill check` can look at every teacher.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pipeline.errors import InputError
from pipeline.plugins import folders_of
from pipeline.teacher.classes import check_map, classes_of, match
from pipeline.teacher.weights import (
    CONFIG,
    SAVED,
    check_head,
    check_names,
    check_unquantised,
    heads,
    no_head,
    read_object,
    read_weights,
    vocabulary_size,
    weight_files,
    weights_sha256,
)

TOKENIZER = "tokenizer.json"
OTHER_HEADS = (
    "ForCausalLM",
    "ForConditionalGeneration",
    "ForMaskedLM",
    "ForMultipleChoice",
    "ForNextSentencePrediction",
    "ForPreTraining",
    "ForQuestionAnswering",
    "ForQuestionAnsweringSimple",
    "ForTokenClassification",
    "LMHeadModel",
)
"""Ends of the names of architectures whose outputs are not the classes of a text."""

VOCABULARIES = ("tokenizer*.json", "vocab*", "*.model", "*.tiktoken", "*.bpe")


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


def find_files(source: str, sha256: str | None = None) -> Files:
    """Find a model's files and check that its weights are whole.

    :param source: `package:NAME:FOLDER`, a folder of an installed package, which is not imported; `folder:PATH`; or
        `hub:OWNER/NAME@REVISION`, downloaded into the Hugging Face cache if it is not cached.
    :param sha256: The expected hash of the weights; None skips the check.
    :raises InputError: If there is no such model, its weights are not safetensors or not whole, or their hash differs.
    """
    folder = _folder(source, download=True)
    assert folder is not None
    with clear_fault(source, f"{folder} cannot be read"):
        read_weights(source, folder)
        found = weights_sha256(folder, weight_files(source, folder))
    if sha256 is not None and found != sha256.lower():
        raise InputError(f"{source}: the weights in {folder} have sha256 {found}, not {sha256}")
    return Files(source, folder, folder.name if source.startswith("hub:") else None, found)


def check_files(source: str, labels: Sequence[str], names: Mapping[str, str], finetune: bool) -> None:
    """Check a teacher's small files and the headers of its weights, without loading it. What is not on this machine is not checked.

    :param source: As for `find_files`; a user's own teacher, `python:`, is not checked.
    :param labels: The task's class names.
    :param names: The teacher's class name -> the task's, where they differ.
    :param finetune: Whether a classification head is trained, so that the model's own classes do not matter.
    :raises InputError: If the teacher cannot be right; the finetune stage gives the same messages.
    """
    folder = None if source.startswith("python:") else _folder(source, download=False)
    if folder is not None:
        check_folder(source, folder, labels, names, finetune)


def check_folder(
    source: str, folder: Path, labels: Sequence[str], names: Mapping[str, str], finetune: bool
) -> tuple[int, ...]:
    """Check a model's folder, as `check_files`; return the columns of the task's classes, none with `finetune`."""
    with clear_fault(source, f"{folder} cannot be read"):
        weights = read_weights(source, folder)
        config = read_config(source, folder)
        check_unquantised(source, config, weights)
        check_names(source, config["model_type"], weights)
        rows = vocabulary_size(source, config, weights)
        _check_tokenizer_files(source, folder, rows)
        if finetune:
            check_map(source, config, labels)
            return ()
        classes = classes_of(source, config, labels)
        if classes[0] == "LABEL_0" and not heads(weights):  # the names would be the first to differ
            raise InputError(no_head(source, "classifier, score or other head"))
        _check_architecture(source, config.get("architectures"))
        columns = match(source, classes, labels, names)
        check_head(source, weights, classes)
        return columns


@contextmanager
def clear_fault(source: str, fault: str, hint: str = "") -> Iterator[None]:
    """Turn any error of a library into an InputError with its first line, or with all of them if the first ends in a colon.

    :param hint: What to add where the error is of Rust code, which reads tokenizer.json.
    """
    try:
        yield
    except (InputError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:  # a panic of Rust code is not an Exception
        first, *others = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
        if first.endswith(":"):
            first = " ".join([first, *others])
        if not first or isinstance(error, AssertionError | AttributeError | LookupError | TypeError):
            first = f"{type(error).__name__}: {first}".removesuffix(": ")
        raise InputError(
            f"{source}: {fault}: {first if len(first) <= 400 else first[:397] + '...'}{hint if type(error) is Exception else ''}"
        ) from error


# --- where the files are --------------------------------------------------------------------------------------------------


def _folder(source: str, download: bool) -> Path | None:
    """Return a model's folder; None if it is on the Hugging Face Hub, not cached, and not to be downloaded."""
    kind, _, place = source.partition(":")
    match kind:
        case "package":
            package, inside = place.split(":", 1)
            folders = folders_of(package)
            if not folders:
                raise InputError(f"{source}: the Python package {package!r} is not installed; install it with pip")
            folder = folders[0] / inside
        case "hub":
            from huggingface_hub import snapshot_download

            name, revision = place.rsplit("@", 1)
            offline: dict[str, Any] = {} if download else {"local_files_only": True}
            try:
                with clear_fault(source, "download failed"):
                    folder = Path(snapshot_download(name, revision=revision, allow_patterns=SAVED, **offline))
            except InputError:
                if download:
                    raise
                return None
        case _:
            folder = Path(place)
    if not folder.is_dir():
        raise InputError(f"{source}: {folder} is not a folder")
    return folder


# --- what is in them ------------------------------------------------------------------------------------------------------


def read_config(source: str, folder: Path) -> dict[str, Any]:
    """Read a model's config.json. Raises an InputError if it is absent or no configuration of transformers."""
    if not (folder / CONFIG).is_file():
        raise InputError(f"{source}: {folder} has no {CONFIG}; save the model with model.save_pretrained(FOLDER)")
    config = read_object(source, folder / CONFIG, f"its {CONFIG} does not load")
    if not isinstance(config, dict) or not isinstance(config.get("model_type"), str):
        raise InputError(
            f"{source}: its {CONFIG} does not load: it has no model_type; copy the file that model.save_pretrained wrote"
        )
    return config


def _check_architecture(source: str, architectures: object) -> None:
    """Refuse a model that has a head, which is not a sequence classifier's."""
    named = [name for name in architectures if isinstance(name, str)] if isinstance(architectures, list) else []
    if named and all(name.endswith(OTHER_HEADS) for name in named):
        raise InputError(
            f"{source}: config.json has the architecture {named[0]}, which is not a classifier of whole texts (ForSequenceClassification); "
            "add `finetune` to the teacher's model, which trains a head for this task"
        )


def _check_tokenizer_files(source: str, folder: Path, rows: int | None) -> None:
    if not any(path.name != "tokenizer_config.json" for pattern in VOCABULARIES for path in folder.glob(pattern)):
        raise InputError(no_vocabulary(source, folder))
    fault = "its tokenizer does not load"
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if (folder / name).is_file() and not isinstance(read_object(source, folder / name, fault), dict):
            raise InputError(
                f"{source}: {fault}: {folder / name} is no JSON object; copy the file that tokenizer.save_pretrained wrote"
            )
    path = folder / TOKENIZER
    if not path.is_file():
        if any(folder.glob("*.model")) and find_spec("sentencepiece") is None:
            raise InputError(
                f"{source}: {fault}: {folder} has no {TOKENIZER}, and its SentencePiece model needs `pip install sentencepiece protobuf`"
            )
        return
    tokenizer = read_object(source, path, fault)
    if not isinstance(tokenizer, dict) or not isinstance(tokenizer.get("model"), dict):
        raise InputError(f"{source}: {fault}: {path} has no model; copy the file that tokenizer.save_pretrained wrote")
    added = [token for token in tokenizer.get("added_tokens") or [] if isinstance(token, dict)]
    vocabulary = tokenizer["model"].get("vocab")
    if isinstance(vocabulary, list):  # Unigram: pairs of a token and its score
        vocabulary = {pair[0]: i for i, pair in enumerate(vocabulary)}
    if not isinstance(vocabulary, dict):
        return
    if not vocabulary.keys() - {token.get("content") for token in added}:
        raise InputError(no_vocabulary(source, folder))
    ids = {token.get("content"): token.get("id") for token in added} | vocabulary
    check_ids(source, ids, rows)


def no_vocabulary(source: str, folder: Path) -> str:
    """Return the message for a tokenizer without words."""
    return (
        f"{source}: its tokenizer has no vocabulary, only special tokens, so every text would look the same; save the tokenizer "
        f"that the model was trained with into {folder}: tokenizer.save_pretrained(FOLDER)"
    )


def check_ids(source: str, ids: Mapping[Any, Any], rows: int | None) -> None:
    """Refuse a tokenizer with tokens that the model has no embedding for.

    :param ids: Token -> id.
    :param rows: Rows of the model's token embeddings; None: unknown.
    """
    if rows is None:
        return
    beyond = sorted((number, token) for token, number in ids.items() if isinstance(number, int) and number >= rows)
    if beyond:
        number, token = beyond[0]
        raise InputError(
            f"{source}: the model has no embedding for {len(beyond)} of its tokenizer's tokens: "
            f"{'a special token' if token is None else repr(token)} has id {number}, and the "
            f"embeddings have {rows} rows; use the tokenizer that the model was trained with, or call "
            "model.resize_token_embeddings(len(tokenizer)), train it, and save both with save_pretrained(FOLDER)"
        )
