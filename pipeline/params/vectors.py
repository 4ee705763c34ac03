"""The `vectors` block: the sources of word vectors."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from pipeline.params.base import Int, Model, Positive, form


class Vectors(Model):
    """Pretrained word vectors, from a file, a spaCy pipeline or a teacher."""

    # spacy:PIPELINE, an installed spaCy pipeline with vectors; word2vec:FILE, binary; text:FILE, of GloVe or fastText; teacher:NAME.
    # DVC tracks files in data/raw/<task>/.
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
    licence: str = "unknown"  # the licence of a file
    extra_words: Int = Field(0, ge=0)  # words outside the training text that get vectors too: the source's first ones
    dimensions: Positive = 300  # for a teacher's vectors: the principal components that are kept

    @model_validator(mode="after")
    def _keys_have_a_source(self) -> Self:
        given = self.model_fields_set
        if "dimensions" in given and not self.source.startswith("teacher:"):
            raise ValueError("dimensions goes with source: teacher:NAME")
        if "licence" in given and not self.source.startswith(("word2vec:", "text:")):
            raise ValueError("licence goes with word2vec:FILE and text:FILE; other sources have their own")
        return self
