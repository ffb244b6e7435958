"""Many runs of the tools as one experiment: which, carrying them out, reading what they left."""
