"""By which of its network interfaces this machine reaches another one."""

import socket
from contextlib import suppress

# Belongs to nobody (RFC 5737): what leads there is the way out of this machine. Nothing is sent.
ANYWHERE = "203.0.113.1"
PORT = 9


def interface_to(address: str | None) -> str | None:
    """The name of the interface that leads to an address, or to a host of that name; None where that is not known.

    address: None for this machine itself, which the loopback interface reaches. A name that this machine gives itself
    in /etc/hosts, as Debian does by 127.0.1.1, says nothing of how others reach it: then it is the way out.
    """
    if address is None:
        return _interface_with("127.0.0.1")
    own = _own_address(address)
    if own is None or own.startswith("127.") or own == "::1":
        own = _own_address(ANYWHERE)
    return None if own is None else _interface_with(own)


def _own_address(other: str) -> str | None:
    """The address of this machine from which it would send something to another one."""
    with suppress(OSError, UnicodeError):
        for family, kind, protocol, _, place in socket.getaddrinfo(other, PORT, type=socket.SOCK_DGRAM):
            with suppress(OSError), socket.socket(family, kind, protocol) as probe:
                probe.connect(place)
                return str(probe.getsockname()[0]).partition("%")[0]
    return None


def _interface_with(address: str) -> str | None:
    import psutil

    with suppress(OSError):
        for name, addresses in psutil.net_if_addrs().items():
            if any(found.address.partition("%")[0] == address for found in addresses):
                return str(name)
    return None
