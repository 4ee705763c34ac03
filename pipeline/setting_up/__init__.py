"""A project in a repository of your own: the files that it starts with, and the versions of the code that its stages depend on."""
