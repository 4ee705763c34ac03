"""Small stand-ins for big things: teachers with random weights, and the tables that the stages hand to each other."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import pyarrow as pa
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, PreTrainedTokenizerFast

from pipeline import tables

ROBERTA_LIKE = {"roberta", "xlm-roberta", "camembert", "data2vec-text"}
WITH_TYPES = {"bert", "electra", "albert", "ernie"}


def tiny_teacher(
    folder: Path,
    words: Iterable[str],
    labels: Sequence[str] | None = None,
    architecture: str = "bert",
    seed: int = 0,
    layers: int = 1,
    hidden: int = 32,
    max_length: int = 512,
    **more: object,
) -> Path:
    """Write a model of transformers with random weights, in a folder as `save_pretrained` does.

    :param folder: The folder.
    :param words: Words that are one token each; others fall apart.
    :param labels: The classes of a sequence classifier; None makes an encoder without a classifier.
    :param architecture: What transformers calls the model's type. The RoBERTa family gets a byte-level BPE tokenizer and <mask>, the
        others BERT's lower-casing WordPiece and [MASK].
    :param max_length: The most tokens that it reads.
    :param more: What else its configuration says.
    """
    tokenizer = (_roberta_tokenizer if architecture in ROBERTA_LIKE else _bert_tokenizer)(
        sorted(set(words)), max_length, types=architecture in WITH_TYPES
    )
    if architecture == "xlnet":  # it has no last position, and reads the last token where others read the first
        tokenizer.padding_side = tokenizer.init_kwargs["padding_side"] = "left"
    taken = 2 if architecture in ROBERTA_LIKE else 0
    names = None if labels is None else dict(enumerate(labels))
    config = AutoConfig.for_model(
        architecture,
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        embedding_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=2 * hidden,
        **({"d_head": hidden // 4} if architecture == "xlnet" else {"max_position_embeddings": max_length + taken}),
        type_vocab_size=2 if architecture in WITH_TYPES else 1,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.cls_token_id,
        eos_token_id=tokenizer.sep_token_id,
        cls_token_id=tokenizer.cls_token_id,
        sep_token_id=tokenizer.sep_token_id,
        initializer_range=0.2,  # so that texts differ in their logits
        **({} if names is None else {"id2label": names, "label2id": {name: i for i, name in names.items()}}),
        **more,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = (AutoModel if labels is None else AutoModelForSequenceClassification).from_config(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _bert_tokenizer(words: Sequence[str], max_length: int, types: bool) -> PreTrainedTokenizerFast:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    characters = sorted(
        {character for word in words for character in word.lower()} | set("abcdefghijklmnopqrstuvwxyz.,!?")
    )
    pieces = [*special, *characters, *(f"##{c}" for c in characters), *(word.lower() for word in words)]
    tokenizer = Tokenizer(
        models.WordPiece({piece: i for i, piece in enumerate(dict.fromkeys(pieces))}, unk_token="[UNK]")
    )
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=max_length,
        model_input_names=["input_ids", *(["token_type_ids"] if types else []), "attention_mask"],
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )


def _roberta_tokenizer(words: Sequence[str], max_length: int, types: bool) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1000,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([f"{word} {word}" for word in words], trainer)
    tokenizer.post_processor = processors.RobertaProcessing(
        ("</s>", 2), ("<s>", 0), trim_offsets=True, add_prefix_space=False
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=max_length,
        model_input_names=["input_ids", *(["token_type_ids"] if types else []), "attention_mask"],
        bos_token="<s>",
        eos_token="</s>",
        cls_token="<s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        mask_token="<mask>",
    )


def examples_table(rows: Sequence[tuple[str, str, str | None, int | None]]) -> pa.Table:
    """Return rows of split, sentence1, sentence2, label as `tables.EXAMPLES`; the first is on line 2, as under a header."""
    split, first, second, label = (list(column) for column in zip(*rows, strict=True))
    lines = list(range(2, 2 + len(rows)))
    return pa.table(
        [tables.content_ids(first, second), split, first, second, label, lines], names=tables.EXAMPLES.names
    ).cast(tables.EXAMPLES)


def augmented_table(rows: Sequence[tuple[str, str, str | None]]) -> pa.Table:
    """Return rows of parent_id, sentence1, sentence2 as `tables.AUGMENTED`, with one masked word each."""
    parent, first, second = ([row[i] for row in rows] for i in range(3))
    known = {
        "id": tables.content_ids(first, second),
        "parent_id": parent,
        "copy": range(len(rows)),
        "side": ["first"] * len(rows),
        "masked1": [1] * len(rows),
        "sentence1": first,
        "sentence2": second,
    }
    return pa.table(
        [pa.array(known.get(field.name, [None] * len(rows)), field.type) for field in tables.AUGMENTED],
        schema=tables.AUGMENTED,
    )
