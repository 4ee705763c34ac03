"""A model's weights: the files, and what their headers tell. The weights themselves are not read, and PyTorch is not imported."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import InputError
from pipeline.storage import sha256_of

WEIGHTS = "model.safetensors"
INDEX = f"{WEIGHTS}.index.json"
CONFIG = "config.json"
PICKLED = {".bin", ".pt", ".pth", ".ckpt", ".pkl"}
OTHER_WEIGHTS = {".h5", ".msgpack", ".onnx", ".gguf", ".safetensors"}

SAVED = ["*.json", "model*.safetensors", "*.txt", "*.model"]
"""The files of a model that are downloaded and read."""

LFS_POINTER = b"version https://git-lfs.github.com/spec/"
LONGEST_HEADER = 100_000_000
"""Bytes; the limit of the safetensors library."""

FLOATS = {"F64", "F32", "F16", "BF16"}
QUANTISED = (".qweight", ".qzeros", ".SCB", ".absmax", ".weight_scale", ".weight_scale_inv")
LORA = (".lora_A.", ".lora_B.", ".lora_embedding_", ".base_layer.", ".modules_to_save.")
INSIDE = {"_orig_mod": "torch.compile", "_fsdp_wrapped_module": "FSDP", "_checkpoint_wrapped_module": "checkpointing"}
"""Parts of a weight's name that a wrapper adds, wherever they are, and the wrapper."""

WRAPPERS = INSIDE | {
    "0": "sentence-transformers",
    "_forward_module": "a trainer",
    "auto_model": "sentence-transformers",
    "base_model": "PEFT",
    "module": "DataParallel",
}
"""First parts of the weights' names that no model of transformers has, and the wrapper that adds them."""

EMBEDDINGS = re.compile(r"(?:^|\.)(?:word_embeddings?|embed_tokens|wte|tok_embeddings|embed_in|tokens_embed)\.weight$")
HEADS = re.compile(r"(?:^|\.)(?:classifier|score|logits_proj|out_proj|linear_out|summary)\.weight$")
"""The last layer of a classification head; `out_proj` also ends attention layers, so it counts only outside of the encoder."""

Shape = tuple[str, tuple[int, ...]]
"""A weight's dtype, as safetensors calls it, and its shape."""


def weight_files(source: str, folder: Path) -> list[Path]:
    """Return model.safetensors, or the shards that its index lists, all of which exist."""
    _refuse_pointers(source, folder)
    if (folder / "adapter_config.json").is_file():
        raise InputError(
            f"{source}: {folder} is a PEFT adapter (adapter_config.json), not a whole model; merge it into its model and save "
            "that in a new folder: model.merge_and_unload().save_pretrained(FOLDER), and tokenizer.save_pretrained(FOLDER)"
        )
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if (folder / INDEX).is_file():
        index = read_object(source, folder / INDEX, f"{INDEX} does not load")
        names = index.get("weight_map") if isinstance(index, dict) else None
        if not isinstance(names, dict) or not names or not all(isinstance(name, str) for name in names.values()):
            raise InputError(f"{source}: {INDEX} has no weight_map; copy or download the file again")
        shards = [folder / name for name in sorted(set(names.values()))]
        absent = [path.name for path in shards if not path.is_file()]
        if absent:
            raise InputError(
                f"{source}: {folder} has no {listed(absent)} ({len(absent)} of the {len(shards)} files that {INDEX} lists); "
                "copy or download all of them"
            )
        return shards
    raise InputError(f"{source}: {folder} has no {WEIGHTS}{_instead(folder)}")


