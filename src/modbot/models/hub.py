"""Files from the Hugging Face hub, at one commit, checked against the digests that the hub states."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from modbot.errors import ModelError

_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def download(repo: str, revision: str, files: Sequence[str], folder: Path) -> str:
    """Downloads files of a repository into `folder`; `HF_ENDPOINT` and `HF_TOKEN` are honoured.

    A branch is resolved to its commit once, so that all files are of the same one. A broken transfer is resumed
    within the call.

    Returns:
        The commit.

    Raises:
        ModelError: the hub is out of reach, has no such file, or sends something else than it states.
    """
    import huggingface_hub as hf

    endpoint = os.environ.get("HF_ENDPOINT") or None
    commit = revision
    with _hub_errors(repo, endpoint or "https://huggingface.co"):
        for file in files:
            stated = hf.get_hf_file_metadata(hf.hf_hub_url(repo, file, revision=commit, endpoint=endpoint))
            if not _COMMIT.fullmatch(stated.commit_hash or ""):
                raise ModelError(f"{endpoint or 'the hub'} states no commit: it is no model hub", where=repo)
            commit = str(stated.commit_hash)
            hf.hf_hub_download(repo, file, revision=commit, local_dir=folder, endpoint=endpoint)
            _compare(folder / file, stated.etag, repo)
    shutil.rmtree(folder / ".cache", ignore_errors=True)  # the hub client's notes on what it downloaded
    return commit


def _compare(path: Path, etag: str | None, repo: str) -> None:
    """Compares a file with the digest that the hub states for it: it states the SHA-256 of every large file."""
    if etag is None or not _SHA256.fullmatch(etag):
        return
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != etag:
        raise ModelError(
            f"{path.name} arrived with sha256 {digest}, the hub states {etag}", where=repo, remedy="Fetch it again."
        )


@contextmanager
def _hub_errors(repo: str, endpoint: str) -> Iterator[None]:
    """Turns what huggingface_hub and its HTTP client raise into ModelError; errors of the disk pass."""
    import httpx2
    from huggingface_hub import errors

    remedy = (
        f"Check that {endpoint} can be reached from here and run it again (HF_ENDPOINT names a mirror), "
        "or copy the model's folder from a machine that has it into MODELS_DIR."
    )
    try:
        yield
    except errors.OfflineModeIsEnabled as error:
        remedy = "Unset HF_HUB_OFFLINE and run it again."
        raise ModelError("the hub is switched off by HF_HUB_OFFLINE", where=repo, remedy=remedy) from error
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        if status in {401, 403}:
            remedy = "If its page asks for a login or an agreement, give it and set HF_TOKEN; else check HF_ENDPOINT."
        raise ModelError(f"the hub at {endpoint} answers {status}", where=repo, remedy=remedy) from error
    except (httpx2.HTTPError, httpx2.InvalidURL, errors.LocalEntryNotFoundError) as error:
        what = f"the transfer from {endpoint} broke or did not begin ({type(error).__name__})"
        raise ModelError(what, where=repo, remedy=remedy) from error
    except OSError as error:
        if error.errno is not None:
            raise
        # What it raises where a file has another size than stated.
        raise ModelError("the transfer ended early", where=repo, remedy=remedy) from error
