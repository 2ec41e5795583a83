"""What well-behaved clients do, each in a part of the bucket of its own, where it knows every object."""

import random
import threading
import time
import urllib.request
from collections import Counter, deque
from dataclasses import dataclass, field

import boto3
import botocore.client
from botocore.exceptions import ClientError

from content import Content, ContentFile
from raw import RawClient

PART_LEN_MIN = 5 << 20
OBJECTS_MAX = 150
HELD_LEN_MAX = 64 << 20
FAILURES_MAX = 20


def client_of(account, region=None):
    """A boto3 client that retries nothing: what fails once is a finding."""
    config = botocore.client.Config(
        signature_version="s3v4", retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}, max_pool_connections=4,
        connect_timeout=10, read_timeout=120,
    )
    return boto3.session.Session().client(
        "s3", endpoint_url=account["endpoint"], region_name=region or account["region"], config=config,
        aws_access_key_id=account["access_key"], aws_secret_access_key=account["secret_key"],
    )


@dataclass
class Known:
    """An object as its writer knows it."""

    content: Content
    etag: str
    metadata: dict


@dataclass
class Gone:
    """What a client left behind without hearing the end: the key may hold any of the options, None for nothing."""

    key: str
    options: list
    upload: str | None = None
    since: float = field(default_factory=time.monotonic)


class World:
    """What all clients share."""

    def __init__(self, account, bucket, seed, huge_len):
        self.account, self.bucket, self.seed, self.huge_len = account, bucket, seed, huge_len
        self.stop = threading.Event()
        self.lock = threading.Lock()
        self.done, self.failures = Counter(), []
        self.next_seed = seed << 32
        self.written_len = self.read_len = 0

    def fail(self, who, what, error):
        with self.lock:
            self.failures.append(f"{who} {what}: {type(error).__name__}: {error}"[:600])
            if len(self.failures) >= FAILURES_MAX:
                self.stop.set()

    def count(self, what, written_len=0, read_len=0):
        with self.lock:
            self.done[what] += 1
            self.written_len += written_len
            self.read_len += read_len

    def content(self, length):
        """New content that nobody else has."""
        with self.lock:
            self.next_seed += 1
            return Content.new(self.next_seed, length)


def same(got, want, what):
    if got != want:
        raise AssertionError(f"{what} is {got!r:.200}, not {want!r:.200}")


class Client(threading.Thread):
    """One client. Its steps are methods; `mix` says how often each is taken."""

    mix = {}

    def __init__(self, world, name):
        super().__init__(name=name, daemon=True)
        self.world, self.bucket = world, world.bucket
        self.random = random.Random(f"{world.seed} {name}")
        self.s3, self.raw = client_of(world.account), RawClient(world.account)
        self.objects, self.gone, self.serial = {}, deque(), 0

    def run(self):
        steps, weights = list(self.mix), list(self.mix.values())
        while not self.world.stop.is_set():
            self.take(self.random.choices(steps, weights)[0])
            self.stay_within_bounds()

    def take(self, step):
        try:
            getattr(self, step)()
            self.world.count(step)
        except Exception as error:  # noqa: BLE001 - whatever goes wrong is the step's failure
            self.world.fail(self.name, step, error)

    def stay_within_bounds(self):
        while len(self.objects) > OBJECTS_MAX or sum(known.content.length for known in self.objects.values()) > HELD_LEN_MAX:
            self.take("delete")

    # --- what the steps are made of

    def new_key(self, folder=None):
        self.serial += 1
        folder = folder or f"{self.name}/d{self.random.randrange(4)}"
        return f"{folder}/{self.serial:06} ü+%{self.random.randrange(100)}"

    def any_key(self, least_len=0):
        """A key with an object of at least so many bytes; one is written if there is none."""
        keys = [key for key, known in self.objects.items() if known.content.length >= least_len]
        if keys:
            return self.random.choice(keys)
        key = self.new_key()
        self.write(key, self.world.content(max(least_len, 1)))
        return key

    def small_len(self):
        return self.random.choice([0, 1, 17, 1000, 4096, 65535, 65536, 65537, self.random.randrange(200_000)])

    def write(self, key, content, **arguments):
        metadata = {"serial": str(self.serial), "len": str(content.length)}
        answer = self.s3.put_object(Bucket=self.bucket, Key=key, Body=ContentFile(content), Metadata=metadata, **arguments)
        self.objects[key] = Known(content, answer["ETag"], metadata)
        self.world.count("objects written", written_len=content.length)

    def verify(self, key):
        known = self.objects[key]
        answer = self.s3.get_object(Bucket=self.bucket, Key=key)
        same(answer["ContentLength"], known.content.length, "the length")
        same(answer["ETag"], known.etag, "the ETag")
        same(answer["Metadata"], known.metadata, "the metadata")
        differs = known.content.differs(answer["Body"])
        same(differs, None, f"the body of {key}")
        self.world.count("objects verified", read_len=known.content.length)

    def refused(self, code, call, **arguments):
        try:
            call(Bucket=self.bucket, **arguments)
        except ClientError as error:
            same(error.response["Error"]["Code"] in code, True, f"{error} among {code}")
            return
        raise AssertionError(f"not refused with {code}")


