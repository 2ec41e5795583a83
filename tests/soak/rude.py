"""What clients do that nobody wants: they vanish in the middle, they are slow, they send what was refused long ago."""

import time
from urllib.parse import quote
from xml.sax.saxutils import escape

from botocore.exceptions import ClientError

from load import Gone, Known, Mixed, same
from raw import read_answer, vanish

# After so long nothing that a vanished client had sent is still on its way.
SETTLED_AFTER_S = 30
REFUSED_LEN = 8 << 20


class Rude(Mixed):
    """Clients that vanish. Bodies that broke off must never change anything; what was sent whole may have been done or not."""

    mix = {
        "vanish_in_put": 10, "vanish_after_put": 6, "vanish_in_get": 10, "vanish_in_part": 4, "vanish_after_part": 5, "vanish_in_create": 4,
        "vanish_in_complete": 4, "vanish_in_abort": 2, "vanish_in_copy": 3, "vanish_in_list": 3, "ignore_refusal": 5, "settle": 8,
        "get": 4, "put_medium": 2, "list": 1,
    }

    def path(self, key):
        return f"/{self.bucket}/{quote(key)}"

    def let_go(self, connection):
        self.world.stop.wait(self.random.choice([0, 0, 0.002, 0.02, 0.1]))
        vanish(connection, reset=self.random.random() < 0.5)

    def lost_key(self):
        return self.new_key(f"lost/{self.name}")

    def vanish_in_put(self):
        key = self.any_key()
        content = self.world.content(self.random.choice([1000, 100_000, 3 << 20]))
        connection = self.raw.open("PUT", self.path(key), content.length)
        connection.sendall(content.read(0, self.random.randrange(content.length)))
        self.let_go(connection)
        self.verify(key)

    def vanish_after_put(self):
        key, content = self.lost_key(), self.world.content(self.random.choice([0, 1000, 300_000]))
        connection = self.raw.open("PUT", self.path(key), content.length)
        connection.sendall(content.read())
        self.let_go(connection)
        self.gone.append(Gone(key, [None, content]))

    def vanish_in_get(self):
        key = self.any_key(1 << 20)
        connection = self.raw.open("GET", self.path(key), receive_buffer_len=64 << 10)
        connection.recv(self.random.choice([1, 1000, 200_000]))
        self.let_go(connection)

    def vanish_in_list(self):
        self.let_go(self.raw.open("GET", f"/{self.bucket}", query={"list-type": "2", "prefix": f"{self.name}/"}))

    def vanish_in_part(self):
        key, contents = self.new_key(), self.part_contents(2)
        upload = self.begin(key)
        query = {"partNumber": "1", "uploadId": upload}
        connection = self.raw.open("PUT", self.path(key), contents[0].length, query=query)
        connection.sendall(contents[0].read(0, self.random.randrange(contents[0].length)))
        self.let_go(connection)
        if self.random.random() < 0.5:
            self.s3.abort_multipart_upload(Bucket=self.bucket, Key=key, UploadId=upload)
            return
        tags = {number: self.send_part(key, upload, number, content) for number, content in enumerate(contents, 1)}
        self.complete(key, upload, tags, type(contents[0]).joined(contents))
        self.verify(key)

    def vanish_after_part(self):
        """A part that arrives while its upload is aborted: a short one lies beside the upload until Complete."""
        key, content = self.new_key(), self.world.content(self.random.choice([1000, 1 << 20, 4 << 20]))
        upload = self.begin(key)
        connection = self.raw.open("PUT", self.path(key), content.length, query={"partNumber": "1", "uploadId": upload})
        connection.sendall(content.read())
        self.let_go(connection)
        self.s3.abort_multipart_upload(Bucket=self.bucket, Key=key, UploadId=upload)

    def vanish_in_create(self):
        key = self.lost_key()
        self.let_go(self.raw.open("POST", self.path(key), 0, query={"uploads": ""}))
        self.gone.append(Gone(key, [None]))

    def vanish_in_complete(self):
        key, contents = self.lost_key(), self.part_contents(2)
        upload = self.begin(key)
        tags = {number: self.send_part(key, upload, number, content) for number, content in enumerate(contents, 1)}
        entries = "".join(f"<Part><PartNumber>{number}</PartNumber><ETag>{escape(tag)}</ETag></Part>" for number, tag in tags.items())
        document = f"<CompleteMultipartUpload>{entries}</CompleteMultipartUpload>".encode()
        connection = self.raw.open("POST", self.path(key), len(document), query={"uploadId": upload})
        connection.sendall(document)
        self.let_go(connection)
        self.gone.append(Gone(key, [None, type(contents[0]).joined(contents)], upload))

    def vanish_in_abort(self):
        key = self.lost_key()
        upload = self.begin(key)
        self.send_part(key, upload, 1, self.world.content(100_000))
        self.let_go(self.raw.open("DELETE", self.path(key), query={"uploadId": upload}))
        self.gone.append(Gone(key, [None], upload))

    def vanish_in_copy(self):
        source, key = self.any_key(), self.lost_key()
        headers = [("x-amz-copy-source", self.path(source))]
        self.let_go(self.raw.open("PUT", self.path(key), 0, headers=headers))
        self.gone.append(Gone(key, [None, self.objects[source].content]))

    def ignore_refusal(self):
        """A simple client sends all of its body before it reads the answer, which was there from the beginning."""
        path = self.random.choice(["/there-is-no-such-bucket/key", f"/{self.bucket}/key?partNumber=0&uploadId=none"])
        connection = self.raw.open("PUT", path, REFUSED_LEN)
        with connection:
            piece = bytes(64 << 10)
            for _ in range(REFUSED_LEN // len(piece)):
                connection.sendall(piece)
            status, headers, body = read_answer(connection)
        same(status in (400, 404) and b"<Code>" in body and headers.get("connection") == "close", True, f"{status} {body[:200]}")

    def settle(self):
        """Looks at what vanished clients left, and puts it away."""
        while self.gone and time.monotonic() - self.gone[0].since > SETTLED_AFTER_S:
            self.put_away_next()

    def put_away_next(self):
        gone = self.gone.popleft()
        try:
            answer = self.s3.get_object(Bucket=self.bucket, Key=gone.key)
            body = answer["Body"].read()
            found = any(option is not None and option.length == len(body) and option.read() == body for option in gone.options)
            same(found, True, f"what lies under {gone.key} ({len(body)} bytes) is what was sent")
            self.s3.delete_object(Bucket=self.bucket, Key=gone.key)
        except ClientError as error:
            same(error.response["Error"]["Code"], "NoSuchKey", f"{gone.key}")
        for upload in self.uploads_of(gone.key):
            self.s3.abort_multipart_upload(Bucket=self.bucket, Key=gone.key, UploadId=upload)

    def uploads_of(self, key):
        page = self.s3.list_multipart_uploads(Bucket=self.bucket, Prefix=key)
        ids = [upload["UploadId"] for upload in page.get("Uploads", []) if upload["Key"] == key]
        # Without its token an upload would be listed by the store's own id: nobody could go on with it.
        for upload in ids:
            self.s3.list_parts(Bucket=self.bucket, Key=key, UploadId=upload)
        return ids


class Slow(Mixed):
    """Clients at the end of a thin line: a few kilobytes a second, but never silent."""

    mix = {"slow_get": 2, "slow_put": 2, "get": 1}

    def pause(self):
        self.world.stop.wait(0.05)

    def slow_get(self):
        key = self.any_key(1 << 20)
        known = self.objects[key]
        connection = self.raw.open("GET", f"/{self.bucket}/{quote(key)}", receive_buffer_len=16 << 10)
        with connection:
            status, headers, body = read_answer(connection, self.pause, 32 << 10)
        same((status, headers.get("etag"), body == known.content.read()), (200, known.etag, True), f"a slow GET of {key}")

    def slow_put(self):
        key, content = self.new_key(), self.world.content(self.random.choice([20_000, 200_000]))
        connection = self.raw.open("PUT", f"/{self.bucket}/{quote(key)}", content.length)
        with connection:
            for piece in content.chunks(content.length // 60 + 1):
                connection.sendall(piece)
                self.pause()
            status, headers, _ = read_answer(connection)
        same(status, 200, f"a slow PUT of {key}")
        self.objects[key] = Known(content, headers["etag"], {})
        self.verify(key)
