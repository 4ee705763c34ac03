"""`offline-distill check`: everything that can be known of a task before its first stage runs."""
