"""The `vectors` block: where word vectors come from."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pipeline.params.base import Model, Positive


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
