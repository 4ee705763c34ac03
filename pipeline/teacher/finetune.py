"""Make the teacher: fine-tune an encoder, or take a classifier that is already trained; record it in teacher.json."""

import importlib.util
import logging
import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray

from pipeline.console import progress
from pipeline.errors import InputError, not_installed
from pipeline.machine.devices import device
from pipeline.metrics import regression
from pipeline.params.teachers import Finetune, TeacherModel
from pipeline.storage import write_json
from pipeline.teacher import own
from pipeline.teacher.files import Files, check_folder, find_files, read_config
from pipeline.teacher.model import (
    check_config,
    check_padding,
    check_tokenizer,
    check_words,
    describe,
    load_classifier,
    load_tokenizer,
    max_length,
    open_teacher,
)
from pipeline.teacher.recorded import RECORD

logger = logging.getLogger(__name__)


def make_teacher(model: TeacherModel, examples: pa.Table, labels: list[str], folder: Path) -> None:
    """Write what `recorded.open_recorded` opens to an empty folder: teacher.json, and the classifier if it is fine-tuned.

    :raises InputError: If the model is missing, is unsafe to load, or does not fit the task.
    """
    more: dict[str, Any] = {"finetuned": False}
    if model.source.startswith(own.SCHEME):
        opened = own.open_own(model.source, model.params, labels, model.labels, model.files)
        record = own.describe_own(opened, model.licence)
    elif model.finetune is None:
        teacher = open_teacher(find_files(model.source, model.sha256), labels, model.labels)
        check_words(model.source, teacher.tokenizer, examples)
        record = describe(teacher, model.licence)
    else:
        source = find_files(model.source, model.sha256)
        outcome = finetune(source, examples, labels, model.finetune, folder)
        record = describe(open_teacher(find_files(f"folder:{folder}"), labels, {}), model.licence)
        finetuning = {"base_sha256": source.sha256, **model.finetune.model_dump(), **outcome}
        more = {"source": source.source, "revision": source.revision, "finetuned": True, "finetuning": finetuning}
    write_json(folder / RECORD, record | more)


def finetune(source: Files, examples: pa.Table, labels: list[str], how: Finetune, folder: Path) -> dict[str, Any]:
    """Train a classifier on the labelled training rows, and write the weights of the epoch with the best validation accuracy.

    With one class it is a regression: it minimises the mean squared error, and the epoch with the best Pearson correlation is kept. It uses
    AdamW with a linear schedule (the Trainer of transformers). The same seed on the same machine gives the same weights.

    :param source: The encoder's files.
    :param examples: The task's rows, `tables.EXAMPLES`.
    :param labels: The task's class names, in the order of the integer labels.
    :param folder: The classifier, its configuration and its tokenizer are written here.
    :return: The result, as JSON: the rows, the dtype of the computation, the validation accuracy (`pearson` for a regression) by
        epoch, and the best one.
    :raises InputError: If the training or the validation split has no labelled rows, or the encoder or its tokenizer cannot be right.
    """
    if importlib.util.find_spec("accelerate") is None:
        raise InputError(not_installed("accelerate"))
    from transformers import DataCollatorWithPadding, PrinterCallback, Trainer, set_seed

    check_folder(source.source, source.folder, labels, {}, finetune=True)
    check_config(source)
    tokenizer = load_tokenizer(source)
    check_words(source.source, tokenizer, examples)
    problem = {"problem_type": "regression"} if len(labels) == 1 else {}
    if not problem and read_config(source.source, source.folder).get("problem_type") is not None:
        problem = {"problem_type": "single_label_classification"}  # instead of that of the head that is replaced
    set_seed(how.seed)  # the new head is initialised at random
    score = "pearson" if len(labels) == 1 else "accuracy"
    model, missing = load_classifier(
        source,
        finetune=True,
        num_labels=len(labels),
        id2label=dict(enumerate(labels)),
        label2id={name: i for i, name in enumerate(labels)},
        **problem,
    )
    check_tokenizer(source, model, tokenizer, padded=True)
    check_padding(source, model, tokenizer, tokenizer.pad_token_id)
    logger.info("fine-tuning %s: randomly initialised parameters: %s", source.source, ", ".join(missing) or "none")
    length = min(how.max_length, max_length(model, tokenizer) or how.max_length)
    rows = {split: _encoded(tokenizer, examples, split, length) for split in ("train", "validation")}
    checkpoints = folder / "checkpoints"
    bfloat16 = _bfloat16_pays() and model.config.model_type != "deberta"  # its mask is beyond the range of bfloat16
    trainer = Trainer(
        model,
        _arguments(how, checkpoints, bfloat16, score),
        data_collator=DataCollatorWithPadding(tokenizer),
        train_dataset=rows["train"],
        eval_dataset=rows["validation"],
        compute_metrics=lambda found: {score: _score(*found)},
        # An encoder-decoder returns its hidden states after the logits.
        preprocess_logits_for_metrics=lambda found, _: found[0] if isinstance(found, tuple) else found,
    )
    trainer.remove_callback(PrinterCallback)
    with ExitStack() as stack:
        trainer.add_callback(_callback(stack, score))
        trainer.train()
    scores = [entry[f"eval_{score}"] for entry in trainer.state.log_history if f"eval_{score}" in entry]
    best = max(scores)
    epoch, trained = scores.index(best) + 1, len(rows["train"])
    logger.info("fine-tuned on %d rows: validation %s %.4f in epoch %d", trained, score, best, epoch)
    shutil.rmtree(checkpoints)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return {
        "rows": {split: len(encoded) for split, encoded in rows.items()},
        "dtype": "bfloat16" if bfloat16 else "float32",
        f"validation_{score}_by_epoch": scores,
        f"validation_{score}": best,
    }


