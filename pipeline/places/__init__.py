"""Where files are: a folder of this machine, or a URL."""
