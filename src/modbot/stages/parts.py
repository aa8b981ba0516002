"""A day that is judged in parts: each part has files of its own, which are joined behind the first part's."""

from __future__ import annotations

import logging
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from modbot.files.atomic import Draft, storage_errors, sweep, tmp_of
from modbot.stages.crew import Crew, Task
from modbot.stages.lines import BUFFER_BYTES, Span

T = TypeVar("T")


@dataclass(frozen=True)
class Part:
    """Lines of the day's file, and where what comes of them is written meanwhile, by the name of the file it is of."""

    span: Span
    files: Mapping[str, Path]

    @contextmanager
    def writing(self) -> Iterator[dict[str, Draft]]:
        """The part's own files. Raises StorageError."""
        with ExitStack() as stack:
            yield {name: stack.enter_context(_scratch(path)) for name, path in self.files.items()}

    def append_to(self, drafts: Mapping[str, Draft]) -> None:
        """Writes what the part's files hold behind what the drafts hold."""
        for name, path in self.files.items():
            append(path, drafts[name])

    def remove(self) -> None:
        """Removes the part's files, those that were made. Raises StorageError."""
        for path in self.files.values():
            with storage_errors(path):
                path.unlink(missing_ok=True)


def judge_in_parts(
    pieces: Iterable[Span],
    drafts: Mapping[str, Draft],
    crew: Crew,
    task: Callable[[Part], Task[T]],
    add: Callable[[T], None],
) -> None:
    """Has the crew judge every piece, and joins what comes of it in the order of the pieces.

    `task` judges a part and writes its files; `add` takes what it gives. However this ends, no part's file is left.
    """
    parts = deque[Part]()

    def tasks() -> Iterator[Task[T]]:
        for span in pieces:
            parts.append(Part(span, {name: tmp_of(draft.path) for name, draft in drafts.items()}))
            yield task(parts[-1])

    try:
        for result in crew.do(tasks(), ahead=1):
            parts[0].append_to(drafts)
            parts[0].remove()
            parts.popleft()
            add(result)
    except BaseException:
        # Whoever is still at a part would make its files again.
        crew.end()
        for part in parts:
            part.remove()
        raise


@contextmanager
def swept(paths: Iterable[Path], crew: Crew) -> Iterator[None]:
    """When the block fails, ends the crew and removes what any of it that was killed has left of these files."""
    try:
        yield
    except BaseException:
        crew.end()
        for path in paths:
            sweep(path)
        raise


def append(path: Path, draft: Draft, *, without_header: bool = False) -> None:
    """Writes what the file holds behind what the draft holds."""
    with path.open("rb") as data:
        if without_header:
            data.readline()
        shutil.copyfileobj(data, draft, BUFFER_BYTES)


def leave_the_telling() -> None:
    """What this process cannot evaluate is told by the one that asked: five times in all, not by each."""
    logging.getLogger("modbot.rules").disabled = True


def _scratch(path: Path) -> Draft:
    with storage_errors(path):
        return Draft(path, path)
