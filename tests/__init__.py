"""The tests, and the variables under which they and what they start run: set before anything imports torch or nltk."""

import os
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
# More threads round differently, are slower on networks as tiny as these, and fight with those of the other workers.
os.environ.setdefault("OMP_NUM_THREADS", "1")
if (REPO.parent / "shared" / "nltk_data").is_dir():
    os.environ.setdefault("NLTK_DATA", str(REPO.parent / "shared" / "nltk_data"))
os.environ.pop("COLUMNS", None)  # which xdist sets for its workers; our commands would wrap what they print
if sys.dont_write_bytecode:  # each process would compile torch and all the others anew: 20 s of CPU
    sys.dont_write_bytecode = False
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
