"""What belongs to one visitor, and is deleted with the visitor: photos, vote, model, files."""

from __future__ import annotations

import copy
import math
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
from .arrivals import delete_upload
from .jobs import StoppedError

if TYPE_CHECKING:
    from ..adapt.plan import Plan
    from ..data.images import ImageSet
    from ..data.task import TaskData
    from ..result import AdaptResult
    from .uploads import Photos


MAX_FORGOTTEN_SESSIONS = 10_000
"""Most forgotten sessions whose names are remembered."""
MAX_GIVEN_UP = 5000
"""Most files of a visitor that are remembered after their end."""


class Visitor:
    """One visitor's session; other visitors see nothing of it."""

    def __init__(self, make_photos: Callable[[], Photos]) -> None:
        self._make_photos = make_photos
        self._photos: Photos | None = None
        self.example: TaskData | None = None
        """The example that the visitor uses instead of own photos."""
        self.plan: Plan | None = None
        """The vote on the visitor's task."""
        self.result: AdaptResult | None = None
        """The visitor's model."""
        self.stop = threading.Event()
        """Set when the visitor's work is to end early."""
        self.photo_changes = 0
        """How often the photos have changed."""
        self.shown_changes = 0
        """The value of `photo_changes` for which the page has removed what was made from former photos."""
        self.was_interrupted = False
        """Whether a change of the photos has ended the last training."""
        self.was_forgotten = False
        """Whether this session is the successor of one that was idle for too long, and whose photos are deleted."""
        self.pending_photos: set[str] = set()
        """Files of photos that are chosen but not added to a class yet."""
        self.trial_photo: str | None = None
        """The file of the photo that the model is tried on."""
        self.uploads: set[str] = set()
        """Files that the visitor has sent and that still exist.

        Gradio names a file by its content: two visitors who send the same file share it.
        """
        self.given_up: dict[str, float] = {}
        """Files that the visitor needs no more, and when that was, in seconds of `time.monotonic`."""
        self.ticket: str | None = None
        """The ticket that brings the visitor back from signing in."""
        self.repo_name = ""
        """The name under which the model is to be published."""
        self._folder: Path | None = None

    @property
    def photos(self) -> Photos:
        """The photos that the visitor has added."""
        if self._photos is None:
            self._photos = self._make_photos()
        return self._photos

    @property
    def folder(self) -> Path:
        """The folder of the visitor's files, made at the first access; only this server's user can read it.

        The folder lies where Gradio serves files from, because Gradio copies files that lie elsewhere, and a copy would
        outlive the visitor. Gradio gives such files to everybody who knows their path, so the name cannot be guessed.
        """
        from gradio.utils import get_upload_folder

        if self._folder is None:
            self._folder = Path(get_upload_folder()) / f"metaprune-{secrets.token_hex(16)}"
            self._folder.mkdir(mode=0o700, parents=True)
        return self._folder

    @contextmanager
    def writable_folder(self) -> Iterator[Path]:
        """Yield the folder to write to.

        Raises:
            StoppedError: the visitor was forgotten meanwhile; what was written is deleted.
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

    def task_data(self, seed: int) -> TaskData:
        """Return the example that the visitor uses, or else the visitor's photos as a task.

        Raises:
            DataError: there are too few photos or classes.
        """
        try:
            return self.example or self.photos.data(seed=seed)
        except DataError as error:
            if self.was_forgotten and not self.photos.by_class:
                raise DataError("this page was idle for so long that its photos are deleted: begin again") from error
            if self.pending_photos:
                raise DataError(f"{error}; press “Add to the class” to add the photos that you have chosen") from error
            raise

    def unlabeled_images(self) -> ImageSet | None:
        """Return the visitor's photos without labels; None if there are none, or an example is used."""
        return None if self.example is not None else self.photos.unlabeled_images()

    @property
    def has_something(self) -> bool:
        """Whether anything would be lost with the visitor."""
        has_photos = self._photos is not None and bool(self._photos.by_class or self._photos.unlabeled)
        return has_photos or bool(self.uploads) or any((self.example, self.plan, self.result, self.ticket))

    @property
    def pixel_bytes(self) -> int:
        """Bytes of the visitor's photos in memory."""
        return 0 if self._photos is None else self._photos.pixel_bytes

    def forget(self) -> None:
        """Delete photos, vote, model and files."""
        self.stop.set()
        self.stop = threading.Event()
        self._photos = None
        self.pending_photos = set()
        self.example = self.plan = self.result = None
        self.was_interrupted = False
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def successor(self) -> Visitor:
        """Return a visitor who has all that this one had but the folder, and leave this one with nothing.

        Whoever knows this one's folder, or still has an event under way, learns nothing of the successor.
        """
        successor = copy.copy(self)
        self.forget()  # which deletes the folder, and ends what is under way
        self.uploads, self.given_up = set(), {}
        successor.stop, successor._folder, successor.ticket = threading.Event(), None, None
        return successor

    def note_photo_change(self) -> None:
        """Drop the vote and the model of the former photos, and end a training on them."""
        self.photo_changes += 1
        self.plan = self.result = None
        self.stop.set()

    def pack_model(self) -> Path:
        """Write the model's folder, with its report as a page, as a zip, and return the zip's path.

        Raises:
            StoppedError: the visitor has no model, or was forgotten meanwhile.
        """
        result = self.result
        if result is None:
            raise StoppedError
        with self.writable_folder() as folder:
            model_folder = result.save_pretrained(folder / "model", html=True, overwrite=True)
            path = folder / "model.zip"
            with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
                for file in sorted(model_folder.iterdir()):
                    archive.write(file, f"model/{file.name}")
        return path


