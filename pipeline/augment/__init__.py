"""The augmentation procedure and its rules."""
