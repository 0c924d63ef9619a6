"""Pages of HTML: a model's report, and what notebooks show of results, banks and masks."""
