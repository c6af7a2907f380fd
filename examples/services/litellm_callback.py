"""Meters every call that goes through LiteLLM: a callback that sends what the provider says was used.

    import litellm
    from litellm_callback import Tollgate
    litellm.callbacks = [Tollgate("http://127.0.0.1:8080")]
    litellm.completion(model=..., messages=..., user="acme")

In the proxy: `litellm_settings: {callbacks: litellm_callback.tollgate}`. Who pays is `user`, or `user_api_key_end_user_id` of the proxy's metadata.
Cached tokens are part of the prompt's tokens, so a price takes them out of the input before it prices the rest. A call that was answered from
LiteLLM's own cache used nothing, and is not sent. Calls that stay unsent after some tries are logged with the event, which may be sent later: its id is the call's.
"""

import asyncio
import json
import logging
import os

import httpx
from litellm.integrations.custom_logger import CustomLogger

log = logging.getLogger("tollgate")


def event_of(kwargs, response, start_time):
    """The event of one call; None for one that used nothing or that nobody pays for."""
    usage = getattr(response, "usage", None)
    metadata = (kwargs.get("litellm_params") or {}).get("metadata") or {}
    customer = kwargs.get("user") or metadata.get("user_api_key_end_user_id")
    if usage is None or kwargs.get("cache_hit"):
        return None
    if not customer:
        log.error("call %s names no user, so nobody pays for it", kwargs.get("litellm_call_id"))
        return None
    details = getattr(usage, "prompt_tokens_details", None)
    return {
        "specversion": "1.0",
        "id": kwargs["litellm_call_id"],
        "source": "litellm",
        "type": "llm.completion",
        "subject": customer,
        "time": start_time.astimezone().isoformat(),
        "data": {
            "model": kwargs["model"],
            "input_tokens": usage.prompt_tokens,
            "cached_tokens": getattr(details, "cached_tokens", None) or 0,
            "output_tokens": usage.completion_tokens,
        },
    }


class Tollgate(CustomLogger):
    """Sends an event for each call that succeeded, and waits until it is acknowledged."""

    def __init__(self, address, key=None, tries=5):
        super().__init__()
        headers = {"Content-Type": "application/cloudevents+json"}
        if key:
            headers["Authorization"] = f"Bearer {key}"
        self.request = {"url": f"{address}/api/v1/events", "headers": headers}
        self.tries = tries

    def log_success_event(self, kwargs, response_obj, start_time, end_time):
        if kwargs.get("acompletion"):
            return  # The other one sends it.
        asyncio.run(self.send(event_of(kwargs, response_obj, start_time)))

    async def async_log_success_event(self, kwargs, response_obj, start_time, end_time):
        await self.send(event_of(kwargs, response_obj, start_time))

    async def send(self, event):
        if event is None:
            return
        async with httpx.AsyncClient(timeout=10) as client:
            for attempt in range(self.tries):
                try:
                    answer = await client.post(content=json.dumps(event), **self.request)
                    answer.raise_for_status()
                    return
                except httpx.HTTPError as error:
                    log.warning("not acknowledged: %s", error)
                    await asyncio.sleep(2**attempt)
        log.error("not sent: %s", json.dumps(event))


# For the proxy, whose configuration names an instance.
tollgate = Tollgate(os.environ.get("TOLLGATE", "http://127.0.0.1:8080"), os.environ.get("TOLLGATE_KEY"))
