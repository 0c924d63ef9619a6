"""The style of the page: a theme of Gradio in the colors of our figures, with enough contrast to be read."""

from __future__ import annotations

import gradio as gr

STYLE = """
.gradio-container { max-width: min(900px, 100vw) !important; margin: 0 auto !important; }
footer, .nav-holder { display: none !important; }  /* links that leave the page would delete its photos */
.gradio-container .block:has(> .html-container > .prose:empty) { display: none; }
.gradio-container .metaprune a { padding: 0; }
.dark { --color-accent: #6cb6ec; }
.gradio-container .prose .metaprune :is(table, tr, th, td) { border: 0; }
.gradio-container .prose .metaprune :is(th, td) { border-bottom: 1px solid var(--line); }
"""
DROP_CLASS = "drop"
"""The CSS class of the fields where photos may be dropped; without it they have no visible border on white."""
HEAD = """<style>
.gradio-container .drop { border: 1px dashed #7d8590 !important; }
.gradio-container :is(button, input, [role=tab], [role=option], summary, a):focus-visible,
.gradio-container label:has(input:focus-visible) {
  outline: 3px solid var(--color-accent) !important; outline-offset: 2px;
}
@media (forced-colors: active) { .gradio-container input[type=range] { forced-color-adjust: none; } }
@media (pointer: coarse), (max-width: 40rem) {
  .gradio-container :is(button, [role=tab], [role=option], summary, label:has(> input[type=radio])) {
    min-height: 44px !important;
  }
  .gradio-container .tab-like-container { height: auto !important; }
}
</style>"""
"""Rules with commas in their selectors; Gradio breaks such rules in the style sheet that it is given."""
BLUE, BLUE_DARK_MODE, GRAY, GRAY_DARK_MODE = "#0069a6", "#6cb6ec", "#4b5563", "#b6bec9"
"""The blue of our figures, and gray: one dark enough to be read on white, and one light enough for black, each."""
BORDER = "#7d8590"
"""Color of the borders of fields and buttons; its contrast is at least 3 to white and to black."""
BLOCK_PARTS, MODES = ("label", "title"), ("", "_dark")
LINK_COLORS = [f"link_text_color{state}" for state in ("", "_active", "_hover", "_visited")]
THEME = gr.themes.Soft(
    primary_hue="blue",
    font=["system-ui", "DejaVu Sans", "sans-serif"],
    font_mono=["ui-monospace", "Menlo", "Consolas", "DejaVu Sans Mono", "monospace"],
).set(
    color_accent=BLUE,
    **dict.fromkeys(LINK_COLORS, BLUE),
    **dict.fromkeys((f"{name}_dark" for name in LINK_COLORS), BLUE_DARK_MODE),
    **dict.fromkeys(("button_primary_background_fill", "button_primary_background_fill_dark"), BLUE),
    **dict.fromkeys(("button_primary_background_fill_hover", "button_primary_background_fill_hover_dark"), "#005687"),
    **dict.fromkeys(("checkbox_label_background_fill_selected", "checkbox_label_background_fill_selected_dark"), BLUE),
    **dict.fromkeys((f"block_{part}_background_fill{mode}" for part in BLOCK_PARTS for mode in MODES), "transparent"),
    **dict.fromkeys((f"block_{part}_text_color{mode}" for part in BLOCK_PARTS for mode in MODES), "*body_text_color"),
    **dict.fromkeys(("input_border_color", "checkbox_border_color", "block_border_color"), BORDER),
    **dict.fromkeys(("button_secondary_border_color", "button_secondary_border_color_hover"), BORDER),
    button_secondary_background_fill_hover_dark="*neutral_700",  # the theme's own is too light for white text
    input_border_width="1px",
    button_border_width="1px",
    **dict.fromkeys(("body_text_color_subdued", "block_info_text_color"), GRAY),
    **dict.fromkeys(("body_text_color_subdued_dark", "block_info_text_color_dark"), GRAY_DARK_MODE),
)