class Visitors:
    """The visitors of a page by session; a visitor who leaves or is idle for too long is forgotten.

    Args:
        make_photos: a function that makes an empty collection of photos.
        max_visitors: most visitors at a time, and most of those who are signing in; one more, and the one who is idle
            for longest is forgotten, those first who have nothing.
        idle_seconds: longest time without a request.
        away_seconds: longest time for signing in.
        delete: a function that deletes a file that a visitor needs no more, unless others do; None: one that knows
            these visitors alone.
        arrived_at: a function that returns when a file has arrived last, in seconds of `time.monotonic`.
    """

    def __init__(
        self,
        make_photos: Callable[[], Photos],
        max_visitors: int = 200,
        idle_seconds: float = 3600,
        away_seconds: float = 900,
        delete: Callable[[str], None] | None = None,
        arrived_at: Callable[[str], float] = lambda path: math.inf,
    ) -> None:
        self.make_photos, self.max_visitors = make_photos, max_visitors
        self.idle_seconds, self.away_seconds = idle_seconds, away_seconds
        self._delete, self._arrived_at = delete or self._delete_unused, arrived_at
        self.sessions: dict[str, tuple[float, Visitor]] = {}
        """Time of the last request and visitor by session, the longest idle one first."""
        self._signing_in: dict[str, Visitor] = {}
        """Visitors who have left the page to sign in, by ticket; they come back in another session."""
        self._forgotten_sessions: dict[str, None] = {}
        """Sessions of visitors who were forgotten, though their pages may still be open, in this order."""
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.sessions)

    def get(self, session: str) -> Visitor:
        """Return the visitor of a session, a new one if there is none, and forget surplus visitors."""
        now = time.monotonic()
        self.forget_idle(but=session)
        with self._lock:
            _, visitor = self.sessions.pop(session, (now, None))
            names = sorted(self.sessions, key=lambda name: self.sessions[name][1].has_something)
            surplus_visitors = self._take(names[: max(0, len(names) - self.max_visitors + 1)])  # the longest idle ones
            if visitor is None:
                visitor = Visitor(self.make_photos)
                visitor.was_forgotten = session in self._forgotten_sessions
            self.sessions[session] = (now, visitor)
        for surplus_visitor in surplus_visitors:
            self.forget(surplus_visitor)
        return visitor

    def forget_idle(self, but: str | None = None) -> None:
        """Forget the visitors who have been idle for too long, but not that of one session."""
        now = time.monotonic()
        with self._lock:
            is_idle = {name: now - last_seen > self.idle_seconds for name, (last_seen, _) in self.sessions.items()}
            idle_visitors = self._take([name for name in self.sessions if is_idle[name] and name != but])
        for visitor in idle_visitors:
            self.forget(visitor)

    def _take(self, names: list[str]) -> list[Visitor]:
        """Remove sessions whose visitors are to be forgotten, and return these; the lock is held."""
        visitors = [self.sessions.pop(name)[1] for name in names]
        self._forgotten_sessions |= dict.fromkeys(names)
        while len(self._forgotten_sessions) > MAX_FORGOTTEN_SESSIONS:
            del self._forgotten_sessions[next(iter(self._forgotten_sessions))]
        return visitors

    def leave(self, session: str | None) -> None:
        """Forget a visitor who has closed the page; a visitor who signs in is kept for `away_seconds`."""
        with self._lock:
            _, visitor = self.sessions.pop(session or "", (0.0, None))
            if visitor is not None and visitor.ticket is not None:
                self._signing_in[visitor.ticket] = visitor
                surplus = list(self._signing_in.values())[: -self.max_visitors]
                timer = threading.Timer(self.away_seconds, self._forget_absent, [visitor.ticket])
                timer.daemon = True
                timer.start()
                visitor = self._signing_in.pop(str(surplus[0].ticket)) if surplus else None
        if visitor is not None:
            self.forget(visitor)

    def issue_ticket(self, visitor: Visitor) -> str:
        """Return a new ticket for a visitor who leaves the page to sign in; `restore` takes it once."""
        visitor.ticket = secrets.token_urlsafe(24)
        return visitor.ticket

    def _forget_absent(self, ticket: str) -> None:
        with self._lock:
            visitor = self._signing_in.pop(ticket, None)
        if visitor is not None:
            self.forget(visitor)

    def restore(self, ticket: str, session: str) -> bool:
        """Give a session the successor of a ticket's visitor, and return whether the ticket was valid.

        A link with a ticket may have been sent by somebody else.
        """
        with self._lock:
            # The former session may still be open: the browser does not wait until it is closed.
            holders = [name for name, (_, visitor) in self.sessions.items() if visitor.ticket == ticket]
            visitor = self.sessions.pop(holders[0])[1] if holders else self._signing_in.pop(ticket, None)
            if visitor is None:
                return False
            _, new_visitor = self.sessions.pop(session, (0.0, None))
            self.sessions[session] = (time.monotonic(), visitor.successor())
        if new_visitor is not None:
            self.forget(new_visitor)
        return True

    def forget(self, visitor: Visitor) -> None:
        """Delete everything that a visitor has sent and made."""
        self.delete_uploads(visitor, visitor.uploads)
        visitor.forget()

    def are_using(self, path: str) -> bool:
        """Return whether any visitor uses a file that was sent."""
        with self._lock:
            return any(path in visitor.uploads for visitor in self._all())

    @property
    def pixel_bytes(self) -> int:
        """Bytes of all visitors' photos in memory."""
        with self._lock:
            return sum(visitor.pixel_bytes for visitor in self._all())

    def _all(self) -> list[Visitor]:
        """Return all visitors, with those who are signing in; the lock is held."""
        return [visitor for _, visitor in self.sessions.values()] + list(self._signing_in.values())

    def note_uploads(self, visitor: Visitor, uploads: Iterable[str]) -> None:
        """Note files that an event of a visitor names; one that the visitor has given up must have arrived again."""
        arrivals = {path: self._arrived_at(path) for path in uploads}
        with self._lock:
            visitor.uploads |= {path for path, at in arrivals.items() if at > visitor.given_up.get(path, -math.inf)}

    def delete_uploads(self, visitor: Visitor, uploads: Iterable[str]) -> None:
        """Delete files that a visitor has sent, except those that somebody else has sent, too, and may still use."""
        with self._lock:
            paths = visitor.uploads & set(uploads)
            visitor.uploads -= paths
            visitor.given_up |= dict.fromkeys(paths, time.monotonic())
            while len(visitor.given_up) > MAX_GIVEN_UP:
                del visitor.given_up[next(iter(visitor.given_up))]
        for path in paths:
            self._delete(path)

    def _delete_unused(self, path: str) -> None:
        if not self.are_using(path):
            delete_upload(path)
