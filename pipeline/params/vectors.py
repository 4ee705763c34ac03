"""The `vectors` block: the sources of word vectors."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from pipeline.params.base import Int, Model, Positive, form


class Vectors(Model):
    """Pretrained word vectors, from a file, a spaCy pipeline or a teacher."""

    source: Annotated[
        str,
        form(
            r"spacy:\S+|(word2vec|text):.+|teacher:\S+",
            "text:FILE",
            "word2vec:FILE",
            "spacy:PIPELINE",
            "teacher:NAME",
        ),
    ]
    """`text:FILE`, of GloVe or fastText; `word2vec:FILE`, binary; `spacy:PIPELINE`, an installed spaCy pipeline with vectors; `teacher:NAME`."""
    licence: str = "unknown"
    """The licence of a file; other sources have their own."""
    extra_words: Int = Field(0, ge=0)
    """Words that are not in the training text and get vectors too: the first ones of the source."""
    dimensions: Positive = 300
    """With `teacher:`: the number of principal components."""

    @model_validator(mode="after")
    def _keys_have_a_source(self) -> Self:
        given = self.model_fields_set
        if "dimensions" in given and not self.source.startswith("teacher:"):
            raise ValueError("dimensions goes with source: teacher:NAME")
        if "licence" in given and not self.source.startswith(("word2vec:", "text:")):
            raise ValueError("licence goes with word2vec:FILE and text:FILE; other sources have their own")
        return self
