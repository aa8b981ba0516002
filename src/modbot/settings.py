"""The settings: command line > environment > `.env` > default. Read here and nowhere else."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from io import StringIO
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from modbot.errors import SettingError
from modbot.files.paths import check_profile

PROVIDERS = ("auto", "cpu", "openvino", "cuda", "tensorrt")
PRECISIONS = ("fp32", "fp16")
DISCORD_API = "https://discord.com/api/v10"
DEFAULT_MODEL = "wd-eva02-large-tagger-v3"
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


class Secret(str):
    """A string that shows itself to nobody: `repr`, `format` and `str` give `***`; `reveal()` gives the value."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "***"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return "***"

    def reveal(self) -> str:
        """The value itself, for the one header that carries it."""
        return str.__str__(self)


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Every setting, checked. `tz` is an IANA time zone, `analysis_qps` requests a second (`inf`: unlimited)."""

    models_dir: Path = Path("models")
    cache_dir: Path = Path("cache")
    out_dir: Path = Path("out")
    profile: str = "current"
    tz: str = "UTC"
    wd14_model: str = DEFAULT_MODEL
    wd14_provider: str = "auto"
    wd14_batch: int | None = None
    nudenet_model: str = "320n"
    nudenet_provider: str = "auto"
    nudenet_batch: int | None = None
    analysis_qps: float = 4.0
    analysis_concurrency: int = 24
    dsl_mode: str | None = None
    discord_token: Secret | None = None
    discord_api: str = DISCORD_API
    allow_hosts: tuple[str, ...] = ()
    file_root: Path | None = None


def qps(text: str) -> float:
    """Requests a second: a positive number, or `unlimited` (infinity). Raises ValueError."""
    if text.strip().lower() == "unlimited":
        return float("inf")
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise ValueError("it must be a number above 0, or 'unlimited'")
    return value


def count(text: str) -> int:
    """A whole number of at least 1. Raises ValueError."""
    if not (text.strip().isdecimal() and int(text) >= 1):
        raise ValueError("it must be a whole number of at least 1")
    return int(text)


def _zone(text: str) -> str:
    try:
        ZoneInfo(text)
    except (OSError, ValueError, LookupError):
        raise ValueError("no such time zone; use an IANA name, for example Asia/Tokyo") from None
    return text


def _choice(*allowed: str) -> Callable[[str], str]:
    def check(text: str) -> str:
        if text not in allowed:
            raise ValueError(f"use one of {', '.join(allowed)}")
        return text

    return check


def _hosts(text: str) -> tuple[str, ...]:
    return tuple(host.strip() for host in text.split(",") if host.strip())


def _folder(text: str) -> Path:
    return Path(text).expanduser()


def _token(text: str) -> Secret:
    """The token without white space around it (a file that was read into the variable ends with some).

    What cannot stand in a request's header is refused without being shown.
    """
    token = text.strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        remedy = "Give the token alone, on one line, as the bot's page shows it."
        raise SettingError("it holds characters that no token has (it is not shown)", remedy=remedy)
    return Secret(token)


def _discord_api(text: str) -> str:
    """Discord's own API, or a stand-in on this machine: the token goes nowhere else."""
    base = text.rstrip("/")
    host = base.split("://", 1)[-1].split("/", 1)[0]
    name = host if host.endswith("]") else host.rsplit(":", 1)[0]
    if base != DISCORD_API and not (base.startswith(("http://", "https://")) and name in _LOOPBACK and "@" not in base):
        raise ValueError(f"only {DISCORD_API} or a loopback address may receive the token")
    return base


_FIELDS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "MODELS_DIR": ("models_dir", _folder),
    "CACHE_DIR": ("cache_dir", _folder),
    "OUT_DIR": ("out_dir", _folder),
    "MODBOT_PROFILE": ("profile", check_profile),
    "MODBOT_TZ": ("tz", _zone),
    "WD14_MODEL": ("wd14_model", str),
    "WD14_PROVIDER": ("wd14_provider", _choice(*PROVIDERS)),
    "WD14_BATCH": ("wd14_batch", count),
    "NUDENET_MODEL": ("nudenet_model", str),
    "NUDENET_PROVIDER": ("nudenet_provider", _choice(*PROVIDERS)),
    "NUDENET_BATCH": ("nudenet_batch", count),
    "ANALYSIS_QPS": ("analysis_qps", qps),
    "ANALYSIS_CONCURRENCY": ("analysis_concurrency", count),
    "MODBOT_DSL_MODE": ("dsl_mode", _choice("warn", "strict")),
    "DISCORD_BOT_TOKEN": ("discord_token", _token),
    "MODBOT_DISCORD_API": ("discord_api", _discord_api),
    "MODBOT_ALLOW_HOSTS": ("allow_hosts", _hosts),
    "MODBOT_FILE_ROOT": ("file_root", _folder),
}


def load(environ: Mapping[str, str] | None = None, dotenv: Path = Path(".env")) -> Settings:
    """The settings as environment and `.env` give them; an empty variable counts as unset.

    Raises:
        SettingError: a value that cannot be used, or a `.env` that cannot be read, by name.
    """
    environ = os.environ if environ is None else environ
    from_file = read_dotenv(dotenv)
    values: dict[str, Any] = {}
    for name, (field, parse) in _FIELDS.items():
        text, where = environ.get(name), name
        if not text:
            text, where = from_file.get(name), f"{dotenv}: {name}"
        if not text:
            continue
        try:
            values[field] = parse(text)
        except SettingError as error:
            raise SettingError(error.what, where=where, remedy=error.remedy) from None
        except ValueError as error:
            raise SettingError(f"{text!r} cannot be used: {error}", where=where) from None
    return Settings(**values)


def read_dotenv(path: Path) -> dict[str, str]:
    """The variables of a `.env` file; none if there is no such file.

    Raises:
        SettingError: unreadable, or a line that is no `NAME=value`; the line is named, its text is not shown.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        reason = "not UTF-8 text" if isinstance(error, UnicodeDecodeError) else error.strerror
        remedy = "Mend the file or remove it."
        raise SettingError(f"cannot be read ({reason})", where=str(path), remedy=remedy) from None
    from dotenv import dotenv_values
    from dotenv.parser import parse_stream

    for binding in parse_stream(StringIO(text)):
        line = binding.original.string.lstrip("\n")
        if binding.error or (binding.key is not None and binding.value is None):
            number = binding.original.line + len(binding.original.string) - len(line)
            raise SettingError("not a NAME=value line", where=f"{path}, line {number}", remedy="Mend that line.")
    return {name: value for name, value in dotenv_values(stream=StringIO(text)).items() if value is not None}
