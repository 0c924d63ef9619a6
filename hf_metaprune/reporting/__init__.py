"""What people look at: reports, cards, pages and figures."""
