"""From what a user has to a task: sources, images, labels, preprocessing, WordNet."""
