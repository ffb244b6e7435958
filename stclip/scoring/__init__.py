"""The commands of stclip evaluate: each reads files, calls the metric, and words the outcome."""
