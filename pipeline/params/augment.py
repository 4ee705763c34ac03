"""The `augment` block: the rules and the number of copies."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from pipeline.params.base import AnySeed, ImportPath, Int, Model


class Rule(BaseModel):
    """One augmentation rule: an import path and its keyword parameters."""

    model_config = ConfigDict(extra="allow", frozen=True)
    rule: ImportPath
    """The import path of the rule's class, `MODULE:NAME`. The other keys of the block are its keyword parameters."""

    @property
    def params(self) -> dict[str, Any]:
        """The rule's keyword parameters."""
        return dict(self.model_extra or {})


class Augment(Model):
    """The augmentation procedure (Tang et al. 2019, section 3.2 of arXiv 1903.12136)."""

    seed: AnySeed = 0
    """Seed of all draws."""
    n_iter: Int = Field(ge=0)
    """Copies drawn of each training example."""
    rules: dict[str, Rule]
    """The rules by name, applied to every copy in the listed order."""
