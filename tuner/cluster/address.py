"""Address: where a cluster's job server listens, and which addresses are not spoken to, with the reason."""

from __future__ import annotations

import ipaddress
from urllib.parse import SplitResult, urlsplit

from tuner.errors import BadInput

DEFAULT = "http://127.0.0.1:8265"
"""Where Ray's job server listens on the head, and where a tunnel to it ends."""

RAY = 6379
"""Port of Ray's own control store: what `ray start` and Ray Tune call the cluster's address."""


def check_address(address: str | None, *, insecure: bool = False) -> str:
    """The address as it is used: `scheme://host[:port][/path]`, without a slash at its end.

    insecure: speak plain http to another machine all the same.

    Raises:
        BadInput: it is none, carries a password, or would send the token in clear over a network.
    """
    text = (address or DEFAULT).strip()
    if text == "auto":
        raise BadInput(
            "--address auto is for a node of the cluster: hypertune run SPACE --address auto; "
            f"from outside, name its job server, such as {DEFAULT}"
        )
    parts = _split(text if "://" in text else f"http://{text}")
    if parts.scheme == "ray":
        raise BadInput(
            "--address: a ray:// address runs the search through Ray Client, where its lock, its log and Ctrl-C would "
            f"be those of the head; name the job server instead, such as {DEFAULT}"
        )
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise BadInput(f"--address must be http://HOST:PORT or https://HOST, such as {DEFAULT}")
    if parts.port == RAY:
        raise BadInput(f"--address: {RAY} is the port at which Ray's nodes meet; the job server's is 8265: {DEFAULT}")
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise BadInput(
            "--address must hold a host, a port and a path alone: a password in it would be written to logs; "
            "put the token in ~/.ray/auth_token, or in RAY_AUTH_TOKEN"
        )
    if parts.scheme == "http" and not insecure and not is_loopback(parts.hostname):
        raise BadInput(
            f"--address: plain http to {parts.hostname} shows the token to everybody on the way, and with it anybody "
            f"can run code on the cluster; {tunnel(parts)}; or use https, or --insecure on a network of your own"
        )
    return parts._replace(path=parts.path.rstrip("/")).geturl()


def is_loopback(host: str) -> bool:
    """Whether a host name is this machine itself: localhost, 127.0.0.0/8, ::1."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def tunnel(parts: SplitResult) -> str:
    """How to reach a job server that listens on its own machine alone."""
    port = parts.port or 8265
    host = parts.hostname or "HEAD"
    return f"tunnel it: ssh -N -L {port}:127.0.0.1:{port} {host}, and then --address http://127.0.0.1:{port}"


def _split(text: str) -> SplitResult:
    try:
        parts = urlsplit(text)
        _ = parts.port  # looked at when it is asked for
    except ValueError:
        raise BadInput(f"--address is no address; one is {DEFAULT}") from None
    return parts
