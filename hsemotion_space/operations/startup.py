"""Checks before a server starts, with one sentence for each."""

from __future__ import annotations

import os
import socket

from hsemotion_space.feedback.service import database_url
from hsemotion_space.hub.registry import read_registry
from hsemotion_space.messages import Message
from hsemotion_space.operations.health import Check, free_bytes, nearest
from hsemotion_space.settings import Settings, SettingsError


def check_start(settings: Settings) -> dict[str, Check]:
    """Return what a server will find: its port, checkpoints, cache and data. Nothing is written.

    Raises:
        SettingsError: if the port cannot be used.
    """
    check_address(settings)
    port = Message("Port {port} at {host} is free.", port=settings.port, host=settings.host)
    return {
        "port": Check("ok", port),
        "checkpoints": _check_manifests(settings),
        "cache": _check_cache(settings),
        "data": _check_data(settings),
    }


def check_address(settings: Settings) -> None:
    """Refuse an address that cannot be listened at, before anything is made that must be deleted again.

    Raises:
        SettingsError: if the port is taken, or the address is not of this machine.
    """
    try:
        family = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0][0]
        socket.create_server((settings.host, settings.port), family=family).close()
    except OSError as error:
        # negative for an unknown name
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
        raise SettingsError(
            "The page cannot be served at {host}, port {port} ({reason}). Set HSEMOTION_PORT to a free port,"
            " or HSEMOTION_HOST to an address of this machine.",
            code="address",
            host=settings.host,
            port=settings.port,
            reason=reason,
        ) from error


def _check_manifests(settings: Settings) -> Check:
    registry = read_registry(settings.checkpoint_roots)
    text = "{usable} checkpoints can be used."
    if not registry.faults:
        return Check("ok", Message(text, usable=len(registry.checkpoints)))
    text += " {count} cannot: {names}. Run `hsemotion-space checkpoints list` to see why."
    names = ", ".join(registry.faults)
    return Check(
        "failing", Message(text, usable=len(registry.checkpoints), count=len(registry.faults), names=names)
    )


def _check_cache(settings: Settings) -> Check:
    free = f"{free_bytes(settings.cache) / 1e9:.1f}"
    if os.access(nearest(settings.cache), os.W_OK | os.X_OK):
        return Check(
            "ok", Message("The cache is {folder}; {free} GB are free.", folder=settings.cache, free=free)
        )
    text = (
        "The cache {folder} cannot be written, so every start converts the networks again. Set"
        " HSEMOTION_CACHE to a folder that can be written."
    )
    return Check("failing", Message(text, folder=settings.cache))


def _check_data(settings: Settings) -> Check:
    folder = settings.feedback_data
    if settings.feedback == "off":
        return Check("off", Message("Corrections are switched off."))
    if not database_url(settings).startswith("sqlite"):
        return Check("ok", Message("Corrections are saved in PostgreSQL."))
    if os.access(nearest(folder), os.W_OK | os.X_OK):
        free = f"{free_bytes(folder) / 1e9:.1f}"
        text = "Corrections are saved in {folder}; {free} GB are free."
        return Check("ok", Message(text, folder=folder, free=free))
    text = (
        "The folder for corrections, {folder}, cannot be written. Set HSEMOTION_FEEDBACK_DATA to a folder"
        " that can be written, or HSEMOTION_FEEDBACK=off."
    )
    return Check("failing", Message(text, folder=folder))
