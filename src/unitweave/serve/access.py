"""Who may use the server, as the command line says: looked at before anything that takes seconds is imported."""

import ipaddress
import os

from unitweave.core.errors import InputError

_TOKEN_VARIABLE = "UNITWEAVE_TOKEN"
_MIN_TOKEN = 16


def check_access(host: str, token: str | None, anonymous: bool) -> str | None:
    """The token to ask clients for, from the command line or the environment.

    Raises:
        InputError: The token is too short, or other machines could use the server without one.
    """
    token = token if token is not None else os.environ.get(_TOKEN_VARIABLE)
    if token is not None and (len(token) < _MIN_TOKEN or not token.isascii() or not token.isprintable()):
        raise InputError(f"the access token must have at least {_MIN_TOKEN} printable ASCII characters")
    if token is None and not anonymous and not _is_loopback(host):
        raise InputError(
            f"--host {host}: anyone on the network could use the server; set a token ({_TOKEN_VARIABLE} or --token), "
            "or allow it with --allow-anonymous"
        )
    return token


def bare_name(name: str) -> str:
    """The name of a host, lower-case, without brackets and the dot of the root."""
    return name.lower().strip("[]").removesuffix(".")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(bare_name(host)).is_loopback
    except ValueError:
        return bare_name(host) == "localhost"
