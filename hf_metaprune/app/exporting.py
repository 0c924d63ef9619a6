"""Export to ONNX in a process of its own: torch's export changes state of the whole process, and breaks trainings."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from ..errors import DataError, MetaPruneError
from .jobs import POLL_SECONDS


def export_in_process(model: Path, path: Path) -> Iterator[None]:
    """Write a saved model as an ONNX file; yield at least once per second until it is there.

    Args:
        model: the folder of the model.
        path: the file to write.

    Raises:
        DataError: the model cannot be exported; the message says why.
    """
    command = [sys.executable, "-m", __name__, str(model), str(path)]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        try:
            while True:
                try:
                    output, errors = child.communicate(timeout=POLL_SECONDS)
                    break
                except subprocess.TimeoutExpired:
                    yield
        finally:
            child.kill()
    if child.returncode:
        message = output.decode("utf-8", "replace").strip()
        if not message:
            raise RuntimeError(f"the export ended with {child.returncode}: {errors.decode('utf-8', 'replace')[-2000:]}")
        raise DataError(json.loads(message)["error"])


def main() -> None:
    """Run the process: the arguments are the model's folder and the file to write."""
    from ..export import export_onnx
    from ..result import load_result

    try:
        result = load_result(Path(sys.argv[1]), "cpu")
        export_onnx(result.model, result.preprocessing, Path(sys.argv[2]))
    except MetaPruneError as error:
        sys.stdout.write(json.dumps({"error": str(error)}))
        raise SystemExit(1) from error


if __name__ == "__main__":
    main()
