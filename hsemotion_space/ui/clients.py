"""Who asks: the network that a request comes from, by which limits count."""

from __future__ import annotations

import gradio as gr
from starlette.datastructures import Headers

from hsemotion_space.environment import is_space
from hsemotion_space.feedback.limits import network_of


def client_of(request: gr.Request) -> str:
    """Return the network that an event of the page comes from."""
    return client_in(request.headers, request.client.host if request.client else "")


def client_in(headers: Headers, peer: str) -> str:
    """Return the network that a request comes from.

    Behind the proxy of a Space it is that of the last address in ``X-Forwarded-For``, which the proxy wrote;
    what stands before it anybody can write. Elsewhere the header is not believed.

    Args:
        headers: of the request.
        peer: address at the other end of the connection.
    """
    written = headers.getlist("x-forwarded-for") if is_space() else []
    return network_of(",".join(written).rpartition(",")[2].strip() or peer)
