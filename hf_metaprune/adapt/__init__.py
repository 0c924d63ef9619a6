"""The algorithm: retrieval, votes, averages, the classifier, recipes."""
