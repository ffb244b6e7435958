"""The commands of tools/evaluate.py: each reads files, calls the metric, and words the outcome."""
