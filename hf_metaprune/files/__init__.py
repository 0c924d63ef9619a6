"""The names of files, and writing that leaves no half-written files."""
