"""minio-py."""

import io
import sys
import urllib.request
from datetime import timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from minio import Minio
from minio.commonconfig import REPLACE, ComposeSource, CopySource
from minio.deleteobjects import DeleteObject
from minio.error import S3Error

import canary
from canary import data
from harness import Suite, file_bytes, same

suite = Suite("minio")
step = suite.step
BUCKET = suite.bucket
mc = Minio(endpoint=suite.endpoint.split("://")[1], access_key=suite.access_key, secret_key=suite.secret_key,
           region=suite.region, secure=suite.endpoint.startswith("https"))


def get(key, **arguments):
    answer = mc.get_object(bucket_name=BUCKET, object_name=key, **arguments)
    try:
        return answer.read()
    finally:
        answer.close()
        answer.release_conn()


def put(key, blob, **arguments):
    return mc.put_object(bucket_name=BUCKET, object_name=key, data=io.BytesIO(blob), length=len(blob), **arguments)


@step("make_bucket and list_buckets")
def _():
    mc.make_bucket(bucket_name=BUCKET)
    assert mc.bucket_exists(bucket_name=BUCKET), "the bucket does not exist"
    assert BUCKET in [bucket.name for bucket in mc.list_buckets()], "the bucket is not listed"


@step("put and get small and empty, with metadata")
def _():
    put("small", data("small"), content_type=canary.CONTENT_TYPE, metadata={"note": canary.META})
    same(get("small"), data("small"), "body")
    stat = mc.stat_object(bucket_name=BUCKET, object_name="small")
    same((stat.size, stat.content_type), (len(data("small")), canary.CONTENT_TYPE), "stat")
    same(stat.metadata["x-amz-meta-note"], canary.META, "metadata")
    put("empty", b"")
    same(get("empty"), b"", "body")


@step("20 MiB of unknown length in parts of 5 MiB")
def _():
    mc.put_object(bucket_name=BUCKET, object_name="large", data=io.BytesIO(data("large")), length=-1,
                  part_size=5 * canary.MIB)
    same(get("large"), data("large"), "body")
    mc.fget_object(bucket_name=BUCKET, object_name="large", file_path=suite.work("large.bin"))
    same(file_bytes(suite.work("large.bin")), data("large"), "file")


@step("ranges by offset and length")
def _():
    same(get("large", offset=1_000_000, length=70_000), data("large")[1_000_000:1_070_000], "range")
    same(get("large", offset=20_000_000), data("large")[20_000_000:], "tail")


@step("copy, copy with new metadata, compose")
def _():
    mc.copy_object(bucket_name=BUCKET, object_name="copied", source=CopySource(bucket_name=BUCKET, object_name="small"))
    same(get("copied"), data("small"), "body")
    mc.copy_object(bucket_name=BUCKET, object_name="copied2", source=CopySource(bucket_name=BUCKET, object_name="small"),
                   metadata={"note": canary.META_SECOND}, metadata_directive=REPLACE)
    same(mc.stat_object(bucket_name=BUCKET, object_name="copied2").metadata["x-amz-meta-note"], canary.META_SECOND, "metadata")
    mc.compose_object(bucket_name=BUCKET, object_name="composed", sources=[
        ComposeSource(bucket_name=BUCKET, object_name="large"), ComposeSource(bucket_name=BUCKET, object_name="small")])
    same(get("composed"), data("large") + data("small"), "body")


@step("list with prefix, recursion and sizes")
def _():
    for key in ["l/a", "l/b/c", "l/b/d", "l/ü x+%"]:
        put(key, data("small"))
    found = [(o.object_name, o.size) for o in mc.list_objects(bucket_name=BUCKET, prefix="l/", recursive=True)]
    same(found, [(key, len(data("small"))) for key in ["l/a", "l/b/c", "l/b/d", "l/ü x+%"]], "recursive")
    found = [(o.object_name, o.is_dir) for o in mc.list_objects(bucket_name=BUCKET, prefix="l/")]
    same(sorted(found), sorted([("l/a", False), ("l/b/", True), ("l/ü x+%", False)]), "one level")
    same(get("l/ü x+%"), data("small"), "body")


@step("presigned GET and PUT")
def _():
    url = mc.presigned_put_object(bucket_name=BUCKET, object_name="pre signed", expires=timedelta(minutes=5))
    urllib.request.urlopen(urllib.request.Request(url, data=data("small"), method="PUT"), timeout=30).read()
    url = mc.presigned_get_object(bucket_name=BUCKET, object_name="pre signed", expires=timedelta(minutes=5))
    same(urllib.request.urlopen(url, timeout=30).read(), data("small"), "body")


@step("NoSuchKey after delete")
def _():
    mc.remove_object(bucket_name=BUCKET, object_name="copied")
    try:
        get("copied")
    except S3Error as error:
        same(error.code, "NoSuchKey", "code")
    else:
        raise AssertionError("still there")


@step("remove_objects and remove_bucket")
def _():
    names = [DeleteObject(o.object_name) for o in mc.list_objects(bucket_name=BUCKET, recursive=True)]
    same(list(mc.remove_objects(bucket_name=BUCKET, delete_object_list=names)), [], "errors")
    mc.remove_bucket(bucket_name=BUCKET)
