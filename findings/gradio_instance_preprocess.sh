#!/usr/bin/env bash
# Gradio: a method that is set on one component is lost for a session once an event has changed the component.
#
# `component.preprocess` turns what the browser sends into the argument of a function. One may set it on a component,
# for example to take a file by its path alone, and the first event of a session uses it. One would guess that it stays.
# But when an event returns an update of the component, even of its label only, Gradio keeps a new component for that
# session, made by the class from the arguments of the first one, and all later events of the session use the class's
# method. Other sessions still use the one that was set, so that a test which sends one event never sees it. A subclass
# with its own method holds (gradio then writes a .pyi file beside the source of the subclass).
#
# Seen with gradio 6.31.0 (the versions are printed). Output when it was kept:
#   set on the component: 'ours', then '5'
#   of a subclass: 'ours', then 'ours'
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet gradio==6.31.0 gradio_client==2.7.2
cat > "$folder/check.py" <<'PYTHON'
import sys

import gradio as gr
from gradio_client import Client


class OwnNumber(gr.Number):
    is_template = True

    def preprocess(self, payload):
        return "ours"


def show(value):
    return str(value), gr.update(label="again")


with gr.Blocks() as page:
    answer, changed, subclassed = gr.Textbox(), gr.Number(), OwnNumber()
    changed.preprocess = lambda payload: "ours"
    for name, component in (("changed", changed), ("subclassed", subclassed)):
        gr.Button().click(show, component, [answer, component], api_name=name)
_, address, _ = page.launch(prevent_thread_lock=True, quiet=True)
print("gradio", gr.__version__)
client, other = (Client(address, verbose=False) for _ in range(2))


def ask(client, name):
    result = client.predict(5, api_name=f"/{name}")
    return result[0] if isinstance(result, (list, tuple)) else result


answers = [ask(client, "changed") for _ in range(2)]
print(f"set on the component: {answers[0]!r}, then {answers[1]!r}")
of_subclass = [ask(client, "subclassed") for _ in range(2)]
print(f"of a subclass: {of_subclass[0]!r}, then {of_subclass[1]!r}")
assert ask(other, "changed") == "ours"
if answers[0] != "ours" or answers[1] == "ours" or of_subclass != ["ours", "ours"]:
    sys.exit("it is otherwise now: this finding is out of date")
PYTHON
GRADIO_ANALYTICS_ENABLED=False "$folder/venv/bin/python" "$folder/check.py"
