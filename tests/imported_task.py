"""A task whose source is a logit data set, and the params.yaml that goes with it."""

from logit_sets import LABELS

TASK = {
    "description": "Films, from somebody's logits",
    "text": {
        "source": {"logits": "folder:data/raw/films/large"},
        "columns": {"sentence1": "sentence1", "label": "label"},
        "labels": LABELS,
    },
    **{key: {} for key in ("tag", "augment", "teachers", "vectors", "students")},
}
PARAMS = {
    "tasks": ["films"],
    "tag": {"text": "pretokenised"},
    "augment": {"n_iter": 0, "rules": {}},
    "teachers": {"large": {"model": {"source": "folder:there/is/none"}, "label": {}}},  # opening it would fail
    "vectors": {},
    "students": {
        "small": {
            "model": "pipeline.students.bilstm:BiLSTM",
            "params": {"hidden": 4, "classifier": 4},
            "teacher": "large",
            "epochs": 1,
        }
    },
}
