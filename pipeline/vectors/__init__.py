"""Pretrained word vectors: reading their files, looking words up, the table that training reads."""
