"""One file for each family of networks, beside what families share."""
