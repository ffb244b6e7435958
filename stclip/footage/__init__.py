"""People in a video of one's own: who is where."""