def _callback(stack: ExitStack, score: str) -> Any:
    """Return a callback that shows the progress until the stack is closed, and logs the score of each epoch."""
    from transformers import TrainerCallback

    class Progress(TrainerCallback):  # type: ignore[misc]
        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            # Not counted here: a step takes how.batch_size rows per GPU.
            self.advance = stack.enter_context(progress(state.max_steps, "fine-tuning", "batches"))

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.advance(1)

        def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, float], **_: Any) -> None:
            logger.info("epoch %d: validation %s %.4f", round(state.epoch), score, metrics[f"eval_{score}"])

    return Progress()


def _score(logits: NDArray[Any], labels: NDArray[Any]) -> float:
    """Return the score that selects the epoch: the accuracy, or the Pearson correlation with one class."""
    if logits.shape[-1] == 1:
        return regression.pearson(labels, logits[:, 0])
    return float((np.argmax(logits, axis=-1) == labels).mean())


def _encoded(tokenizer: Any, examples: pa.Table, split: str, length: int) -> list[dict[str, Any]]:
    rows = examples.filter(pc.and_(pc.equal(examples["split"], split), pc.is_valid(examples["label"])))
    if rows.num_rows == 0:
        raise InputError(f"the {split} split has no labelled rows; fine-tuning the teacher needs some")
    sides = ("sentence1", "sentence2") if rows["sentence2"].null_count < rows.num_rows else ("sentence1",)
    encoded = tokenizer(*(rows[side].to_pylist() for side in sides), truncation=True, max_length=length)
    encoded["labels"] = rows["label"].to_pylist()
    return [dict(zip(encoded, row, strict=True)) for row in zip(*encoded.values(), strict=True)]


def _arguments(how: Finetune, checkpoints: Path, bfloat16: bool, score: str) -> Any:
    from transformers import TrainingArguments

    return TrainingArguments(
        output_dir=str(checkpoints),
        num_train_epochs=how.epochs,
        per_device_train_batch_size=how.batch_size,
        per_device_eval_batch_size=4 * how.batch_size,
        learning_rate=how.learning_rate,
        weight_decay=how.weight_decay,
        warmup_steps=how.warmup,
        train_sampling_strategy="group_by_length",
        seed=how.seed,
        bf16=bfloat16,
        use_cpu=device().type == "cpu",
        dataloader_pin_memory=device().type == "cuda",
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=1,
        save_only_model=True,
        load_best_model_at_end=True,
        metric_for_best_model=score,
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,  # the callback shows the progress
    )


def _bfloat16_pays() -> bool:
    """Return whether the hardware multiplies bfloat16 matrices; autocast then trains in about half the time.

    The weights, the accumulated gradients and AdamW's state stay float32.
    """
    if device().type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device().type == "mps":
        return False  # not measured
    flags = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(flags.get("avx512_bf16") or flags.get("amx_bf16"))
