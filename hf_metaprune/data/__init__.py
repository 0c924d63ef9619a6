"""From a user's images to a task: sources, images, labels, preprocessing, WordNet."""
