"""Asks halm as any NATS client would, and prints every record that came: when, and what.

usage: ask.py URL MODEL REQUEST, the request as JSON. With "stream": true it subscribes and reads to the end,
otherwise it is one plain `request`. Nothing here knows of halm but the subject.
"""

import asyncio
import json
import sys
import time

import nats

PATIENCE_S = 60


def record(message):
    return {"at": time.time(), "payload": message.data.decode()}


async def stream(client, subject, request):
    inbox = client.new_inbox()
    subscription = await client.subscribe(inbox)
    await client.publish(subject, request, reply=inbox)
    records = []
    while True:
        message = await subscription.next_msg(timeout=PATIENCE_S)
        records.append(record(message))
        said = json.loads(message.data)
        if said.get("final") or "error" in said:
            return records


async def main(url, model, request):
    client = await nats.connect(url.split(","))
    subject = f"halm.v1.generate.{model}"
    if json.loads(request).get("stream"):
        records = await stream(client, subject, request.encode())
    else:
        records = [record(await client.request(subject, request.encode(), timeout=PATIENCE_S))]
    await client.close()
    json.dump(records, sys.stdout)


asyncio.run(main(*sys.argv[1:]))
