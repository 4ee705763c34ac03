"""Stand-ins for a teacher: a tokenizer, and classifiers of BERT's shapes with random weights."""

import shutil
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from pipeline.machine.devices import device

LABELS = ("negative", "positive")
VOCABULARY = 5_000
"""Tokens of the made-up tokenizer: rare words have several, as in a real text."""

SHAPES = {"tiny": (2, 64, 2), "minilm": (6, 384, 12), "base": (12, 768, 12), "large": (24, 1024, 16)}
"""Layers, hidden size, heads. The feed-forward layers have four times the hidden size."""


def tokenizer_of(model: Path, texts: list[str], folder: Path) -> Path:
    """Return a folder with a WordPiece tokenizer: the model's, or one that is trained on the texts and written to `folder`."""
    if (model / "tokenizer.json").exists():
        return model
    print(f"{model}: has no tokenizer.json; using a tokenizer trained on the texts (name another folder with --model)")
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=VOCABULARY, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=512,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        **dict(zip(names, special, strict=True)),
    ).save_pretrained(folder)
    return folder


def classifier(folder: Path, shape: str, tokenizer: Path) -> Path:
    """Write a classifier of one of SHAPES, with random weights and the tokenizer of another folder."""
    layers, hidden, heads = SHAPES[shape]
    config = transformers.BertConfig(
        vocab_size=30_522,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * hidden,
        id2label=dict(enumerate(LABELS)),
        label2id={name: i for i, name in enumerate(LABELS)},
    )
    torch.manual_seed(0)
    with device():  # a CPU needs ten seconds to draw the weights of the large shape
        transformers.BertForSequenceClassification(config).save_pretrained(folder)
    for path in tokenizer.glob("tokenizer*.json"):
        shutil.copy(path, folder)
    return folder
