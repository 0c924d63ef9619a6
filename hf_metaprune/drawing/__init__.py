"""How figures and pages look: the style, the templates."""