def _instead(folder: Path) -> str:
    """Return what a folder has instead of model.safetensors, and what to do."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    if shards := [path.name for path in files if re.fullmatch(r"model-\d+-of-\d+\.safetensors", path.name)]:
        return f" and no {INDEX}, which tells what is in {listed(shards)}; copy or download it as well"
    inside = sorted(path.parent.name for name in (WEIGHTS, INDEX) for path in folder.glob(f"*/{name}"))
    if inside:
        return f"; its folder {inside[-1]} has one: name {folder / inside[-1]}"
    if pickled := [path.name for path in files if path.suffix in PICKLED]:
        return (
            f", only {', '.join(pickled)}; pickled weights can run code, so they are never loaded: convert them once, on a machine "
            "where that is safe, with save_pretrained of transformers"
        )
    others = [path.name for path in files if path.suffix in OTHER_WEIGHTS]
    return f"{f', only {listed(others)}' if others else ''}; save the model with model.save_pretrained(FOLDER), which writes it"


def _refuse_pointers(source: str, folder: Path) -> None:
    for path in sorted({path for pattern in SAVED for path in folder.glob(pattern)}):
        if path.is_file() and path.stat().st_size < 1024 and path.read_bytes().startswith(LFS_POINTER):
            raise InputError(
                f"{source}: {path} is a Git LFS pointer, not the file itself; fetch the files with `git lfs pull` in {folder}"
            )


def weights_sha256(folder: Path, paths: Sequence[Path]) -> str:
    """Return the hash of `weight_files`: of the only file, or of the lines that `sha256sum` prints for the shards."""
    if paths == [folder / WEIGHTS]:
        return sha256_of(paths[0])
    lines = "".join(f"{sha256_of(path)}  {path.relative_to(folder).as_posix()}\n" for path in paths)
    return hashlib.sha256(lines.encode()).hexdigest()


def read_weights(source: str, folder: Path) -> dict[str, Shape]:
    """Return the dtype and shape of every weight by name, from the files' headers.

    :raises InputError: If a file is missing, is no safetensors file, or is cut off.
    """
    found: dict[str, Shape] = {}
    for path in weight_files(source, folder):
        found |= _header(source, path)
    if not found:
        raise InputError(f"{source}: the weights in {folder} are empty; copy or download them again")
    return found


def _header(source: str, path: Path) -> dict[str, Shape]:
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        text = file.read(length) if length <= LONGEST_HEADER else b""
    cut_off = f"{source}: {path} is {{}}: it has {size:,} bytes"
    try:
        if not 0 < length <= LONGEST_HEADER:
            raise ValueError
        if len(text) < length and text.startswith(b"{"):
            raise InputError(f"{cut_off.format('cut off')}, fewer than its header; copy or download it again")
        header = json.loads(text)
        header.pop("__metadata__", None)
        ends = [weight["data_offsets"][1] for weight in header.values()]
        found = {name: (weight["dtype"], tuple(weight["shape"])) for name, weight in header.items()}
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise InputError(
            f"{source}: transformers cannot open it as a classifier: {path} is not a safetensors file; copy or download it "
            "again, or save the model with model.save_pretrained(FOLDER)"
        ) from None
    expected = 8 + length + max(ends, default=0)
    if size != expected:
        fault = "cut off" if size < expected else "damaged"
        raise InputError(f"{cut_off.format(fault)} instead of {expected:,}; copy or download it again")
    return found


def read_object(source: str, path: Path, fault: str) -> Any:
    """Return the value in a JSON file. Raises an InputError, with `fault`, if it is not JSON."""
    content = path.read_bytes()
    if (encoding := json.detect_encoding(content)) != "utf-8":
        written = "UTF-8 with a BOM" if encoding == "utf-8-sig" else encoding.upper()
        raise InputError(f"{source}: {fault}: {path} is {written}; save it as UTF-8 without BOM")
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        what = "is empty" if not content else f"is not JSON ({error})"
        raise InputError(f"{source}: {fault}: {path} {what}; copy or download it again") from error


def listed(names: Sequence[str]) -> str:
    """Return the first names of a list, and how many there are more."""
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


# --- what they tell -------------------------------------------------------------------------------------------------------


def check_unquantised(source: str, config: Mapping[str, Any], weights: Mapping[str, Shape]) -> None:
    """Refuse quantised weights, whether config.json says that they are or not."""
    how = config.get("quantization_config") or config.get("compression_config")
    if how:
        method = how.get("quant_method") if isinstance(how, dict) else None
        where = f"quantization_config in {CONFIG}{f': {method}' if method else ''}"
    else:
        odd = [
            name
            for name, (dtype, _) in weights.items()
            if name.endswith(QUANTISED) or (name.endswith(".weight") and dtype not in FLOATS)
        ]
        if not odd:
            return
        where = f"{odd[0]} is {weights[odd[0]][0]}"
    raise InputError(
        f"{source}: its weights are quantised ({where}), which changes its logits and needs libraries of its own; use the "
        "unquantised model, or save a dequantised copy: model.dequantize().save_pretrained(FOLDER)"
    )


def check_names(source: str, model_type: str, weights: Mapping[str, Shape]) -> None:
    """Refuse names that a wrapper certainly changed; after loading, transformers tells whether all names are right."""
    names = list(weights)
    if unmerged := [name for name in names if any(part in name for part in LORA)]:
        raise InputError(
            f"{source}: its weights have a LoRA adapter that is not merged ({unmerged[0]}); merge it and save again: "
            "model.merge_and_unload().save_pretrained(FOLDER)"
        )
    prefix, before = "", ""
    for part in names[0].split("."):
        if part not in WRAPPERS and (before, part) != ("base_model", "model"):
            break
        if not all(name.startswith(f"{prefix}{part}.") for name in names):
            break
        prefix, before = f"{prefix}{part}.", part
    inside = [f"{part}." for part in INSIDE if any(part in name.split(".") for name in names)]
    if found := prefix or "".join(inside[:1]) or _around(names, model_type.replace("-", "_")):
        raise InputError(wrapped(source, found))


def _around(names: Sequence[str], model_type: str) -> str:
    """Return what is in front of BERT-like embeddings, except for the model's own name, as in bert.embeddings; none is called model."""
    for name in names:
        if name.endswith(".embeddings.word_embeddings.weight"):
            before = whole = name.split(".")[:-3]
            while before and (before[-1] in model_type or before[-1] == "roberta"):
                before = before[:-1]
            if before == ["model"] or len(before) > 1 or (before and before != whole):
                return ".".join([*before, ""])
    return ""


