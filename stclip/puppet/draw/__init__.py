"""Puppet: a drawn benchmark of people who do J-HMDB's 21 actions."""
