"""The steps of an adaptation: retrieval, votes, averages, the classifier and recipes."""
