"""Teachers that are models of transformers: load them, and refuse those that cannot be right."""

import hashlib
import inspect
import logging
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import tokenizers
import torch
import transformers
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from pipeline.errors import InputError
from pipeline.teacher.files import (
    TOKENIZER,
    Files,
    check_files,
    check_folder,
    check_ids,
    clear_fault,
    find_files,
    no_vocabulary,
    read_config,
)
from pipeline.teacher.weights import CONFIG, head_differs, listed, no_head, read_weights, shapes_differ, wrapped

__all__ = ["Files", "Teacher", "check_files", "find_files", "open_teacher"]

logger = logging.getLogger(__name__)

SAMPLE = 1_000
"""Examples whose tokens are counted to see whether a tokenizer knows the task's words."""

PADDING = 8
"""Tokens of padding that show whether a model ignores padding."""

PADDING_REFUSED, PADDING_WARNED = 1e-2, 1e-3
"""Changes of logits by padding, as parts of the largest logit."""

SMALLEST_SCALE = 0.01
"""Logits smaller than this count as this: rounding changes them by more than the parts above."""

UNKNOWN_REFUSED, UNKNOWN_WARNED = 0.9, 0.1
"""Shares of unknown tokens."""

HARMLESS = re.compile(
    r"position_ids$|masked_bias$|causal_mask$|attn\.bias$|attention\.bias$|inv_freq$|\.gamma$|\.beta$|pooler\."
)
"""Names in weights that old versions of transformers wrote and that are computed or renamed, so that no logit depends on them."""


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


def quieten() -> None:
    """Silence the warnings and the progress bars of transformers."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


def load_tokenizer(files: Files) -> Any:
    """Load a model's tokenizer. Raises an InputError if it does not load, is not a fast tokenizer, or has no vocabulary."""
    quieten()
    hint = ""
    if (files.folder / TOKENIZER).is_file():
        written = read_config(files.source, files.folder).get("transformers_version")
        by = f", and transformers {written} wrote the {CONFIG} next to it" if isinstance(written, str) else ""
        hint = (
            f"; {TOKENIZER} may be of a newer version: these are transformers {transformers.__version__} and tokenizers "
            f"{tokenizers.__version__}{by}; upgrade with `pip install -U transformers tokenizers`, or save the tokenizer again"
        )
    with clear_fault(files.source, "its tokenizer does not load", hint):
        tokenizer = AutoTokenizer.from_pretrained(files.folder, local_files_only=True, trust_remote_code=False)
        if not tokenizer.is_fast:
            raise InputError(f"{files.source}: has no fast tokenizer ({TOKENIZER})")
        if not tokenizer.get_vocab().keys() - {*tokenizer.get_added_vocab(), *tokenizer.all_special_tokens}:
            raise InputError(no_vocabulary(files.source, files.folder))
    return tokenizer


def load_classifier(files: Files, finetune: bool = False, **config: Any) -> tuple[Any, list[str]]:
    """Load a sequence classifier in float32.

    :param finetune: Whether a classification head is trained, so that it may be missing; the encoder may not.
    :param config: Changes to its configuration: num_labels, id2label, label2id.
    :return: The model, and the names of the parameters that are missing in its file, which are random: none without `finetune`.
    :raises InputError: If transformers cannot open it, or its file has not all of its weights.
    """
    quieten()
    with clear_fault(files.source, "transformers cannot open it as a classifier"):
        model, loading = AutoModelForSequenceClassification.from_pretrained(
            files.folder,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=torch.float32,
            ignore_mismatched_sizes=True,  # _check_loaded compares the two shapes
            output_loading_info=True,
            output_hidden_states=False,  # these three are read from config.json otherwise
            output_attentions=False,
            return_dict=True,
            **config,
        )
    return model, _check_loaded(files, model, loading, finetune)


def _check_loaded(files: Files, model: Any, loading: Mapping[str, Any], finetune: bool) -> list[str]:
    """Return the parameters that are not in the weights, which are random, and refuse them where they are not trained.

    :param loading: The loading info of transformers.
    """
    source = files.source
    missing, differing = sorted(loading["missing_keys"]), sorted(loading["mismatched_keys"])
    _check_encoder(files, model, missing, differing)
    if odd := next((name for name, value in model.named_parameters() if not torch.isfinite(value).all()), None):
        raise InputError(
            f"{source}: {odd} has NaN or infinite numbers; the training that wrote these weights diverged: take an earlier checkpoint"
        )
    head = sorted({*missing, *(name for name, *_ in differing)})
    unknown = sorted(loading["unexpected_keys"])
    _check_used(source, model, unknown)
    layers = {int(found[1]) for name in unknown if (found := re.search(r"\.(?:layers?|h|block)\.(\d+)\.", name))}
    depth, written = getattr(model.config, "num_hidden_layers", None), max(layers, default=-1) + 1
    fewer = isinstance(depth, int) and written > depth
    if finetune:
        if fewer:
            logger.warning(
                "%s: %s has %d layers: trains the first %d of %d layers", source, CONFIG, depth, depth, written
            )
        return head
    if differing:
        raise InputError(head_differs(source, *next((d for d in differing if len(d[1]) > 1), differing[0])))
    if head:
        others = f" (transformers does not know {listed(unknown)})" if unknown else ""
        raise InputError(no_head(source, listed(head) + others))
    if fewer:
        raise InputError(
            f"{source}: its weights have {written} layers and its {CONFIG} only {depth}; copy the {CONFIG} that was saved "
            "with the weights, or save the model again with model.save_pretrained(FOLDER)"
        )
    return []


