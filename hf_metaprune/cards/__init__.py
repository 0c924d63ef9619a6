"""Model cards and bank cards: a data class, its YAML, its text."""
