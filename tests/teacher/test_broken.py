"""Teachers that cannot be right: each is refused when it is opened or fine-tuned, in one line that names the remedy."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from labelled import NO_COPIES, label
from safetensors.torch import load_file, save_file
from tiny import augmented_table, examples_table, tiny_teacher
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, GPT2Config, GPT2ForSequenceClassification, PreTrainedTokenizerFast

from pipeline import storage, tables
from pipeline.errors import InputError
from pipeline.labelling.label import label_task
from pipeline.labelling.rows import TaskRows
from pipeline.params.labelling import Labelling
from pipeline.params.teachers import Finetune, TeacherModel
from pipeline.teacher.files import check_files
from pipeline.teacher.finetune import make_teacher
from pipeline.teacher.model import check_words, find_files, load_tokenizer, open_teacher

WORDS = ["good", "bad", "film", "plot", "the", "a", "is"]
LABELS = ["negative", "positive"]
LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"
EXAMPLES = examples_table(
    [
        ("validation" if i % 4 == 0 else "train", f"{WORDS[i % 2]} {' '.join(WORDS[2 : 3 + i % 5])}", None, i % 2)
        for i in range(20)
    ]
)
Break = Callable[[Path], object]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("whole")
    return {
        "classifier": tiny_teacher(folder / "classifier", WORDS, LABELS, layers=2),
        "encoder": tiny_teacher(folder / "encoder", WORDS, layers=2),
    }


def made(source: Path, folder: Path, labels: list[str] = LABELS, finetune: bool = False, examples=EXAMPLES) -> dict:
    how = {"finetune": Finetune(epochs=1, batch_size=8, max_length=16)} if finetune else {}
    folder.mkdir()
    make_teacher(TeacherModel(source=f"folder:{source}", **how), examples, labels, folder)
    return storage.read_json(folder / "teacher.json")


def refusal(source: Path, folder: Path, labels: list[str] = LABELS, finetune: bool = False, examples=EXAMPLES) -> str:
    with pytest.raises(InputError) as raised:
        made(source, folder, labels, finetune, examples)
    message = str(raised.value)
    assert message.startswith(f"folder:{source}: ")
    assert "\n" not in message
    return message


# --- how to break a folder ------------------------------------------------------------------------------------------------


def edited(folder: Path, file: str = "config.json", **changes: object) -> None:
    found = storage.read_json(folder / file) | changes
    storage.write_json(folder / file, {key: value for key, value in found.items() if value is not None})


def renamed(
    folder: Path, name: Callable[[str], str | None], cast: Callable[[str, torch.Tensor], torch.Tensor] | None = None
) -> None:
    weights = load_file(folder / "model.safetensors")
    found = {name(old): value if cast is None else cast(old, value) for old, value in weights.items() if name(old)}
    save_file(found, folder / "model.safetensors", metadata={"format": "pt"})


def copied(folder: Path, part: str, new: str) -> None:
    """Add copies of weights under other names."""
    weights = load_file(folder / "model.safetensors")
    weights |= {name.replace(part, new): value.clone() for name, value in weights.items() if part in name}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def prefixed(prefix: str) -> Break:
    return lambda folder: renamed(folder, lambda name: prefix + name)


def written(name: str, text: str | bytes) -> Break:
    return lambda folder: (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())


def removed(*patterns: str) -> Break:
    return lambda folder: [path.unlink() for pattern in patterns for path in folder.glob(pattern)]


def sharded(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(weights)
    shards = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for shard, own in shards.items():
        save_file({name: weights[name] for name in own}, folder / shard, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": {name: shard for shard, own in shards.items() for name in own}}
    storage.write_json(folder / "model.safetensors.index.json", index)


def both(*breaks: Break) -> Break:
    return lambda folder: [one(folder) for one in breaks]


def vocabulary(change: Callable[[dict[str, int]], dict[str, int]]) -> Break:
    def change_it(folder: Path) -> None:
        tokenizer = storage.read_json(folder / "tokenizer.json")
        tokenizer["model"]["vocab"] = change(tokenizer["model"]["vocab"])
        storage.write_json(folder / "tokenizer.json", tokenizer)

    return change_it


def added(folder: Path, special: bool) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["@USER"], special_tokens=special)
    tokenizer.save_pretrained(folder)


def inside(folder: Path) -> Path:
    folder.mkdir()
    return folder


def integers(name: str, value: torch.Tensor) -> torch.Tensor:
    return value.to(torch.int8) if name.endswith("dense.weight") else value


def cut(name: str, end: int) -> Break:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:end])


SPECIAL = "its tokenizer has no vocabulary, only special tokens"
QUANTISED = r"its weights are quantised \(.*{}.*use the unquantised model, or save a dequantised copy"

SEEN_IN_FILES: dict[str, tuple[Break, str]] = {
    "no tokenizer files": (removed("tok*"), SPECIAL),
    "no tokenizer.json": (removed("tokenizer.json"), SPECIAL),
    "an empty vocabulary": (vocabulary(lambda found: {}), SPECIAL),
    "special tokens alone": (vocabulary(lambda found: {k: i for k, i in found.items() if k.startswith("[")}), SPECIAL),
    "an added token": (
        partial(added, special=False),
        r"no embedding for 1 of .*'@USER' has id \d+, .*resize_token_emb",
    ),
    "an added special token": (partial(added, special=True), r"no embedding for 1 of .*'@USER' has id"),
    "torch.compile": (prefixed("_orig_mod."), r"'_orig_mod\.' in front.*model\._orig_mod\.save_pretrained"),
    "DataParallel": (prefixed("module."), r"'module\.' in front.*model\.module\.save_pretrained"),
    "both": (prefixed("module._orig_mod."), r"model\.module\._orig_mod\.save_pretrained"),
    "PEFT": (prefixed("base_model.model."), r"'base_model\.model\.' in front.*model\.merge_and_unload\(\)\.save_pret"),
    "sentence-transformers": (prefixed("0.auto_model."), r"model\[0\]\.auto_model\.save_pretrained"),
    "a module": (prefixed("model."), r"'model\.' in front.*model\.model\.save_pretrained"),
    "a layer compiled": (
        lambda folder: renamed(folder, lambda name: name.replace("layer.1.", "layer.1._orig_mod.")),
        r"'_orig_mod\.' in front",
    ),
    "LoRA": (
        lambda folder: renamed(folder, lambda name: name.replace("query.", "query.base_layer.")),
        r"LoRA adapter that is not merged .*merge_and_unload",
    ),
    "an adapter": (
        both(removed("model.safetensors", "config.json"), written("adapter_config.json", "{}")),
        r"PEFT adapter .*merge_and_unload\(\)",
    ),
    "an adapter next to weights": (written("adapter_config.json", "{}"), "PEFT adapter"),
    "another vocabulary": (
        partial(edited, vocab_size=99),
        r"word_embeddings\.weight is \[\d+, 32\] in the .* and \[99, 32\]",
    ),
    "gptq": (partial(edited, quantization_config={"quant_method": "gptq", "bits": 4}), QUANTISED.format("gptq")),
    "a method without name": (
        partial(edited, quantization_config={"bits": 8}),
        QUANTISED.format("quantization_config"),
    ),
    "int8 weights": (lambda folder: renamed(folder, str, integers), QUANTISED.format("I8")),
    "packed weights": (
        lambda folder: renamed(folder, lambda name: name.replace("query.w", "query.qw")),
        QUANTISED.format("qw"),
    ),
    "a shard is missing": (
        both(sharded, removed("model-00002*")),
        r"has no model-00002-of-00002\.safetensors \(1 of the 2 files",
    ),
    "no index": (
        both(sharded, removed("*.index.json")),
        r"no model\.safetensors\.index\.json, which tells what is in model-0",
    ),
    "an index without names": (both(sharded, written("model.safetensors.index.json", "{}")), "has no weight_map"),
    **{
        f"{name} is a Git LFS pointer": (written(name, LFS), rf"{re.escape(name)} is a Git LFS pointer.*`git lfs pull`")
        for name in ("model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json")
    },
    "the index is a Git LFS pointer": (
        both(sharded, written("model.safetensors.index.json", LFS)),
        "a Git LFS pointer",
    ),
    "a shard is a Git LFS pointer": (
        both(sharded, written("model-00001-of-00002.safetensors", LFS)),
        "a Git LFS pointer",
    ),
    "cut off": (cut("model.safetensors", 50_000), r"model\.safetensors is cut off: it has 50,000 bytes instead of"),
    "cut off in its header": (cut("model.safetensors", 100), "is cut off: .* fewer than its header"),
    "longer than its header tells": (
        lambda folder: (folder / "model.safetensors").open("ab").write(b"x"),
        r"is damaged: it has [\d,]+ bytes instead of",
    ),
    "a web page": (written("model.safetensors", "<!DOCTYPE html>"), "is not a safetensors file"),
    "empty weights": (written("model.safetensors", ""), "is not a safetensors file"),
    "only TensorFlow's": (
        both(removed("model.safetensors"), written("tf_model.h5", "")),
        r"has no model\.safetensors, only tf_model\.h5; save the model with model\.save_pretrained",
    ),
    "a checkpoint inside": (
        lambda folder: (folder / "model.safetensors").rename(inside(folder / "checkpoint-9") / "model.safetensors"),
        r"its folder checkpoint-9 has one: name ",
    ),
    "a config.json with a BOM": (
        lambda folder: (folder / "config.json").write_bytes(b"\xef\xbb\xbf" + (folder / "config.json").read_bytes()),
        r"config\.json is UTF-8 with a BOM; save it as UTF-8 without BOM",
    ),
    "a tokenizer_config.json in UTF-16": (
        lambda folder: (folder / "tokenizer_config.json").write_text("{}", encoding="utf-16"),
        r"tokenizer_config\.json is UTF-16; save it as UTF-8 without BOM",
    ),
    "a SentencePiece model": (
        both(removed("tokenizer.json"), written("spiece.model", "x")),
        r"has no tokenizer\.json, and its SentencePiece model needs `pip install sentencepiece protobuf`",
    ),
    "no config.json": (removed("config.json"), r"has no config\.json"),
    "an empty config.json": (written("config.json", ""), r"config\.json is empty"),
    "a config.json cut off": (cut("config.json", 100), r"config\.json is not JSON \(.*line \d"),
    "a config.json that is a list": (written("config.json", "[]"), "it has no model_type"),
    "a config.json of nothing": (written("config.json", "{}"), "it has no model_type"),
    "a tokenizer.json cut off": (
        cut("tokenizer.json", 100),
        r"its tokenizer does not load: .*tokenizer\.json is not JSON",
    ),
    "a tokenizer.json of nothing": (written("tokenizer.json", "{}"), r"tokenizer\.json has no model"),
    "a tokenizer_config.json that is a list": (written("tokenizer_config.json", "[]"), "is no JSON object"),
    "classes in a list": (partial(edited, id2label=LABELS), r"id2label in config\.json is \['neg.* write a map"),
    "classes by letter": (
        partial(edited, id2label={"a": "negative", "b": "positive"}),
        r"write a map.*\{\"0\": \"negative\"",
    ),
}
"""Broken folder -> what breaks a whole one, and the message; `check_files` gives it as well, without loading the model."""


@pytest.mark.parametrize("fault", SEEN_IN_FILES)
@pytest.mark.parametrize("kind", ["classifier", "encoder"])
def test_a_broken_folder_is_refused_before_it_is_loaded(tmp_path: Path, whole: dict[str, Path], fault: str, kind: str):
    breaks, message = SEEN_IN_FILES[fault]
    folder = shutil.copytree(whole[kind], tmp_path / "model")
    breaks(folder)
    with pytest.raises(InputError, match=message) as raised:
        check_files(f"folder:{folder}", LABELS, {}, finetune=kind == "encoder")
    assert refusal(folder, tmp_path / "teacher", finetune=kind == "encoder") == str(raised.value)


LAYERS = r"have no bert\.encoder\.layer\.1\..* and 12 more, which BertForSequenceClassification needs"
SEEN_WHILE_LOADING: dict[str, tuple[Break, str]] = {
    "a layer is missing": (lambda folder: renamed(folder, lambda name: None if "layer.1." in name else name), LAYERS),
    "a layer too many in config.json": (partial(edited, num_hidden_layers=3), r"have no bert\.encoder\.layer\.2\."),
    "no embeddings": (
        lambda folder: renamed(folder, lambda name: None if "word_embeddings" in name else name),
        r"have no bert\.embeddings\.word_embeddings\.weight, which",
    ),
    "another width": (
        partial(edited, hidden_size=64),
        r"word_embeddings\.weight is \[\d+, 32\] .* and \[\d+, 64\] .*\d+ more differ",
    ),
    "training that diverged": (
        lambda folder: renamed(
            folder, str, lambda name, value: value * float("nan") if "query.bias" in name else value
        ),
        r"query\.bias has NaN or infinite numbers",
    ),
    "a wrapper of one's own": (prefixed("body."), r"'body\.' in front.*model\.body\.save_pretrained"),
    "adapters": (
        lambda folder: copied(folder, "layer.1.output.dense.", "layer.1.output.adapters.x."),
        r"2 parameters that transformers does not use: (bert\.)?encoder\.layer\.1\.output\.adapters\.x\.bias, .*python:MODULE",
    ),
    "an id of the template": (
        lambda folder: (folder / "tokenizer.json").write_text(
            (folder / "tokenizer.json").read_text().replace("      2\n", "      999\n")
        ),
        "a special token has id 999",
    ),
    "a newer library": (
        both(
            partial(edited, file="tokenizer.json", pre_tokenizer={"type": "New"}),
            partial(edited, transformers_version="99.0"),
        ),
        r"its tokenizer does not load: .*transformers 99\.0 wrote the config\.json.*`pip install -U transformers tokenizers`",
    ),
    "an unknown type": (
        partial(edited, model_type="unheard"),
        r"'unheard' is unknown to transformers .*pip install -U",
    ),
    "code of its own": (
        partial(edited, model_type="own", auto_map={"AutoConfig": "own.C"}),
        r"\(auto_map\), which is never run",
    ),
    "an image model": (
        partial(edited, model_type="vit"),
        "cannot open it as a classifier: Unrecognized configuration class",
    ),
    "a word for a number": (
        partial(edited, hidden_size="many"),
        "config.json does not load: .*'hidden_size': .*expected int",
    ),
    "nearly no words": (
        vocabulary(lambda found: {k: i for k, i in found.items() if k.startswith("[") or k == "z"}),
        r"100% of the tokens of 20 texts are unknown to its tokenizer \(\[UNK\]\)",
    ),
}


@pytest.mark.parametrize("fault", SEEN_WHILE_LOADING)
@pytest.mark.parametrize("kind", ["classifier", "encoder"])
def test_a_broken_model_is_refused(tmp_path: Path, whole: dict[str, Path], fault: str, kind: str):
    breaks, message = SEEN_WHILE_LOADING[fault]
    folder = shutil.copytree(whole[kind], tmp_path / "model")
    breaks(folder)
    assert re.search(message, refusal(folder, tmp_path / "teacher", finetune=kind == "encoder"))


SPECIFIC: dict[str, tuple[dict[str, object], list[str], str]] = {
    "more names than rows": (
        {"id2label": {"0": "negative", "1": "positive", "2": "neutral"}, "label2id": None},
        [*LABELS, "neutral"],
        r"its weights have 2 classes and its config\.json names 3: classifier\.weight is \[2, 32\] .* and \[3, 32\]",
    ),
    "multi-label": (
        {"problem_type": "multi_label_classification"},
        LABELS,
        r"multi_label_classification: .*\(sigmoid\).*`finetune`",
    ),
    "a regression": ({"problem_type": "regression"}, LABELS, "problem_type regression: its outputs are numbers"),
    "classes for a regression": (
        {"problem_type": "single_label_classification"},
        ["score"],
        "and the task is a regression",
    ),
    "classes from 1": (
        {"id2label": {"1": "negative", "2": "positive"}},
        LABELS,
        r"has the keys \[1, 2\]; .* from 0 without gaps",
    ),
    "a gap": ({"id2label": {"0": "negative", "2": "positive"}}, LABELS, r"has the keys \[0, 2\]"),
    "no classes": ({"id2label": {}}, LABELS, r"has the keys \[\]"),
    "numbers as names": ({"id2label": {"0": 0, "1": 1}}, LABELS, "has the name 0, which is not text"),
    "a name twice": (
        {"id2label": {"0": "bad", "1": "bad"}},
        LABELS,
        "two of the teacher's classes are 'bad': give each a name",
    ),
    "a contradiction": (
        {"label2id": {"negative": 1, "positive": 0}},
        LABELS,
        "'negative' is column 0 in id2label and 1 in label2id",
    ),
    "two counts": ({"num_labels": 3}, LABELS, "num_labels 3, and 2 names in id2label"),
    "other names": ({"id2label": {"0": "Negative", "1": "good"}}, LABELS, r"as `labels: \{good: positive\}` if"),
    "names for YAML": (
        {"id2label": {"0": "0", "1": "1"}, "label2id": None},
        ["no", "a: b"],
        r"as `labels: \{\"0\": \"no\", \"1\": \"a: b\"\}` if",
    ),
    "an empty type": ({"problem_type": ""}, LABELS, r'problem_type "": transformers does not know this type'),
    "a count in quotes": ({"num_labels": "2"}, LABELS, r'num_labels "2"; write a whole number'),
    **{
        f"a model {end}": (
            {"architectures": [f"Bert{end}"]},
            LABELS,
            f"has the architecture Bert{end}, which is not a classifier of whole texts .*`finetune`",
        )
        for end in ("ForTokenClassification", "ForQuestionAnswering", "ForMaskedLM")
    },
    "other counts": (
        {},
        [*LABELS, "neutral"],
        r"needs 3 classes, and this one has 2: `finetune` .*`tasks: \[\.\.\.\]`.*`teachers: ",
    ),
    "one class": ({}, ["score"], "needs 1 class, and this one has 2"),
    "a model of fewer layers": (
        {"num_hidden_layers": 1},
        LABELS,
        r"its weights have 2 layers and its config\.json only 1",
    ),
}
"""What only matters without fine-tuning, which trains another head."""


@pytest.mark.parametrize("fault", SPECIFIC)
def test_a_classifier_of_another_task_is_refused(tmp_path: Path, whole: dict[str, Path], fault: str):
    changes, labels, message = SPECIFIC[fault]
    folder = shutil.copytree(whole["classifier"], tmp_path / "model")
    edited(folder, **changes)
    found = refusal(folder, tmp_path / "teacher", labels)
    assert re.search(message, found)
    assert len(found) < 600


def test_a_multi_label_model_is_fine_tuned_for_classes(tmp_path: Path, whole: dict[str, Path]):
    folder = shutil.copytree(whole["classifier"], tmp_path / "model")
    edited(folder, problem_type="multi_label_classification", id2label={str(i): f"tag {i}" for i in range(2)})
    assert made(folder, tmp_path / "teacher", finetune=True)["finetuned"]
    assert storage.read_json(tmp_path / "teacher/config.json")["problem_type"] == "single_label_classification"


@pytest.mark.parametrize(
    "breaks",
    [
        lambda folder: renamed(folder, lambda name: None if "pooler" in name else name),
        partial(edited, num_hidden_layers=1),
        sharded,
        removed("tokenizer_config.json"),
        lambda folder: edited(folder, id2label={"1": "a", "2": "b"}),
    ],
    ids=["no pooler", "fewer layers", "shards", "no tokenizer_config.json", "odd classes"],
)
def test_an_encoder_that_is_whole_enough_is_fine_tuned(tmp_path: Path, whole: dict[str, Path], breaks: Break, caplog):
    folder = shutil.copytree(whole["encoder"], tmp_path / "model")
    breaks(folder)
    check_files(f"folder:{folder}", LABELS, {}, finetune=True)
    assert made(folder, tmp_path / "teacher", finetune=True)["finetuned"]
    fewer = storage.read_json(folder / "config.json")["num_hidden_layers"] == 1
    assert ("trains the first 1 of 2 layers" in caplog.text) == fewer


@pytest.mark.parametrize(
    ("architecture", "more"),
    [
        ("bart", {"decoder_layers": 1, "decoder_attention_heads": 4, "decoder_ffn_dim": 64, "encoder_ffn_dim": 64}),
        ("t5", {"d_kv": 8, "d_ff": 64, "decoder_start_token_id": 0}),
        ("bert", {"output_hidden_states": True, "output_attentions": True}),
        ("bert", {"return_dict": False}),
    ],
)
def test_a_model_that_returns_more_than_its_logits_is_fine_tuned(tmp_path: Path, architecture: str, more: dict):
    written = {key: value for key, value in more.items() if isinstance(value, bool)}
    folder = tiny_teacher(tmp_path / "model", WORDS, None, architecture, **(more if not written else {}))
    edited(folder, **written)
    made(folder, tmp_path / "teacher", finetune=True)
    files = find_files(f"folder:{tmp_path / 'teacher'}")
    edited(files.folder, **written)
    teacher = open_teacher(files, LABELS, {})
    assert label(teacher, EXAMPLES, NO_COPIES, Labelling())[0]["train"].num_rows == 15


@pytest.mark.parametrize("architecture", ["roberta", "deberta-v2", "mpnet", "xlnet", "modernbert", "camembert"])
def test_a_teacher_without_tokenizer_files_is_refused_whatever_its_architecture(tmp_path: Path, architecture: str):
    folder = tiny_teacher(tmp_path / "model", WORDS, LABELS, architecture)
    check_files(f"folder:{folder}", LABELS, {}, finetune=False)
    open_teacher(find_files(f"folder:{folder}"), LABELS, {})
    removed("tok*")(folder)
    assert SPECIAL in refusal(folder, tmp_path / "teacher")
    written("vocab.txt", "")(folder)  # it is there, but it has no words
    assert refusal(folder, tmp_path / "other")


def test_the_first_version_of_deberta_is_fine_tuned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Its attention mask is beyond the range of bfloat16."""
    monkeypatch.setattr("pipeline.teacher.finetune._bfloat16_pays", lambda: True)
    folder = tiny_teacher(tmp_path / "model", WORDS, None, "deberta")
    assert made(folder, tmp_path / "teacher", finetune=True)["finetuning"]["dtype"] == "float32"


