"""File datasets in a program: add a folder, check it out, see what differs."""
