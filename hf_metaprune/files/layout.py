"""The format on disk and on the Hub: its version, and the names of files and folders (docs/reference/format.md)."""

FORMAT_VERSION = 1
TRUNK_VERSION = 2
"""Version of the format of trunks, and of banks that have one; banks without one stay readable for older readers."""

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
PREPROCESSOR = "preprocessor_config.json"
SCORES = "mask_scores.safetensors"
CARD = "README.md"
REPORT = "report.json"
REPORT_PAGE = "report.html"
UNITS_PICTURE = "units.png"
ENTRY_FILES = (CONFIG, WEIGHTS, PREPROCESSOR, SCORES)
"""Files of an entry of a bank."""
MODEL_FILES = frozenset(
    {CONFIG, WEIGHTS, PREPROCESSOR, SCORES, CARD, REPORT, REPORT_PAGE, "report.md", UNITS_PICTURE}
    | {"accuracy.png", "confusion.png", "votes.png", "model.onnx", "model_int8.onnx"}
)
"""Files that a saved model's folder may hold, which overwriting may delete."""

BANK_FILE = "bank.json"
INDEX_FILE = "index.parquet"
BASE_FOLDER = "base"
TRUNK_FOLDER = "trunk"
TEACHING_FOLDER = ".trunk"
TASKS_FOLDER = "tasks"
LOCKS_FOLDER = ".locks"
REJECTED_FOLDER = ".rejected"

TEMPORARY = ".tmp-"
"""Prefix of the names of unfinished files and folders; readers ignore them, and writers delete old ones."""
