"""Names of files, and files that are never left half written."""
