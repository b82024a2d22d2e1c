"""Telling a service to follow what the tables say.

The row is written before anybody is told, and every service looks through its rows from time to time; so a message that
cannot be sent now delays what was asked for and does not undo it, and the client is answered all the same.
"""

from __future__ import annotations

import logging

from nova import rpc
from nova.api.call import Call

log = logging.getLogger(__name__)

# A client waits for the answer; what is not sent by then is found in the tables.
TIMEOUT_S = 5.0


def tell(call: Call, topic: str, host: str | None, method: str, **args: object) -> None:
    """Cast to a topic, or to one host of it."""
    try:
        call.client(topic, server=host, timeout=TIMEOUT_S).cast(call.context, method, **args)
    except (rpc.NoSuchTopic, rpc.RPCTimeout) as error:
        log.warning("%s %s: %s; it will look at its rows itself", method, args, error)
