"""Draws augmented copies of the training examples with configurable rules."""
