# %% [markdown]
# # From a list of strings to a student
#
# This notebook distils a teacher into a student in memory. It runs in a few seconds on a CPU and downloads nothing.
# Open it in VS Code, PyCharm or with Jupytext, or run it: `python docs/notebook.py`.
#
# You need `pip install 'offline-distill[all]'`.

# %%
from itertools import product
from pathlib import Path
from tempfile import mkdtemp

import numpy as np

from pipeline.api import Runtime, TrainedStudent, augment, distill, export, label, start_logging

start_logging()  # log lines on stderr: rows that were dropped, progress, the accuracy of each epoch

# %% [markdown]
# ## Texts
#
# Any column of strings: a list, a numpy array, a pandas or polars Series, a pyarrow array. Labels are optional: class
# names, or class numbers; None or NaN where a label is unknown. A missing text is refused, a blank or repeated one is
# dropped. For pairs of sentences, pass pairs, or a second column as `sentence2`. For a regression, pass numbers as
# labels, and `classes=["score"]`.
#
# Class numbers count from 0, in the order of the teacher's classes. -1 is no label, as in data sets of the Hugging Face
# Hub, and a warning counts these rows. If -1 is a class, pass labels as strings.

# %%
subjects = ["the plot", "the cast", "the music", "this film", "her first novel", "the last act", "the camera work"]
verbs = ["is", "was", "seems", "is never", "was never"]
words = {"good": 1, "lovely": 1, "warm": 1, "funny": 1, "bad": 0, "dull": 0, "cold": 0, "stale": 0}
texts = [f"{subject} {verb} {word}" for subject, verb, word in product(subjects, verbs, words)]
labels = [words[text.split()[-1]] ^ ("never" in text) for text in texts]
print(f"{len(texts)} texts, such as {texts[3]!r} with the label {labels[3]}")

# %% [markdown]
# ## Augment
#
# Texts are checked, split by the hash of each text into train and validation, and copied with the paper's rules.
# Pass `splits={"train": 0.8, "validation": 0.1, "test": 0.1}` for other shares, or a mapping of splits to texts for
# splits of your own. `rows.examples` and `rows.augmented` are pyarrow tables.
#
# The default tagger, `spacy:blank:en`, needs no model and gives no parts of speech: a word is replaced with any word of
# the training texts. With a tagger, it is replaced with a word of the same part of speech, as in the paper: `python -m
# spacy download en_core_web_sm`, then `augment(..., tagger="spacy:en_core_web_sm")`.

# %%
rows = augment(texts, labels, splits={"train": 0.7, "validation": 0.3}, n_iter=10, seed=0)
for row in rows.augmented.slice(0, 5).to_pylist():
    print(row["sentence1"], f"({row['masked1']} masked, {row['replaced1']} replaced)")


# %% [markdown]
# ## Label
#
# The teacher here is a rule, so that nothing has to be downloaded. Put your own in its place:
#
# - `teacher="folder:models/ours"`: a classifier that `save_pretrained` wrote, with its tokenizer,
# - `teacher="hub:OWNER/NAME@REVISION"`: a classifier from the Hugging Face Hub,
# - `teacher=(model, tokenizer)`, or a text-classification pipeline: a classifier of transformers in memory,
# - `teacher=object` with `predict_logits(texts)` and a list `labels`, as below.
#
# Classes are matched by name: `{"source": "folder:models/ours", "labels": {"LABEL_0": "negative", "LABEL_1": "positive"}}`
# renames those of the teacher. For a model in memory, set `model.config.id2label`. `cache="labelled"` keeps logits in
# that folder, and a later call labels only new texts.


# %%
class Rule:
    """A teacher: one logit for each of its labels."""

    labels = ("negative", "positive")

    def predict_logits(self, texts: list[str]) -> np.ndarray:
        """Return logits, [n, 2]."""
        scores = np.array([sum(2 * words.get(word, 0.5) - 1 for word in text.split()) for text in texts])
        scores *= np.array([-2 if "never" in text else 2 for text in texts])
        return np.stack([-scores, scores], axis=1)


teacher = Rule()
logits = label(rows, teacher=teacher)
print({split: table.num_rows for split, table in logits.splits.items()}, logits.labels)

# %% [markdown]
# `logits` is a logit data set. `logits.save("logits")` writes it to a folder, `offline-distill verify logits` checks
# that folder, and `distill("logits")` trains from it.
#
# ## Distil
#
# The student is the paper's BiLSTM unless you name another: `"pipeline.students.cnn:CNN"`, or `"my_student:MyStudent"`
# for a class of yours. Settings are the keys of a student's block in params.yaml.

# %%
history = []
student = distill(
    logits,
    "pipeline.students.bilstm:BiLSTM",
    optimiser={"name": "adamw", "learning_rate": 0.001},
    epochs=4,
    seed=0,
    history=history,
)
for epoch in history:
    print(f"epoch {epoch.epoch}: validation accuracy {epoch.validation_accuracy:.2f}")

# %% [markdown]
# ## Predict, save, serve

# %%
new = ["the music is lovely", "the camera work was never funny"]
print(student.predict(new), student.predict_proba(new).round(2).tolist())
agreement = np.mean(student.predict_logits(texts).argmax(axis=1) == teacher.predict_logits(texts).argmax(axis=1))
print(f"the student predicts the teacher's class for {agreement:.0%} of the texts")

# %%
folder = Path(mkdtemp())
student.save(folder / "student")  # for PyTorch
assert TrainedStudent.from_pretrained(folder / "student").predict(new) == student.predict(new)
export(student, folder / "served", logits)  # ONNX, int8 ONNX, and a card with the scores
served = Runtime.from_pretrained(folder / "served")  # needs numpy and onnxruntime, not torch
print(served.predict(new), sorted(path.name for path in (folder / "served").iterdir()))
