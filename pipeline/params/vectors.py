"""The `vectors` block: the sources of word vectors."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from pipeline.params.base import Model, Positive


class Vectors(Model):
    """Pretrained word vectors, from a file, a spaCy pipeline or a teacher."""

    source: str = Field(
        pattern=r"^(spacy:\S+|(word2vec|text):.+|teacher:\S+)$",
        description="spacy:PIPELINE, an installed spaCy pipeline with vectors; word2vec:FILE, binary; text:FILE, of GloVe or fastText; "
        "teacher:NAME. DVC tracks files in data/raw/<task>/",
    )
    licence: str = Field("unknown", description="The licence of a file")
    extra_words: Annotated[int, Field(ge=0)] = Field(
        0,
        description="The number of words outside the training text that get vectors too: the first ones of the source",
    )
    dimensions: Positive = Field(300, description="For a teacher's vectors: the principal components that are kept")

    @model_validator(mode="after")
    def _keys_have_a_source(self) -> Self:
        given = self.model_fields_set
        if "dimensions" in given and not self.source.startswith("teacher:"):
            raise ValueError("dimensions goes with source: teacher:NAME")
        if "licence" in given and not self.source.startswith(("word2vec:", "text:")):
            raise ValueError("licence goes with word2vec:FILE and text:FILE; other sources have their own")
        return self
