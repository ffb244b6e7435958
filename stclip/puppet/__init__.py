"""Puppet, the benchmark that draws itself: its drawing, its small CLIP, and experiments on it."""