def test_a_tokenizer_of_another_language_is_refused_and_of_some_other_words_warned_of(tmp_path: Path, caplog):
    tokenizer = load_tokenizer(find_files(f"folder:{tiny_teacher(tmp_path / 'model', WORDS, LABELS)}"))

    def texts(*rows: str) -> pa.Table:
        return pa.table({"sentence1": list(rows), "sentence2": pa.array([None] * len(rows), pa.string())})

    check_words("teacher", tokenizer, texts("a good film", "日 bad plot is the film a a a a a a"))
    check_words("teacher", tokenizer, texts())
    assert not caplog.records
    check_words("teacher", tokenizer, texts("a good film", "я мыслю the film a"))
    assert "teacher: 25% of the tokens of 2 texts are unknown to its tokenizer ([UNK])" in caplog.text
    with pytest.raises(InputError, match=r"^teacher: 100% of the tokens of 2 texts .*take a model for this language"):
        check_words("teacher", tokenizer, texts("я мыслю", "существую"))


def test_texts_without_any_token_are_unknown(tmp_path: Path):
    """BPE without bytes drops the characters that it does not know."""
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE({"a": 0, "b": 1}, [])))
    with pytest.raises(InputError, match=r"100% of the tokens of 1 texts are unknown to its tokenizer \(dropped\)"):
        check_words(
            "teacher", tokenizer, pa.table({"sentence1": ["мыслю"], "sentence2": pa.array([None], pa.string())})
        )


