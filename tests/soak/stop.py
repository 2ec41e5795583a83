"""A stop in the middle of transfers, and what the next start finds."""

import threading
from urllib.parse import quote

from leftovers import clear, keys_of, uploads_of
from load import Client, client_of
from raw import RawClient, vanish

# The longest PUT of a client; sealed it is too long for one PUT to a store, so the gateway makes an upload of its own of it.
LONG_LEN = 5 << 30
UNDER_WAY_S = 3


class Writer(Client):
    """Writes until the connection breaks; `objects` has what was acknowledged, `tried` all that was sent."""

    def __init__(self, world, name):
        super().__init__(world, name)
        self.tried = {}

    def run(self):
        try:
            while not self.world.stop.is_set():
                key, content = self.new_key(), self.world.content(self.random.randrange(4 << 20))
                self.tried[key] = content
                self.write(key, content)
                self.in_parts()
        except Exception:  # noqa: BLE001 - the stop ends it, in whatever way this client sees that
            return

    def in_parts(self):
        key, contents = self.new_key(), [self.world.content(length) for length in (5 << 20, 1000)]
        self.tried[key] = type(contents[0]).joined(contents)
        upload = self.begin(key)
        tags = {number: self.send_part(key, upload, number, content) for number, content in enumerate(contents, 1)}
        self.complete(key, upload, tags, self.tried[key])


def long_put(account, bucket, ended):
    """Sends a body of some gigabytes at a trickle until the gateway breaks it off. Notes how it ended."""
    connection = RawClient(account).open("PUT", f"/{bucket}/{quote('long')}", LONG_LEN)
    try:
        while True:
            connection.sendall(bytes(1 << 20))
            threading.Event().wait(0.05)
    except OSError as error:
        ended.append(error)
    finally:
        vanish(connection, reset=False)


def stop_in_the_middle(gateway, world, restart):
    """SIGTERM during uploads, a start, and a look at what is there. Problems."""
    world.stop.clear()
    world.bucket += "-stop"
    client_of(world.account).create_bucket(Bucket=world.bucket)
    writers = [Writer(world, f"writer{number}") for number in range(3)]
    ended = []
    long = threading.Thread(target=long_put, args=(world.account, world.bucket, ended), daemon=True)
    for thread in [*writers, long]:
        thread.start()
    world.stop.wait(UNDER_WAY_S)
    under_way = uploads_of(client_of(gateway.store), world.bucket)
    problems = [] if any(key == "long" for key, _ in under_way) else ["the long PUT was not under way: nothing is shown"]
    problems += gateway.stop()
    for thread in [*writers, long]:
        thread.join(60)
    if not ended:
        problems.append("the long PUT was not broken off")
    gateway = restart()
    try:
        problems += found_after(gateway, world, writers)
    finally:
        problems += gateway.stop()
    return problems


def found_after(gateway, world, writers):
    """Everything acknowledged is there, nothing else than what was sent, and every upload is one that can be ended. Problems."""
    through, store = client_of(gateway.account), client_of(gateway.store)
    tried = {key: content for writer in writers for key, content in writer.tried.items()}
    acknowledged = {key for writer in writers for key in writer.objects}
    keys, problems = keys_of(through, world.bucket), []
    for key in keys:
        body = through.get_object(Bucket=world.bucket, Key=key)["Body"]
        differs = tried[key].differs(body) if key in tried else "nobody wrote it whole"
        if differs:
            problems.append(f"after a stop in the middle, {key}: {differs}")
    if acknowledged - set(keys):
        problems.append(f"acknowledged before the stop and gone: {sorted(acknowledged - set(keys))[:5]}")
    for key, upload in uploads_of(through, world.bucket):
        if key not in tried:
            problems.append(f"after a stop in the middle an upload of {key} is left that no client has begun")
        through.list_parts(Bucket=world.bucket, Key=key, UploadId=upload)
        through.abort_multipart_upload(Bucket=world.bucket, Key=key, UploadId=upload)
    left = uploads_of(store, world.bucket)
    if left:
        problems.append(f"after a stop in the middle the store has uploads that can't be ended: {left[:3]}")
    clear(through, world.bucket)
    return problems
