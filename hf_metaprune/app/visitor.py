"""What belongs to one visitor, and goes with them: photos, vote, model, files."""

from __future__ import annotations

import secrets
import shutil
import threading
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import DataError
from .jobs import StoppedError

if TYPE_CHECKING:
    from ..adapt.plan import Plan
    from ..data.task import TaskData
    from ..result import AdaptResult
    from .uploads import Photos


MOST_GONE = 10_000


class Visitor:
    """One visitor's session; nothing of it is seen by others."""

    def __init__(self, no_photos: Callable[[], Photos]) -> None:
        self._no_photos = no_photos
        self._photos: Photos | None = None
        self.example: TaskData | None = None
        self.plan: Plan | None = None
        self.result: AdaptResult | None = None
        self.stop = threading.Event()
        self.changes = 0
        """How often the photos have become others."""
        self.interrupted = False
        """By which a training ended."""
        self.was_forgotten = False
        """The page was here before, and its photos were let go."""
        self.chosen: set[str] = set()
        """Files of photos that are chosen, and not added yet."""
        self.tried: str | None = None
        """The file of the photo that the model is tried on."""
        self.uploads: set[str] = set()
        """Files that came and are still there; Gradio keeps them by their content, one for all who send the same."""
        self.ticket: str | None = None
        """By which one who has gone to sign in comes back."""
        self.name = ""
        """That the model is to be published under."""
        self._folder: Path | None = None

    @property
    def photos(self) -> Photos:
        """What the visitor has brought."""
        if self._photos is None:
            self._photos = self._no_photos()
        return self._photos

    @property
    def folder(self) -> Path:
        """A folder for the visitor's files, made when it is needed; only this server's user can read it.

        It is where Gradio serves files from: of files elsewhere it keeps a copy, which would outlive this one. So its
        name cannot be guessed.
        """
        from gradio.utils import get_upload_folder

        if self._folder is None:
            self._folder = Path(get_upload_folder()) / f"metaprune-{secrets.token_hex(16)}"
            self._folder.mkdir(mode=0o700, parents=True)
        return self._folder

    @contextmanager
    def writing(self) -> Iterator[Path]:
        """The folder, to write to.

        Raises:
            StoppedError: the visitor is gone meanwhile, and with them what was written.
        """
        folder = self.folder
        try:
            yield folder
        except Exception:
            if self._folder == folder:
                raise
        if self._folder != folder:
            shutil.rmtree(folder, ignore_errors=True)
            raise StoppedError

    def data(self, seed: int) -> TaskData:
        """The visitor's photos, or the example that was chosen.

        Raises:
            DataError: too few of them.
        """
        try:
            return self.example or self.photos.data(seed=seed)
        except DataError as error:
            if self.was_forgotten and not self.photos.by_class:
                raise DataError("this page was idle for so long that its photos are forgotten: begin again") from error
            if self.chosen:
                raise DataError(f"{error}; press “Add to the class” to add the photos that you have chosen") from error
            raise

    def forget(self) -> None:
        """Let go of photos, vote, model and files."""
        self.stop.set()
        self.stop = threading.Event()
        self._photos = None
        self.chosen = set()
        self.example = self.plan = self.result = None
        self.interrupted = False
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def changed(self) -> None:
        """The photos are others: what was made, or is being made, from the former ones holds no more."""
        self.changes += 1
        self.plan = self.result = None
        self.stop.set()

    def packed(self) -> Path:
        """The model's folder as a zip, with its report as a page.

        Raises:
            StoppedError: there is no model any more.
        """
        result = self.result
        if result is None:
            raise StoppedError
        with self.writing() as folder:
            made = result.save_pretrained(folder / "model", html=True, overwrite=True)
            path = folder / "model.zip"
            with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
                for file in sorted(made.iterdir()):
                    archive.write(file, f"model/{file.name}")
        return path


class Visitors:
    """Who is here, by the name of their session; whoever leaves, or was idle for long, is forgotten."""

    def __init__(self, no_photos: Callable[[], Photos], most: int = 200, idle: float = 3600, away: float = 900) -> None:
        self.no_photos, self.most, self.idle, self.away = no_photos, most, idle, away
        self.known: dict[str, tuple[float, Visitor]] = {}
        """When each was last seen, and the visitor; the one idle for longest comes first."""
        self._away: dict[str, Visitor] = {}
        """Who has gone to sign in, by ticket: the page is left for it, and comes back as another session."""
        self._gone: dict[str, None] = {}
        """Names of sessions that were forgotten, though their pages may still be open."""
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.known)

    def get(self, session: str) -> Visitor:
        """The visitor of a session; a new one if there is none. Of too many, the one idle for longest is forgotten."""
        now = time.monotonic()
        with self._lock:
            _, visitor = self.known.pop(session, (now, None))
            gone = [name for name, (seen, _) in self.known.items() if now - seen > self.idle]
            here = [name for name in self.known if name not in gone]
            gone += here[: max(0, len(here) - self.most + 1)]
            forgotten = [self.known.pop(name)[1] for name in gone]
            self._gone |= dict.fromkeys(gone)
            if visitor is None:
                visitor = Visitor(self.no_photos)
                visitor.was_forgotten = session in self._gone
            self.known[session] = (now, visitor)
            while len(self._gone) > MOST_GONE:
                del self._gone[next(iter(self._gone))]
        for other in forgotten:
            self.forget(other)
        return visitor

    def leave(self, session: str | None) -> None:
        """Forget a visitor who has closed the page, unless it was to sign in."""
        with self._lock:
            _, visitor = self.known.pop(session or "", (0.0, None))
            if visitor is not None and visitor.ticket is not None:
                self._away[visitor.ticket] = visitor
                waiting = threading.Timer(self.away, self._give_up, [visitor.ticket])
                waiting.daemon = True
                waiting.start()
                return
        if visitor is not None:
            self.forget(visitor)

    def expect(self, visitor: Visitor) -> str:
        """A ticket for who leaves the page to sign in: `restore` takes it, once."""
        visitor.ticket = secrets.token_urlsafe(24)
        return visitor.ticket

    def _give_up(self, ticket: str) -> None:
        with self._lock:
            visitor = self._away.pop(ticket, None)
        if visitor is not None:
            self.forget(visitor)

    def restore(self, ticket: str, session: str) -> bool:
        """Whether a ticket holds; then its visitor is that of the session."""
        with self._lock:
            here = [name for name, (_, visitor) in self.known.items() if visitor.ticket == ticket]
            held = self.known.pop(here[0])[1] if here else self._away.pop(ticket, None)  # it may not have left yet
            if held is None:
                return False
            held.ticket = None
            _, fresh = self.known.pop(session, (0.0, None))
            self.known[session] = (time.monotonic(), held)
        if fresh is not None:
            self.forget(fresh)
        return True

    def forget(self, visitor: Visitor) -> None:
        """Let go of all that a visitor has brought and made."""
        self.drop(visitor, visitor.uploads)
        visitor.forget()

    def drop(self, visitor: Visitor, uploads: Iterable[str]) -> None:
        """Delete files that a visitor has sent, but for those that another has sent, too."""
        paths = set(uploads)
        with self._lock:
            visitor.uploads -= paths
            kept: set[str] = set().union(*(other.uploads for _, other in self.known.values()))
        for path in paths - kept:
            Path(path).unlink(missing_ok=True)
