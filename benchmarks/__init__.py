"""Measurements: one script each; their results are in docs/measurements/ and docs/science.md."""
