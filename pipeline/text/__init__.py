"""From a source's rows to examples, and from examples to tagged words."""