def wrapped(source: str, prefix: str) -> str:
    """Return the message for weights with names that a wrapper changed: what it added, and how to save without it."""
    who = next((WRAPPERS[part] for part in prefix.split(".") if part in WRAPPERS), "a module around the model")
    inner = f"model.{prefix.removesuffix('.')}".replace("model.0", "model[0]")
    inner = re.sub(r"\bbase_model(\.model)?$", "merge_and_unload()", inner)
    return (
        f"{source}: the names of its weights have {prefix!r} in front, which {who} adds, so they do not load; save the model "
        f"inside: {inner}.save_pretrained(FOLDER), or remove it from the names in the file"
    )


def vocabulary_size(source: str, config: Mapping[str, Any], weights: Mapping[str, Shape]) -> int | None:
    """Return the number of rows of the token embeddings; None if their name is unknown."""
    name = next((name for name in weights if EMBEDDINGS.search(name)), None)
    if name is None:
        return None
    shape, size = weights[name][1], config.get("vocab_size")
    if isinstance(size, int) and len(shape) == 2 and shape[0] != size:
        raise InputError(shapes_differ(source, name, shape, (size, *shape[1:])))
    return shape[0]


def shapes_differ(source: str, name: str, found: Sequence[int], expected: Sequence[int], more: int = 0) -> str:
    """Return the message for a weight whose shape in the file is not the one that config.json gives."""
    also = f" ({more} more differ)" if more else ""
    return (
        f"{source}: {CONFIG} does not fit the weights: {name} is {list(found)} in the weights and {list(expected)} by "
        f"{CONFIG}{also}; copy the {CONFIG} that was saved with the weights, or save the model again with "
        "model.save_pretrained(FOLDER)"
    )


def heads(weights: Mapping[str, Shape]) -> list[str]:
    """Return the names of the last layers of classification heads."""
    return [name for name in weights if HEADS.search(name) and not re.search(r"\.\d+\.|attention", name)]


def no_head(source: str, lacks: str) -> str:
    """Return the message for a model without a classification head."""
    return (
        f"{source}: its weights have no {lacks}: it has no trained classification head; add `finetune` to the teacher's model, "
        "which trains one"
    )


def check_head(source: str, weights: Mapping[str, Shape], classes: Sequence[str]) -> None:
    """Refuse a classification head of another number of classes than config.json names."""
    for name in heads(weights):
        # XLNet has a layer before the last one that is called summary, as is the last one of XLM.
        if not name.endswith("summary.weight") and (shape := weights[name][1])[0] != len(classes):
            raise InputError(head_differs(source, name, shape, (len(classes), *shape[1:])))


def head_differs(source: str, name: str, found: Sequence[int], expected: Sequence[int]) -> str:
    """Return the message for a classification head of another number of classes than config.json has."""
    return (
        f"{source}: its weights have {found[0]} classes and its {CONFIG} names {expected[0]}: {name} is {list(found)} in the "
        f"weights and {list(expected)} by {CONFIG}; correct id2label in {CONFIG}, or add `finetune` to the teacher's model, "
        "which trains a head for this task"
    )