def _check_used(source: str, model: Any, unknown: Sequence[str]) -> None:
    """Refuse weights inside the encoder's layers that transformers does not use, such as adapters: its logits would be others.

    :param unknown: The names in the file that the model does not have.
    """
    modules = {name for name, _ in model.base_model.named_modules()}

    def inside(name: str) -> bool:
        parts = name.removeprefix(f"{model.base_model_prefix}.").split(".")
        return any(part.isdigit() and ".".join(parts[: i + 1]) in modules for i, part in enumerate(parts))

    unused = [name for name in unknown if inside(name) and not HARMLESS.search(name)]
    if unused:
        raise InputError(
            f"{source}: its weights have {len(unused)} parameters that transformers does not use: {listed(unused)}; the model was trained "
            "with another architecture or with adapters: merge them, or use a class of yours (source: python:MODULE:NAME)"
        )


def _check_encoder(files: Files, model: Any, missing: Sequence[str], differing: Sequence[tuple[str, Any, Any]]) -> None:
    """Refuse an encoder that is not in the weights, as a whole or in part.

    :param differing: Names, their shapes in the file, and their shapes in the model.
    """
    encoder = f"{model.base_model_prefix}."
    source = files.source

    def inside(name: str) -> bool:
        # Most pretraining has no use for the pooler, so many encoders are saved without one.
        return name.startswith(encoder) and not name.startswith(f"{encoder}pooler.")

    if wrong := [found for found in differing if inside(found[0])]:
        name, found, expected = next((each for each in wrong if "word_embedding" in each[0]), wrong[0])
        raise InputError(shapes_differ(source, name, found, expected, len(wrong) - 1))
    lost = [name for name in missing if inside(name)]
    if not lost:
        return
    names = list(read_weights(source, files.folder))
    prefix = _prefix(names, [name.removeprefix(encoder) for name in lost])
    if prefix is None:
        raise InputError(
            f"{source}: its weights have no {listed(lost)}, which {type(model).__name__} needs and which would be random; they "
            f"have {len(names)} names, such as {names[0]}: copy or download all files of the model, or save it again with "
            "model.save_pretrained(FOLDER)"
        )
    if prefix.removesuffix(".") in transformers.CONFIG_MAPPING:
        raise InputError(
            f"{source}: the names of its weights start with {prefix!r}, and its {CONFIG} has model_type "
            f"{model.config.model_type!r}; copy the {CONFIG} that was saved with the weights"
        )
    raise InputError(wrapped(source, prefix.removesuffix(encoder)))


def _prefix(names: Sequence[str], lost: Sequence[str]) -> str | None:
    """Return what stands in front of most of the lost names in the file; None if most are not there under any name."""
    found = Counter(name.removesuffix(tail) for tail in lost[:100] for name in names if name.endswith(f".{tail}"))
    prefix, times = next(iter(found.most_common(1)), ("", 0))
    return prefix if 2 * times >= len(lost[:100]) else None


def open_teacher(files: Files, labels: Sequence[str], names: Mapping[str, str]) -> Teacher:
    """Load a classifier that is ready to label.

    :param labels: The task's class names.
    :param names: The teacher's class name -> the task's, where they differ.
    :raises InputError: If it has no trained classification head, other classes, or a tokenizer that is not the model's.
    """
    columns = check_folder(files.source, files.folder, labels, names, finetune=False)  # first, because it is cheap
    check_config(files)
    tokenizer = load_tokenizer(files)
    model, _ = load_classifier(files)
    check_tokenizer(files, model, tokenizer)
    return Teacher(files, model.eval(), tokenizer, tuple(labels), columns, max_length(model, tokenizer))


def check_config(files: Files) -> None:
    """Refuse a config.json that transformers cannot read without running code of the model's own."""
    config, fault = read_config(files.source, files.folder), f"its {CONFIG} does not load"
    model_type = config["model_type"]
    if model_type not in transformers.CONFIG_MAPPING:
        raise InputError(
            f"{files.source}: {fault}: model type {model_type!r} "
            + (
                "needs code of its own (auto_map), which is never run; use another model, or a class of yours (source: "
                "python:MODULE:NAME)"
                if "auto_map" in config
                else f"is unknown to transformers {transformers.__version__}; upgrade with `pip install -U transformers`, or correct it"
            )
        )
    with clear_fault(files.source, fault):
        AutoConfig.from_pretrained(files.folder, local_files_only=True, trust_remote_code=False)


