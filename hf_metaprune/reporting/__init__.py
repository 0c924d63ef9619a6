"""Reports, cards, pages and figures: everything that people look at."""
