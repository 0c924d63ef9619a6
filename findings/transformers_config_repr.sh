#!/usr/bin/env bash
# What reading a `config.json` costs besides reading it: transformers 5.24.0.
#
# One would guess: a config is parsed and its fields are set. The line that `from_dict` logs at level INFO costs nothing
# while that level is off, as it is by default.
# What happens: the line is formatted before the logger is asked. Each `from_dict` (so each `from_pretrained` of a config)
# copies the config, compares it with a default one, and writes all of it as JSON with sorted keys, for a text that
# nobody sees. In a config with a large field of its own this takes ten times as long as parsing the file.
# Passing a lazy object to the logger, as `logger.info("Model config %s", config)`, would avoid it.
#
# Output seen (seconds of the CPU; other programs were running):
#   parsing 1,868,929 characters: 0.16 s
#   from_dict: 1.80 s; of these 1.79 s in 1 call of __repr__, with nothing logged
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

python3 -m venv tools
tools/bin/pip install --quiet --disable-pip-version-check uv==0.13.9
tools/bin/uv venv --quiet env
tools/bin/uv pip install --quiet --python env transformers==5.24.0 huggingface_hub==2.3.0 numpy==2.4.6

cat >config.py <<'PYTHON'
import json
import time

from transformers import PreTrainedConfig
from transformers.utils import logging

calls, seconds = 0, 0.0


class Config(PreTrainedConfig):
    model_type = "of-our-own"

    def __repr__(self):
        global calls, seconds
        start = time.process_time()
        text = super().__repr__()
        calls, seconds = calls + 1, seconds + time.process_time() - start
        return text


assert not logging.get_logger("transformers.configuration_utils").isEnabledFor(logging.INFO)
units = {f"layer{i}": {"size": 64, "kept": [1, 2, 3]} for i in range(40_000)}
text = json.dumps({"model_type": "of-our-own", "units": units})
start = time.process_time()
values = json.loads(text)
parsing = time.process_time() - start
print(f"parsing {len(text):,} characters: {parsing:.2f} s")
start = time.process_time()
Config.from_dict(values)
total = time.process_time() - start
print(f"from_dict: {total:.2f} s; of these {seconds:.2f} s in {calls} call of __repr__, with nothing logged")
assert calls == 1, "changed: nothing is formatted any more"
assert seconds > 2 * parsing, "changed: formatting is cheap now"
PYTHON
env/bin/python config.py
