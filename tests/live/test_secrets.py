"""The gateway takes orders from nobody, and tells nobody its keys."""

import logging
from types import ModuleType

import pytest

from throttllem_env.live.gateway import Gateway
from throttllem_env.live.settings import GatewaySettings

KEYS = ("the-clients-key", "the-upstreams-key", "a-wrong-key")


def test_keys_are_never_logged_counted_or_answered(
    rig: ModuleType, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    told: list[str] = []

    async def scene() -> None:
        async with rig.stage(api_key=KEYS[0], upstream_key=KEYS[1]) as stage:
            for key in (*KEYS, None):
                _, body, headers = await stage.post(key=key)
                told.extend([str(body), str(headers)])
            told.append(str(await stage.get("/v1/models", key=KEYS[2])))
            told.append(str(await stage.get("/metrics")))
            told.append(repr(stage.gateway.__dict__))

    rig.run(scene())
    told += [caplog.text, *capfd.readouterr()]
    assert not [key for key in KEYS for text in told if key in text]


def test_settings_are_printed_without_keys() -> None:
    settings = GatewaySettings(("http://127.0.0.1:1",), api_key=KEYS[0], upstream_key=KEYS[1])
    assert not [key for key in KEYS if key in repr(settings)]


def test_no_route_changes_anything() -> None:
    """Requests for completions go in; everything else is read. No route sets a clock or a size."""
    app = Gateway(GatewaySettings(("http://127.0.0.1:1",))).app()
    routes = {(route.method, route.resource.canonical) for route in app.router.routes() if route.resource}
    assert ("POST", "/v1/completions") in routes
    assert {path for method, path in routes if method not in ("GET", "HEAD")} <= {
        "/v1/completions",
        "/v1/chat/completions",
    }
