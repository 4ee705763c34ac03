"""Reads the rows of a source, checks them, and splits their text into tagged words."""
