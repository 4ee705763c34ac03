"""Tags and parameters for small corpora."""

from pipeline.params.augment import Augment

PAPER = {
    "ngram": {"rule": "pipeline.augment.rules:KeepNgram", "p_ng": 0.25},
    "words": {"rule": "pipeline.augment.rules:MaskOrReplace", "p_mask": 0.1, "p_pos": 0.1},
}


def tag_of(word: str) -> str:
    """Tag a word by its first letter, so that a test can tell a replacement's tag from its text."""
    return word[0].upper()


def settings(n_iter: int = 8, seed: int = 0, **rules: dict) -> Augment:
    """Return augmentation parameters; the paper's rules where none are given."""
    return Augment.model_validate({"n_iter": n_iter, "seed": seed, "rules": rules or PAPER})
