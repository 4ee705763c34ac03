"""Removes white space from columns of texts, as Python's `str.strip` and `str.split` define it."""

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.tables import TextMode

WHITE_SPACE = "\t\n\x0b\x0c\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000"
"""The characters for which `str.isspace` is true. Arrow, polars and regular expressions define white space otherwise."""
ANY = "[" + "".join(f"\\x{{{ord(letter):x}}}" for letter in WHITE_SPACE) + "]"
"""A regular expression for one of them."""
_BETWEEN_WORDS = ANY.replace("\\x{20}", "") + f"| {ANY}"
"""Matches white space between words that is not one space."""


def cleaned(texts: pa.StringArray, mode: TextMode) -> pa.StringArray:
    """Return texts without white space at both ends, in pretokenised mode with one space between words; "" for a null.

    A word is what `tagging.split_words` makes one.
    """
    found = pc.utf8_trim(pc.fill_null(texts, ""), WHITE_SPACE)
    if mode != "pretokenised":
        return found
    several = pc.match_substring_regex(found, _BETWEEN_WORDS)
    if not pc.any(several).as_py():
        return found
    joined = pc.replace_substring_regex(found.filter(several), f"{ANY}+", " ")
    return pc.replace_with_mask(found, several, joined)
