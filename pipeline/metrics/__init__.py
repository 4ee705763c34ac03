"""Numbers from arrays: how good answers are, how well calibrated, and how certain that is. No table and no file is read here."""
