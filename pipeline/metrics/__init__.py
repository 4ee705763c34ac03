"""Metrics from arrays: accuracy, correlation, calibration, and their intervals. Nothing here reads a table or a file."""
