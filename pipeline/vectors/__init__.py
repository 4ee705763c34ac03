"""Pretrained word vectors: readers of their files, the lookup of words, the table that training reads."""
