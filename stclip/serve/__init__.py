"""``stclip detect`` as a web page, for several users at once."""
