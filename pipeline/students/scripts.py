"""Scripts that have no spaces between words: Chinese, Japanese, Thai, Lao, Khmer and Burmese.

The ranges are written out, so that Python and RE2 agree on them whatever their versions of Unicode.
"""

_IDEOGRAPHS = (
    (0x3005, 0x3007),
    (0x3041, 0x30FF),  # kana
    (0x31F0, 0x31FF),
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0xFF66, 0xFF9F),  # half-width kana
    (0x1B000, 0x1B16F),
    (0x20000, 0x323AF),
)
_LETTERS = ((0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0xA9E0, 0xA9FF), (0xAA60, 0xAA7F))
_PUNCTUATION = (
    *((0x3001, 0x3003), (0x3008, 0x301F), (0xFF01, 0xFF0F)),
    *((0xFF1A, 0xFF20), (0xFF3B, 0xFF40), (0xFF5B, 0xFF65)),
)
_MARKS = (
    *((0x0E31, 0x0E31), (0x0E34, 0x0E3A), (0x0E47, 0x0E4E)),  # Thai
    *((0x0EB1, 0x0EB1), (0x0EB4, 0x0EBC), (0x0EC8, 0x0ECE)),  # Lao
    *((0x102B, 0x103E), (0x1056, 0x1059), (0x105E, 0x1060), (0x1062, 0x1064), (0x1067, 0x106D), (0x1071, 0x1074)),
    *((0x1082, 0x108D), (0x108F, 0x108F), (0x109A, 0x109D), (0xA9E5, 0xA9E5), (0xAA7B, 0xAA7D)),  # Burmese
    *((0x17B4, 0x17D3), (0x17DD, 0x17DD)),  # Khmer
    *((0x3099, 0x309A), (0xFE00, 0xFE0F), (0xE0100, 0xE01EF)),  # voiced kana, variants
)
"""Vowels and tones that belong to the character before them."""


def _listed(*scripts: tuple[tuple[int, int], ...]) -> str:
    return "".join(f"{chr(first)}-{chr(last)}" for script in scripts for first, last in script)


CHARACTER = f"[{_listed(_IDEOGRAPHS, _LETTERS, _PUNCTUATION)}][{_listed(_MARKS)}]*"
"""A character of these scripts with its marks, as a regular expression of both Python and RE2."""
PIECE = f"{CHARACTER}|[^{_listed(_IDEOGRAPHS, _LETTERS, _PUNCTUATION)}]+"
"""One of these characters, or a run of others."""
CLAUSE = f"[{_listed(_IDEOGRAPHS)}]{{8}}|[{_listed(_LETTERS)}]{{16}}"
"""More characters in a row than a word of these scripts has, but for few."""
