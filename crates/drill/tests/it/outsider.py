"""Prints the subject and the data of messages, as any subscriber sees them."""

import asyncio
import sys

import nats


async def main(server: str, subject: str, messages: int) -> None:
    client = await nats.connect(server)
    subscription = await client.subscribe(subject)
    await client.flush()
    print("subscribed", flush=True)
    for _ in range(messages):
        message = await subscription.next_msg(timeout=100)
        print(message.subject, message.data.decode(), flush=True)
    await client.close()


asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
