"""The teacher: load it, fine-tune it, label with it. No other part of the library imports transformers."""