def check_tokenizer(files: Files, model: Any, tokenizer: Any, padded: bool = False) -> None:
    """Refuse a tokenizer whose ids or padding are not the model's.

    :param padded: Whether the model needs padding, whatever its architecture.
    """
    with clear_fault(files.source, "its tokenizer does not fit the model"):
        ids = tokenizer.get_vocab() | dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True))
        text = tokenizer("a")["input_ids"]  # a template can add ids that the vocabulary does not have
        ids |= dict(zip(tokenizer.convert_ids_to_tokens(text), text, strict=True))
        check_ids(files.source, ids, model.get_input_embeddings().weight.shape[0])
    reads_last = "pad_token_id" in inspect.getsource(inspect.unwrap(type(model).forward))
    if tokenizer.pad_token_id is None and (padded or reads_last):
        raise InputError(
            f"{files.source}: its tokenizer has no padding token; choose one, such as tokenizer.pad_token = tokenizer.eos_token, set "
            "model.config.pad_token_id = tokenizer.pad_token_id, and save both with save_pretrained(FOLDER)"
        )
    configured = getattr(model.config.get_text_config(), "pad_token_id", None)
    if reads_last and configured != tokenizer.pad_token_id:
        raise InputError(
            f"{files.source}: pad_token_id is {configured} in {CONFIG} and {tokenizer.pad_token_id} ({tokenizer.pad_token}) in its "
            f"tokenizer; {type(model).__name__} reads the last token before the padding, so its logits would be wrong: set "
            "model.config.pad_token_id = tokenizer.pad_token_id, and save it with model.save_pretrained(FOLDER)"
        )


@torch.no_grad()  # tensors of inference_mode that a model caches could not be trained with
def check_padding(files: Files, model: Any, tokenizer: Any, padding: int) -> None:
    """Refuse a model whose logits of a text change with the padding after it: they would depend on the other texts of its batch.

    :param padding: The id of the token that pads.
    """
    own = tokenizer("a")["input_ids"]
    if model.dtype != torch.float32 or not own:  # it was opened before, and cast
        return
    more, left = [padding] * PADDING, tokenizer.padding_side == "left"
    alone, padded = (
        model(
            input_ids=torch.tensor([ids], device=model.device), attention_mask=torch.tensor([mask], device=model.device)
        ).logits
        for ids, mask in (
            (own, [1] * len(own)),
            (more + own, [0] * PADDING + [1] * len(own)) if left else (own + more, [1] * len(own) + [0] * PADDING),
        )
    )
    difference, scale = float((padded - alone).abs().max()), max(float(alone.abs().max()), SMALLEST_SCALE)
    found = (
        f"{files.source}: with {PADDING} tokens of padding, the logits of a text change by {difference:.2g} (they are up to "
        f"{scale:.2g}), because {type(model).__name__} does not ignore padding: they depend on the other texts of a batch"
    )
    if difference > PADDING_REFUSED * scale:
        raise InputError(
            f"{found}; use another model, or a class of yours that calls it with one text at a time (source: python:MODULE:NAME)"
        )
    if difference > PADDING_WARNED * scale:
        logger.warning("%s", found)


def check_words(source: str, tokenizer: Any, examples: pa.Table) -> None:
    """Refuse a tokenizer to which nearly all of a task's text is unknown, and warn where much of it is.

    :param examples: sentence1 and sentence2 of the examples; a sample is tokenised.
    """
    rows = examples.num_rows
    some = examples.take(np.linspace(0, rows - 1, min(rows, SAMPLE), dtype=np.int64))
    texts = [text[:1_000] for side in ("sentence1", "sentence2") for text in some[side].drop_null().to_pylist()]
    texts = [text for text in texts if text.strip()]
    if not texts:
        return
    with clear_fault(source, "its tokenizer fails"):
        ids = tokenizer(texts, add_special_tokens=False, return_attention_mask=False, return_token_type_ids=False)[
            "input_ids"
        ]
    lost = sum(not row for row in ids)  # some tokenizers drop what they do not know
    unknown = lost + sum(row.count(tokenizer.unk_token_id) for row in ids)
    share = unknown / (lost + sum(map(len, ids)))
    found = f"{share:.0%} of the tokens of {len(texts):,} texts are unknown to its tokenizer ({tokenizer.unk_token or 'dropped'})"
    if share >= UNKNOWN_REFUSED:
        raise InputError(
            f"{source}: {found}, so the texts would look the same; it is of another model or language: save the tokenizer that the "
            "model was trained with, tokenizer.save_pretrained(FOLDER), or take a model for this language"
        )
    if share >= UNKNOWN_WARNED:
        logger.warning("%s: %s; the teacher cannot tell them apart", source, found)


def max_length(model: Any, tokenizer: Any) -> int | None:
    """Return the most tokens that a model can read, including special tokens; None if neither it nor its tokenizer has a limit."""
    limits = [tokenizer.model_max_length, getattr(model.config, "max_position_embeddings", None)]
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, torch.nn.Embedding):
            # RoBERTa-like models count positions from padding_idx + 1.
            reserved = 0 if module.padding_idx is None else module.padding_idx + 1
            limits.append(module.num_embeddings - reserved)
    return min((int(n) for n in limits if n is not None and 0 < n < 10**9), default=None)  # 10^30 means "no limit"


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
