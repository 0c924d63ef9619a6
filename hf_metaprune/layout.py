"""The format on disk and on the Hub: its version, and the names of files and folders (docs/design.md)."""

FORMAT_VERSION = 1

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
PREPROCESSOR = "preprocessor_config.json"

BANK_FILE = "bank.json"
INDEX_FILE = "index.parquet"
BASE_FOLDER = "base"
TASKS_FOLDER = "tasks"
LOCKS_FOLDER = ".locks"
REJECTED_FOLDER = ".rejected"

TEMPORARY = ".tmp-"
"""Prefix of names that are not finished; readers ignore them, writers clear old ones."""
