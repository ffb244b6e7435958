"""Own footage: from a video and action names to who does what when.

video -> frames, decoded once, in order -> person detector -> tracker -> scores of each track ->
events -> files.
"""
