"""The page's style: Gradio's own theme in the colors of the pictures, dark enough and light enough to be read."""

from __future__ import annotations

import gradio as gr

STYLE = """
.gradio-container { max-width: min(900px, 100vw) !important; margin: 0 auto !important; }
footer, .nav-holder { display: none !important; }  /* links that leave the page take its photos away */
.gradio-container .block:has(> .html-container > .prose:empty) { display: none; }
.gradio-container .metaprune a { padding: 0; }
.dark { --color-accent: #6cb6ec; }
.gradio-container .prose .metaprune :is(table, tr, th, td) { border: 0; }
.gradio-container .prose .metaprune :is(th, td) { border-bottom: 1px solid var(--line); }
"""
DROP = "drop"
"""The class of places where photos may be dropped: the theme leaves them without an edge on white."""
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
"""Rules that Gradio would break: it cuts the style that it is given at every comma."""
PAPER, NIGHT, SOFT, SOFT_NIGHT = "#0069a6", "#6cb6ec", "#4b5563", "#b6bec9"
"""The pictures' blue, and gray, dark and light enough to be read on white and on black."""
EDGE = "#7d8590"
"""Of fields and buttons: three times as dark as white, and as light as black."""
PARTS, MODES = ("label", "title"), ("", "_dark")
LINKS = [f"link_text_color{state}" for state in ("", "_active", "_hover", "_visited")]
THEME = gr.themes.Soft(
    primary_hue="blue",
    font=["system-ui", "DejaVu Sans", "sans-serif"],
    font_mono=["ui-monospace", "Menlo", "Consolas", "DejaVu Sans Mono", "monospace"],
).set(
    color_accent=PAPER,
    **dict.fromkeys(LINKS, PAPER),
    **dict.fromkeys((f"{name}_dark" for name in LINKS), NIGHT),
    **dict.fromkeys(("button_primary_background_fill", "button_primary_background_fill_dark"), PAPER),
    **dict.fromkeys(("button_primary_background_fill_hover", "button_primary_background_fill_hover_dark"), "#005687"),
    **dict.fromkeys(("checkbox_label_background_fill_selected", "checkbox_label_background_fill_selected_dark"), PAPER),
    **dict.fromkeys((f"block_{part}_background_fill{mode}" for part in PARTS for mode in MODES), "transparent"),
    **dict.fromkeys((f"block_{part}_text_color{mode}" for part in PARTS for mode in MODES), "*body_text_color"),
    **dict.fromkeys(("input_border_color", "checkbox_border_color", "block_border_color"), EDGE),
    **dict.fromkeys(("button_secondary_border_color", "button_secondary_border_color_hover"), EDGE),
    button_secondary_background_fill_hover_dark="*neutral_700",  # white on the theme's own cannot be read
    input_border_width="1px",
    button_border_width="1px",
    **dict.fromkeys(("body_text_color_subdued", "block_info_text_color"), SOFT),
    **dict.fromkeys(("body_text_color_subdued_dark", "block_info_text_color_dark"), SOFT_NIGHT),
)
