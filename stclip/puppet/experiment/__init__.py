"""Many trainings and tests on Puppet from one command, and the tables and page made of them."""
