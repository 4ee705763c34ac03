"""The `augment` block: the rules and the number of copies."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from pipeline.params.base import AnySeed, ImportPath, Int, Model


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

    seed: AnySeed = 0
    n_iter: Int = Field(ge=0)  # copies drawn of each training example
    rules: dict[str, Rule]  # by name, applied in this order
