"""`offline-distill repro`: the stages that are out of date, several at a time."""
