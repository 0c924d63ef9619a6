"""The look of figures and pages: the style and the templates."""