# --- padding --------------------------------------------------------------------------------------------------------------


def gpt2(folder: Path, pad: str | None, configured: int | None) -> Path:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(special_tokens=["<end>", "<pad>"], initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([" ".join(WORDS)] * 3, trainer)
    more = {} if pad is None else {"pad_token": pad}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", unk_token="<end>", **more)
    names = dict(enumerate(LABELS))
    config = GPT2Config(
        vocab_size=len(fast), n_positions=64, n_embd=32, n_layer=1, n_head=4, id2label=names, pad_token_id=configured
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        GPT2ForSequenceClassification(config).save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("pad", "configured", "message"),
    [
        (None, None, r"its tokenizer has no padding token; .*pad_token = tokenizer\.eos_token"),
        (None, 0, "its tokenizer has no padding token"),
        (
            "<end>",
            None,
            r"pad_token_id is None in config\.json and 0 \(<end>\) in its tokenizer; GPT2ForSequence.* wrong",
        ),
        ("<pad>", 0, r"pad_token_id is 0 in config\.json and 1 \(<pad>\)"),
    ],
)
def test_a_model_that_reads_the_last_token_needs_its_padding(tmp_path: Path, pad, configured, message):
    folder = gpt2(tmp_path / "model", pad, configured)
    for finetune in (False, True):
        assert re.search(message, refusal(folder, tmp_path / f"teacher-{finetune}", finetune=finetune))


@pytest.mark.parametrize(("pad", "configured"), [("<end>", 0), ("<pad>", 1)])
def test_with_its_padding_a_batch_has_the_logits_of_its_rows(tmp_path: Path, pad: str, configured: int):
    teacher = open_teacher(find_files(f"folder:{gpt2(tmp_path, pad, configured)}"), LABELS, {})
    splits, _ = label(teacher, EXAMPLES, NO_COPIES, Labelling())
    for row in splits["train"].to_pylist():
        ids = torch.tensor([teacher.tokenizer(row["sentence1"])["input_ids"]])
        with torch.inference_mode():
            alone = teacher.model(input_ids=ids).logits[0].numpy()
        assert np.abs(alone - row["logits"]).max() < 1e-5


@pytest.mark.parametrize("architecture", ["fnet", "convbert", "nystromformer", "yoso"])
def test_a_model_that_reads_its_padding_is_refused(tmp_path: Path, architecture: str):
    folder = tiny_teacher(tmp_path / "model", WORDS, LABELS, architecture)
    teacher = open_teacher(find_files(f"folder:{folder}"), LABELS, {})
    with pytest.raises(InputError, match=r"with 8 tokens of padding, the logits of a text change by .*python:MODULE"):
        label(teacher, EXAMPLES, NO_COPIES, Labelling())
    assert "tokens of padding" in refusal(folder, tmp_path / "teacher", finetune=True)


def test_a_maximum_with_a_decimal_point_and_names_that_no_logit_depends_on_are_taken(tmp_path: Path, caplog):
    folder = tiny_teacher(tmp_path / "model", WORDS, LABELS)
    edited(folder, "tokenizer_config.json", model_max_length=64.0)
    copied(folder, "layer.0.attention.output.dense.bias", "layer.0.attention.masked_bias")
    teacher = open_teacher(find_files(f"folder:{folder}"), LABELS, {})
    assert label(teacher, EXAMPLES, NO_COPIES, Labelling())[1]["labelled"] == 10
    assert not caplog.records


@pytest.mark.parametrize("architecture", ["bert", "deberta-v2", "mpnet"])
def test_other_models_label_without_a_padding_token(tmp_path: Path, architecture: str):
    folder = tiny_teacher(tmp_path / "model", WORDS, LABELS, architecture)
    files = find_files(f"folder:{folder}")
    expected = label(open_teacher(files, LABELS, {}), EXAMPLES, NO_COPIES, Labelling())[0]["train"]["logits"]
    edited(folder, "tokenizer_config.json", pad_token=None)
    teacher = open_teacher(files, LABELS, {})
    assert teacher.tokenizer.pad_token_id is None
    assert label(teacher, EXAMPLES, NO_COPIES, Labelling())[0]["train"]["logits"].equals(expected)
    assert "no padding token" in refusal(folder, tmp_path / "teacher", finetune=True)


# --- the label stage and the check ----------------------------------------------------------------------------------------


def test_a_recorded_teacher_whose_tokenizer_went_is_refused_by_the_label_stage(
    tmp_path: Path, whole: dict[str, Path], caplog
):
    folder = shutil.copytree(whole["classifier"], tmp_path / "model")
    data = tmp_path / "data/films"
    source = {"task": "films", "labels": LABELS, "pairs": False, "source": {"licence": "mit"}}
    tables.write_examples(data / "examples", data / "source", EXAMPLES, source)
    made(folder, inside(data / "teachers") / "tiny")
    copies = augmented_table([(EXAMPLES["id"][0].as_py(), "a film", None)])
    tables.write(data / "augmented/augmented-00000.parquet", copies, {"seed": 0, "n_iter": 1})
    label_task(data, "tiny", TaskRows.read(data, data / "augmented"), tmp_path / "logits", Labelling(), "pretokenised")
    assert not caplog.records
    vocabulary(lambda found: {k: i for k, i in found.items() if k.startswith("[") or k == "z"})(folder)
    with pytest.raises(InputError, match="100% of the tokens of 20 texts are unknown"):
        label_task(
            data, "tiny", TaskRows.read(data, data / "augmented"), tmp_path / "logits", Labelling(), "pretokenised"
        )
    assert "its tokenizer is not the one in" in caplog.text
    removed("tok*")(folder)
    with pytest.raises(InputError, match=SPECIAL):
        label_task(
            data, "tiny", TaskRows.read(data, data / "augmented"), tmp_path / "logits", Labelling(), "pretokenised"
        )


def test_the_check_needs_neither_torch_nor_transformers(tmp_path: Path, whole: dict[str, Path]):
    code = (
        "import sys; from pipeline.teacher.files import check_files; "
        "sys.modules.update(torch=None, transformers=None, safetensors=None); "
        f"check_files('folder:{whole['classifier']}', {LABELS}, {{}}, False); check_files('python:a:b', [], {{}}, False)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
