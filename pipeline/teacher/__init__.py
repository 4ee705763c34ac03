"""The teacher: open it, fine-tune it, read its word vectors. Only this package and `labelling` import transformers."""