class Mixed(Client):
    """Many small objects and now and then one in parts; every kind of request."""

    mix = {
        "put": 22, "put_medium": 4, "overwrite": 6, "get": 20, "get_range": 10, "head": 8, "list": 4, "delete": 6, "delete_many": 2,
        "copy": 4, "multipart": 3, "multipart_of_copies": 1, "abort": 2, "presigned": 3, "conditional": 4, "missing": 2,
    }

    def put(self):
        self.write(self.new_key(), self.world.content(self.small_len()))

    def put_medium(self):
        self.write(self.new_key(), self.world.content(self.random.randrange(1 << 20, 8 << 20)))

    def overwrite(self):
        key = self.any_key()
        self.write(key, self.world.content(self.small_len()))
        self.verify(key)

    def get(self):
        self.verify(self.any_key())

    def get_range(self):
        key = self.any_key(1)
        content = self.objects[key].content
        first = self.random.randrange(content.length)
        last = self.random.randrange(first, min(content.length, first + (1 << 20)))
        answer = self.s3.get_object(Bucket=self.bucket, Key=key, Range=f"bytes={first}-{last}")
        same(answer["Body"].read() == content.read(first, last + 1 - first), True, f"equality of {first}-{last} of {key}")
        same(answer["ContentRange"], f"bytes {first}-{last}/{content.length}", "Content-Range")

    def head(self):
        key = self.any_key()
        known, answer = self.objects[key], self.s3.head_object(Bucket=self.bucket, Key=key)
        same((answer["ContentLength"], answer["ETag"]), (known.content.length, known.etag), f"HEAD of {key}")

    def list(self):
        prefix = self.random.choice([f"{self.name}/", f"{self.name}/d{self.random.randrange(4)}/"])
        found, token = {}, {}
        while True:
            page = self.s3.list_objects_v2(Bucket=self.bucket, Prefix=prefix, MaxKeys=self.random.choice([7, 50, 1000]), **token)
            found.update({entry["Key"]: (entry["Size"], entry["ETag"]) for entry in page.get("Contents", [])})
            if not page["IsTruncated"]:
                break
            token = {"ContinuationToken": page["NextContinuationToken"]}
        mine = {key: (known.content.length, known.etag) for key, known in self.objects.items() if key.startswith(prefix)}
        same(found, mine, f"the listing of {prefix}")
        grouped = self.s3.list_objects_v2(Bucket=self.bucket, Prefix=f"{self.name}/", Delimiter="/")
        folders = {"/".join(key.split("/")[:2]) + "/" for key in self.objects}
        same({entry["Prefix"] for entry in grouped.get("CommonPrefixes", [])}, folders, "the common prefixes")

    def delete(self):
        key = self.any_key()
        self.s3.delete_object(Bucket=self.bucket, Key=key)
        del self.objects[key]
        self.refused({"NoSuchKey"}, self.s3.get_object, Key=key)

    def delete_many(self):
        keys = self.random.sample(sorted(self.objects), min(len(self.objects), 20))
        if not keys:
            return
        entries = [{"Key": key} for key in keys]
        answer = self.s3.delete_objects(Bucket=self.bucket, Delete={"Objects": entries})
        same(sorted(entry["Key"] for entry in answer.get("Deleted", [])), sorted(keys), "what was deleted")
        for key in keys:
            del self.objects[key]

    def copy(self):
        source, target = self.any_key(), self.new_key()
        known = self.objects[source]
        answer = self.s3.copy_object(Bucket=self.bucket, Key=target, CopySource={"Bucket": self.bucket, "Key": source})
        self.objects[target] = Known(known.content, answer["CopyObjectResult"]["ETag"], known.metadata)
        self.verify(target)

    def begin(self, key):
        return self.s3.create_multipart_upload(Bucket=self.bucket, Key=key, Metadata={"parts": "yes"})["UploadId"]

    def send_part(self, key, upload, number, content):
        answer = self.s3.upload_part(Bucket=self.bucket, Key=key, UploadId=upload, PartNumber=number, Body=ContentFile(content))
        self.world.count("parts written", written_len=content.length)
        return answer["ETag"]

    def complete(self, key, upload, tags, content):
        parts = [{"PartNumber": number, "ETag": tag} for number, tag in sorted(tags.items())]
        answer = self.s3.complete_multipart_upload(Bucket=self.bucket, Key=key, UploadId=upload, MultipartUpload={"Parts": parts})
        self.objects[key] = Known(content, answer["ETag"], {"parts": "yes"})

    def part_contents(self, count):
        tail = self.random.choice([1, 100_000, PART_LEN_MIN])
        lengths = [PART_LEN_MIN + self.random.randrange(70_000) for _ in range(count - 1)] + [tail]
        return [self.world.content(length) for length in lengths]

    def multipart(self):
        key, contents = self.new_key(), self.part_contents(self.random.randrange(1, 4))
        upload = self.begin(key)
        tags = {number: self.send_part(key, upload, number, content) for number, content in enumerate(contents, 1)}
        again = self.random.randrange(len(contents))
        contents[again] = self.world.content(contents[again].length)
        tags[again + 1] = self.send_part(key, upload, again + 1, contents[again])
        listed = self.s3.list_parts(Bucket=self.bucket, Key=key, UploadId=upload)["Parts"]
        # A listing knows the store's part of a tag only (docs/s3-compatibility.md); Complete takes either.
        same([(part["PartNumber"], part["Size"], part["ETag"].split("-")[0]) for part in listed],
             [(number, contents[number - 1].length, tag.split("-")[0]) for number, tag in sorted(tags.items())], "the listed parts")
        if self.random.random() < 0.5:
            tags = {part["PartNumber"]: part["ETag"] for part in listed}
        self.complete(key, upload, tags, Content.joined(contents))
        self.verify(key)

    def multipart_of_copies(self):
        source, key = self.any_key(PART_LEN_MIN + 10), self.new_key()
        whole = self.objects[source].content
        first = self.random.randrange(whole.length - PART_LEN_MIN)
        cut, tail = whole.cut(first, PART_LEN_MIN), self.world.content(1000)
        upload = self.begin(key)
        copied = self.s3.upload_part_copy(
            Bucket=self.bucket, Key=key, UploadId=upload, PartNumber=1, CopySource={"Bucket": self.bucket, "Key": source},
            CopySourceRange=f"bytes={first}-{first + PART_LEN_MIN - 1}",
        )["CopyPartResult"]["ETag"]
        self.complete(key, upload, {1: copied, 2: self.send_part(key, upload, 2, tail)}, Content.joined([cut, tail]))
        self.verify(key)

    def abort(self):
        key = self.new_key()
        upload = self.begin(key)
        for number, content in enumerate(self.part_contents(2), 1):
            self.send_part(key, upload, number, content)
        self.s3.abort_multipart_upload(Bucket=self.bucket, Key=key, UploadId=upload)
        self.refused({"NoSuchUpload"}, self.s3.list_parts, Key=key, UploadId=upload)

    def presigned(self):
        source = self.any_key()
        content = self.objects[source].content
        url = self.s3.generate_presigned_url("get_object", Params={"Bucket": self.bucket, "Key": source})
        with urllib.request.urlopen(url, timeout=60) as answer:
            same(content.differs(answer), None, f"the presigned body of {source}")
        key, content = self.new_key(), self.world.content(self.small_len())
        url = self.s3.generate_presigned_url("put_object", Params={"Bucket": self.bucket, "Key": key})
        request = urllib.request.Request(url, data=content.read(), method="PUT", headers={"content-type": ""})
        with urllib.request.urlopen(request, timeout=60) as answer:
            self.objects[key] = Known(content, answer.headers["ETag"], {})
        self.verify(key)

    def conditional(self):
        key = self.any_key()
        known, new = self.objects[key], self.world.content(100)
        self.refused({"PreconditionFailed"}, self.s3.put_object, Key=key, Body=new.read(), IfNoneMatch="*")
        self.refused({"304", "NotModified"}, self.s3.get_object, Key=key, IfNoneMatch=known.etag)
        self.refused({"PreconditionFailed", "412"}, self.s3.get_object, Key=key, IfMatch='"0123456789abcdef0123456789abcdef"')
        self.write(self.new_key(), new, IfNoneMatch="*")
        self.verify(key)

    def missing(self):
        self.refused({"404", "NoSuchKey"}, self.s3.head_object, Key=self.new_key())
        self.refused({"NoSuchKey"}, self.s3.get_object, Key=self.new_key())


class Huge(Mixed):
    """Few objects that are much larger than any buffer, in one piece and in parts."""

    mix = {"one_piece": 1, "many_parts": 1}
    huge_part_len = 64 << 20

    def stay_within_bounds(self):
        for key in list(self.objects):
            self.s3.delete_object(Bucket=self.bucket, Key=key)
            del self.objects[key]
        # The same share of the time as of the requests: small ones are what there are many of.
        self.world.stop.wait(self.world.huge_len / (64 << 20))

    def one_piece(self):
        key = self.new_key()
        self.write(key, self.world.content(self.world.huge_len))
        self.verify(key)
        self.get_range()

    def many_parts(self):
        key, left, contents = self.new_key(), self.world.huge_len, []
        upload, tags = self.begin(key), {}
        while left > 0 and not self.world.stop.is_set():
            contents.append(self.world.content(min(left, self.huge_part_len)))
            tags[len(contents)] = self.send_part(key, upload, len(contents), contents[-1])
            left -= contents[-1].length
        if left > 0:
            self.s3.abort_multipart_upload(Bucket=self.bucket, Key=key, UploadId=upload)
            return
        self.complete(key, upload, tags, Content.joined(contents))
        self.verify(key)
        self.get_range()
