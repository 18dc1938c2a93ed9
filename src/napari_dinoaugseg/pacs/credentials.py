"""Passwords and tokens in the keyring of the system, and nowhere else."""

from __future__ import annotations

from typing import Any

from napari_dinoaugseg.errors import Hint, PacsError
from napari_dinoaugseg.pacs.server import SECRET_VARIABLE, checked_url, is_installed

_NOBODY = "(token)"  # under this name a token is kept, which has no user


def remembered(url: str, user: str) -> str:
    """The password of a user of a PACS, or for an empty user the token; empty if none is kept."""
    backend = _keyring() if is_installed() else None
    if backend is None:
        return ""
    from keyring.errors import KeyringError

    try:
        return backend.get_password(_service(url), user or _NOBODY) or ""
    except KeyringError:  # locked, and the person does not unlock it: it is asked for as if none were kept
        return ""


def remember(url: str, user: str, secret: str) -> None:
    """Keep a password or token. Raises PacsError if this computer has no keyring."""
    from keyring.errors import KeyringError

    backend = _keyring()
    if backend is None:
        raise _no_keyring()
    try:
        backend.set_password(_service(url), user or _NOBODY, secret)
    except KeyringError as error:
        raise _no_keyring() from error


def forget(url: str, user: str) -> None:
    """Remove a password or token, if there is one."""
    backend = _keyring() if is_installed() else None
    if backend is None:
        return
    from keyring.errors import KeyringError

    try:
        backend.delete_password(_service(url), user or _NOBODY)
    except KeyringError:
        return


def _keyring() -> Any:
    """The keyring of the system; None where there is only one that writes readable files, or none."""
    import keyring
    from keyring.core import recommended

    backend = keyring.get_keyring()
    return backend if recommended(backend) else None


def _service(url: str) -> str:
    return f"napari-dinoaugseg {checked_url(url)}"


def _no_keyring() -> PacsError:
    msg = "The password was not kept: this computer has no keyring that can be used."
    return PacsError(msg, Hint.PACS_WITHOUT_KEYRING, variable=SECRET_VARIABLE)
