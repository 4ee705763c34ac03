"""Turn a big text classifier into a tiny one, offline: augment, label with the teacher once, train students from files."""
