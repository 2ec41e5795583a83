"""boto3 on buckets with versions: versions, delete markers, tags, object lock."""

import concurrent.futures
import datetime
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import boto3
import botocore.client
import botocore.exceptions

from canary import data
from harness import Suite, same

suite = Suite("versions")
step = suite.step
BUCKET = suite.bucket

s3 = boto3.client(
    "s3", endpoint_url=suite.endpoint, region_name=suite.region,
    aws_access_key_id=suite.access_key, aws_secret_access_key=suite.secret_key,
    config=botocore.client.Config(
        signature_version="s3v4", s3={"addressing_style": "path"}, retries={"max_attempts": 2, "mode": "standard"},
        read_timeout=60, max_pool_connections=16,
    ),
)


def put(key, body, **arguments):
    return s3.put_object(Bucket=BUCKET, Key=key, Body=body, **arguments)["VersionId"]


def short(n):
    """A short body, another for each n, that begins with the mark by which a leak is found."""
    return data("small")[: 100 + n]


def get(key, **arguments):
    return s3.get_object(Bucket=BUCKET, Key=key, **arguments)["Body"].read()


def refused(code, function, **named):
    """The call has to fail with one of these error codes or statuses; gives the answer."""
    try:
        function(**named)
    except botocore.exceptions.ClientError as error:
        got, status = error.response["Error"]["Code"], error.response["ResponseMetadata"]["HTTPStatusCode"]
        codes = code if isinstance(code, tuple) else (code,)
        if got not in codes and status not in codes:
            raise AssertionError(f"refused with {got} ({status}), not {code}") from error
        return error.response
    raise AssertionError(f"went through; expected {code}")


NAMES = ["small", "segment", "segment1", "tail"]
PAGES_MAX = 100


def versions(prefix, **arguments):
    """(key, version, size or None for a marker, newest) of all pages, in the order of the pages."""
    found = []
    for number, page in enumerate(s3.get_paginator("list_object_versions").paginate(Bucket=BUCKET, Prefix=prefix, **arguments)):
        assert number < PAGES_MAX, "the listing has no end"
        rows = [(e["Key"], e["VersionId"], e["Size"], e["IsLatest"], e["LastModified"]) for e in page.get("Versions", [])]
        rows += [(e["Key"], e["VersionId"], None, e["IsLatest"], e["LastModified"]) for e in page.get("DeleteMarkers", [])]
        found += rows
    return [row[:4] for row in found]


def versioning(status, bucket=BUCKET):
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": status})


def empty(bucket):
    """Removes every version."""
    for page in s3.get_paginator("list_object_versions").paginate(Bucket=bucket):
        for entry in page.get("Versions", []) + page.get("DeleteMarkers", []):
            s3.delete_object(Bucket=bucket, Key=entry["Key"], VersionId=entry["VersionId"], BypassGovernanceRetention=True)


s3.create_bucket(Bucket=BUCKET)


@step("a bucket begins without versions; what it holds is the version null")
def _():
    same(s3.get_bucket_versioning(Bucket=BUCKET).get("Status"), None, "status")
    answer = s3.put_object(Bucket=BUCKET, Key="old/before", Body=short(0))
    same(answer.get("VersionId"), None, "version of the PUT")
    same([row[:3] for row in versions("old/")], [("old/before", "null", 100)], "listing")
    same(get("old/before", VersionId="null"), short(0))


@step("versioning is switched on, and what it says is answered")
def _():
    versioning("Enabled")
    same(s3.get_bucket_versioning(Bucket=BUCKET)["Status"], "Enabled")
    refused("MalformedXML", s3.put_bucket_versioning, Bucket=BUCKET, VersioningConfiguration={"Status": "Perhaps"})


@step("every write of a key is a version of its own: GET, HEAD and ranges by id")
def _():
    bodies = [data(name) for name in NAMES]
    ids = [put("v/key", body, Metadata={"n": str(n)}) for n, body in enumerate(bodies)]
    same(len(set(ids)), 4, "number of ids")
    for n, (version, body) in enumerate(zip(ids, bodies, strict=True)):
        answer = s3.get_object(Bucket=BUCKET, Key="v/key", VersionId=version)
        same(answer["Body"].read(), body, f"version {n}")
        same((answer["VersionId"], answer["Metadata"]), (version, {"n": str(n)}), "headers")
        head = s3.head_object(Bucket=BUCKET, Key="v/key", VersionId=version)
        same((head["ContentLength"], head["VersionId"], head["ETag"]), (len(body), version, answer["ETag"]), "HEAD")
        same(get("v/key", VersionId=version, Range="bytes=-7"), body[-7:], "suffix")
        same(get("v/key", VersionId=version, Range="bytes=500-600"), body[500:601], "range")
        etag = refused(304, s3.get_object, Bucket=BUCKET, Key="v/key", VersionId=version, IfNoneMatch=answer["ETag"])
        same(etag["ResponseMetadata"]["HTTPHeaders"]["etag"], answer["ETag"], "tag of the 304")
    newest = s3.get_object(Bucket=BUCKET, Key="v/key")
    same((newest["Body"].read(), newest["VersionId"]), (bodies[-1], ids[-1]), "newest")


@step("a listing of versions has plaintext sizes and the tags of GET, newest first")
def _():
    rows = [row for row in s3.list_object_versions(Bucket=BUCKET, Prefix="v/key")["Versions"]]
    same([row["Size"] for row in rows], [len(data(name)) for name in reversed(NAMES)], "sizes")
    same([row["IsLatest"] for row in rows], [True, False, False, False], "newest")
    for row in rows:
        head = s3.head_object(Bucket=BUCKET, Key="v/key", VersionId=row["VersionId"])
        same((head["ETag"], head["ContentLength"]), (row["ETag"], row["Size"]), "HEAD")
        assert row["Owner"]["ID"], "no owner"


@step("a deleted object has a marker; its versions stay")
def _():
    first = put("m/key", short(1))
    answer = s3.delete_object(Bucket=BUCKET, Key="m/key")
    same(answer["DeleteMarker"], True, "marker of the DELETE")
    marker = answer["VersionId"]
    refused("NoSuchKey", s3.get_object, Bucket=BUCKET, Key="m/key")
    refused(404, s3.head_object, Bucket=BUCKET, Key="m/key")
    refused((404, 405), s3.get_object, Bucket=BUCKET, Key="m/key", VersionId=marker)
    same(get("m/key", VersionId=first), short(1))
    same(versions("m/"), [("m/key", first, 101, False), ("m/key", marker, None, True)], "listing")
    removed = s3.delete_object(Bucket=BUCKET, Key="m/key", VersionId=marker)
    same((removed["DeleteMarker"], removed["VersionId"]), (True, marker), "removal of the marker")
    same(get("m/key"), short(1), "object after its marker is gone")


@step("the 404 of a deleted object names its marker")
def _():
    put("m/named", short(1))
    marker = s3.delete_object(Bucket=BUCKET, Key="m/named")["VersionId"]
    for function in (s3.get_object, s3.head_object):
        headers = refused(404, function, Bucket=BUCKET, Key="m/named")["ResponseMetadata"]["HTTPHeaders"]
        same((headers.get("x-amz-delete-marker"), headers.get("x-amz-version-id")), ("true", marker), "headers")


@step("a version is deleted for good, the next older one is the newest")
def _():
    ids = [put("d/key", body) for body in (short(1), short(2), short(3))]
    answer = s3.delete_object(Bucket=BUCKET, Key="d/key", VersionId=ids[2])
    same((answer.get("DeleteMarker", False), answer["VersionId"]), (False, ids[2]), "answer")
    same(get("d/key"), short(2))
    refused(("NoSuchVersion", "NoSuchKey"), s3.get_object, Bucket=BUCKET, Key="d/key", VersionId=ids[2])
    same([row[1] for row in versions("d/")], [ids[1], ids[0]], "listing")


@step("DeleteObjects with versions, without, and with markers: each is answered as what it did")
def _():
    ids = [put("b/one", body) for body in (short(4), short(5))]
    other = put("b/two", short(6))
    objects = [
        {"Key": "b/one", "VersionId": ids[0]}, {"Key": "b/one", "VersionId": ids[1]},
        {"Key": "b/two"},
    ]
    answer = s3.delete_objects(Bucket=BUCKET, Delete={"Objects": objects})
    same(answer.get("Errors"), None, "errors")
    done = {(row["Key"], row.get("VersionId")): row for row in answer["Deleted"]}
    same(len(done), 3, "answers")
    for version in ids:
        same(done["b/one", version].get("DeleteMarker", False), False, "marker of a version")
    marker = done["b/two", None]
    same(marker["DeleteMarker"], True, "marker")
    same(versions("b/two"), [("b/two", other, len(short(6)), False), ("b/two", marker["DeleteMarkerVersionId"], None, True)], "listing")
    objects = [{"Key": "b/two", "VersionId": marker["DeleteMarkerVersionId"]}]
    answer = s3.delete_objects(Bucket=BUCKET, Delete={"Objects": objects})["Deleted"][0]
    same(answer.get("DeleteMarkerVersionId"), marker["DeleteMarkerVersionId"], "marker that was removed")
    same(get("b/two"), short(6))
    quiet = s3.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": "b/two"}], "Quiet": True})
    same((quiet.get("Deleted"), quiet.get("Errors")), (None, None), "quiet answer")


@step("copies name the version that they took; an older version is put on top again")
def _():
    one = put("c/src", data("segment1"), ContentType="text/x-one")
    two = put("c/src", data("small2"))
    answer = s3.copy_object(Bucket=BUCKET, Key="c/dst", CopySource={"Bucket": BUCKET, "Key": "c/src", "VersionId": one})
    same(answer["CopySourceVersionId"], one, "source's version")
    got = s3.get_object(Bucket=BUCKET, Key="c/dst")
    same((got["Body"].read(), got["ContentType"]), (data("segment1"), "text/x-one"))
    same(s3.copy_object(Bucket=BUCKET, Key="c/dst2", CopySource=f"{BUCKET}/c/src")["CopySourceVersionId"], two, "newest")
    answer = s3.copy_object(Bucket=BUCKET, Key="c/src", CopySource={"Bucket": BUCKET, "Key": "c/src", "VersionId": one})
    same(get("c/src"), data("segment1"), "restored")
    same(len(versions("c/src")), 3, "number of versions")
    refused("InvalidRequest", s3.copy_object, Bucket=BUCKET, Key="c/src", CopySource=f"{BUCKET}/c/src")


@step("the answer to a copy names the version that it made")
def _():
    answer = s3.copy_object(Bucket=BUCKET, Key="c/named", CopySource=f"{BUCKET}/c/dst")
    same(versions("c/named")[0][1], answer["VersionId"])


@step("a copy over itself with other metadata leaves the older version as it was")
def _():
    old = put("c/self", data("tail"), Metadata={"n": "1"})
    s3.copy_object(
        Bucket=BUCKET, Key="c/self", CopySource=f"{BUCKET}/c/self", MetadataDirective="REPLACE", Metadata={"n": "2"},
    )
    for version, n in ((old, "1"), (versions("c/self")[0][1], "2")):
        got = s3.get_object(Bucket=BUCKET, Key="c/self", VersionId=version)
        same((got["Body"].read(), got["Metadata"]), (data("tail"), {"n": n}), f"version {n}")


@step("multipart uploads make one version each, and copies of parts take the version that they name")
def _():
    first, last = data("part2"), data("small")
    old = put("p/src", data("part1"))
    put("p/src", data("part4"))
    upload = s3.create_multipart_upload(Bucket=BUCKET, Key="p/key")["UploadId"]
    done = {1: s3.upload_part(Bucket=BUCKET, Key="p/key", UploadId=upload, PartNumber=1, Body=first)["ETag"]}
    copied = s3.upload_part_copy(
        Bucket=BUCKET, Key="p/key", UploadId=upload, PartNumber=2, CopySource={"Bucket": BUCKET, "Key": "p/src", "VersionId": old},
    )
    same(copied["CopySourceVersionId"], old, "source's version")
    done[2] = copied["CopyPartResult"]["ETag"]
    done[3] = s3.upload_part(Bucket=BUCKET, Key="p/key", UploadId=upload, PartNumber=3, Body=last)["ETag"]
    parts = {"Parts": [{"PartNumber": n, "ETag": tag} for n, tag in sorted(done.items())]}
    answer = s3.complete_multipart_upload(Bucket=BUCKET, Key="p/key", UploadId=upload, MultipartUpload=parts)
    whole = first + data("part1") + last
    same(get("p/key", VersionId=answer["VersionId"]), whole)
    same([row[1:3] for row in versions("p/key")], [(answer["VersionId"], len(whole))], "one version")
    again = s3.complete_multipart_upload(Bucket=BUCKET, Key="p/key", UploadId=upload, MultipartUpload=parts)
    same((again["ETag"], again.get("VersionId")), (answer["ETag"], answer["VersionId"]), "repeated Complete")
    same(len(versions("p/key")), 1, "versions after a repeated Complete")
    put("p/key", short(7))
    same(get("p/key", VersionId=answer["VersionId"], Range="bytes=5242870-5242890"), whole[5242870:5242891], "range of an older one")


@step("nothing but the client's own keys has versions in its bucket")
def _():
    keys = {row[0].split("/")[0] for row in versions("")}
    same(keys - {"old", "v", "m", "d", "b", "c", "p"}, set(), "foreign keys")


@step("listings of versions page by key and version, with delimiter and encoding")
def _():
    names = ["l/a b", "l/a+b", "l/a%b", "l/dir/x", "l/dir/y", "l/ü", "l/zz//y"]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for _ in range(2):
            list(pool.map(lambda name: put(name, short(0)), names))
    whole = [row[:2] for row in versions("l/")]
    same(sorted({key for key, _ in whole}), sorted(names), "keys")
    same(len(whole), 14, "versions")
    for size in (1, 3, 7):
        same([row[:2] for row in versions("l/", PaginationConfig={"PageSize": size})], whole, f"pages of {size}")
    page = s3.list_object_versions(Bucket=BUCKET, Prefix="l/", Delimiter="/")
    same([entry["Prefix"] for entry in page["CommonPrefixes"]], ["l/dir/", "l/zz/"], "common prefixes")
    same(len(page["Versions"]), 8, "versions beside them")
    none = s3.list_object_versions(Bucket=BUCKET, Prefix="l/", MaxKeys=0)
    same((none.get("Versions"), none["IsTruncated"], none["MaxKeys"]), (None, False, 0), "max-keys=0")
    refused("InvalidArgument", s3.list_object_versions, Bucket=BUCKET, VersionIdMarker="x")
    refused("InvalidArgument", s3.get_object, Bucket=BUCKET, Key="l/a b", VersionId="")


@step("attributes of a version")
def _():
    one = put("a/key", data("tail"))
    put("a/key", short(7))
    answer = s3.get_object_attributes(Bucket=BUCKET, Key="a/key", VersionId=one, ObjectAttributes=["ETag", "ObjectSize"])
    same((answer["ObjectSize"], answer["VersionId"]), (len(data("tail")), one))


@step("suspended: writes replace the version null, older versions stay")
def _():
    kept = put("s/key", short(8))
    versioning("Suspended")
    same(s3.get_bucket_versioning(Bucket=BUCKET)["Status"], "Suspended")
    for body in (short(9), short(10)):
        s3.put_object(Bucket=BUCKET, Key="s/key", Body=body)
    same(get("s/key"), short(10))
    same(get("s/key", VersionId="null"), short(10))
    same(get("s/key", VersionId=kept), short(8))
    same(sorted(row[1] for row in versions("s/")), sorted([kept, "null"]), "versions")
    s3.delete_object(Bucket=BUCKET, Key="s/key")
    refused("NoSuchKey", s3.get_object, Bucket=BUCKET, Key="s/key")
    same([row[1] for row in versions("s/") if row[2] is None], ["null"], "marker")
    s3.delete_object(Bucket=BUCKET, Key="s/key", VersionId="null")
    same(get("s/key"), short(8), "after the marker is gone")
    upload = s3.create_multipart_upload(Bucket=BUCKET, Key="s/parts")["UploadId"]
    etag = s3.upload_part(Bucket=BUCKET, Key="s/parts", UploadId=upload, PartNumber=1, Body=short(11))["ETag"]
    parts = {"Parts": [{"PartNumber": 1, "ETag": etag}]}
    s3.complete_multipart_upload(Bucket=BUCKET, Key="s/parts", UploadId=upload, MultipartUpload=parts)
    same([row[1] for row in versions("s/parts")], ["null"], "version of an upload")
    versioning("Enabled")


@step("many writers of one key: each finds its own version")
def _():
    def write(n):
        body = data("medium")[: 20_000 + n]
        return put("r/key", body), body

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for version, body in pool.map(write, range(24)):
            same(get("r/key", VersionId=version), body, version)
    rows = versions("r/")
    same((len(rows), sum(1 for row in rows if row[3])), (24, 1), "versions, newest ones")


TAGS = [{"Key": "plain key", "Value": "a=b&c"}, {"Key": "x", "Value": ""}]


def tags(key, **arguments):
    answer = s3.get_object_tagging(Bucket=BUCKET, Key=key, **arguments)["TagSet"]
    return sorted((tag["Key"], tag["Value"]) for tag in answer)


@step("tags: written, counted, read, replaced and removed, for each version")
def _():
    one = put("t/key", short(1), Tagging="plain%20key=a%3Db%26c&x=")
    same(tags("t/key"), [("plain key", "a=b&c"), ("x", "")], "tags of the PUT")
    same(s3.head_object(Bucket=BUCKET, Key="t/key").get("TagCount") or 2, 2, "count")
    two = put("t/key", short(2))
    same((tags("t/key"), tags("t/key", VersionId=one)), ([], [("plain key", "a=b&c"), ("x", "")]), "by version")
    s3.put_object_tagging(Bucket=BUCKET, Key="t/key", VersionId=two, Tagging={"TagSet": TAGS[:1]})
    same(tags("t/key"), [("plain key", "a=b&c")], "replaced")
    s3.delete_object_tagging(Bucket=BUCKET, Key="t/key", VersionId=one)
    same(tags("t/key", VersionId=one), [], "removed")
    same((get("t/key"), get("t/key", VersionId=one)), (short(2), short(1)), "objects afterwards")


@step("tags of an upload in parts")
def _():
    upload = s3.create_multipart_upload(Bucket=BUCKET, Key="t/parts", Tagging="n=1&m=2")["UploadId"]
    etag = s3.upload_part(Bucket=BUCKET, Key="t/parts", UploadId=upload, PartNumber=1, Body=short(3))["ETag"]
    parts = {"Parts": [{"PartNumber": 1, "ETag": etag}]}
    s3.complete_multipart_upload(Bucket=BUCKET, Key="t/parts", UploadId=upload, MultipartUpload=parts)
    same(tags("t/parts"), [("m", "2"), ("n", "1")])


@step("tags of copies, by directive")
def _():
    put("t/src", short(3), Tagging="n=1&m=2")
    source = f"{BUCKET}/t/src"
    s3.copy_object(Bucket=BUCKET, Key="t/copy", CopySource=source)
    same(tags("t/copy"), [("m", "2"), ("n", "1")], "of a copy")
    s3.copy_object(Bucket=BUCKET, Key="t/meta", CopySource=source, MetadataDirective="REPLACE", Metadata={"n": "1"})
    same(tags("t/meta"), [("m", "2"), ("n", "1")], "of a copy with other metadata")
    s3.copy_object(Bucket=BUCKET, Key="t/other", CopySource=source, TaggingDirective="REPLACE", Tagging="o=3")
    same(tags("t/other"), [("o", "3")], "of a copy with other tags")
    s3.copy_object(Bucket=BUCKET, Key="t/none", CopySource=source, TaggingDirective="REPLACE")
    same(tags("t/none"), [], "of a copy with none")


@step("tags that break a rule are refused, and nothing is stored")
def _():
    many = "&".join(f"k{n}=v" for n in range(11))
    refused("InvalidTag", s3.put_object, Bucket=BUCKET, Key="t/bad", Body=short(0), Tagging=many)
    refused("InvalidTag", s3.put_object, Bucket=BUCKET, Key="t/bad", Body=short(0), Tagging="a=1&a=2")
    refused(404, s3.head_object, Bucket=BUCKET, Key="t/bad")
    put("t/bad", short(0))
    twice = {"TagSet": [{"Key": "a", "Value": "1"}, {"Key": "a", "Value": "2"}]}
    refused("InvalidTag", s3.put_object_tagging, Bucket=BUCKET, Key="t/bad", Tagging=twice)
    long = {"TagSet": [{"Key": "k" * 129, "Value": "v"}]}
    refused("InvalidTag", s3.put_object_tagging, Bucket=BUCKET, Key="t/bad", Tagging=long)
    same(tags("t/bad"), [])
    refused("NoSuchKey", s3.get_object_tagging, Bucket=BUCKET, Key="t/nothing")


@step("every version can be removed, then the bucket")
def _():
    empty(BUCKET)
    same(versions(""), [], "what is left")
    s3.delete_bucket(Bucket=BUCKET)


LOCKED = f"{BUCKET}-lock"


def later(days):
    return datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0) + datetime.timedelta(days=days)


def locked(key, body, **arguments):
    return s3.put_object(Bucket=LOCKED, Key=key, Body=body, **arguments)["VersionId"]


@step("a bucket with Object Lock keeps versions, and says how long")
def _():
    s3.create_bucket(Bucket=LOCKED, ObjectLockEnabledForBucket=True)
    same(s3.get_bucket_versioning(Bucket=LOCKED)["Status"], "Enabled")
    refused("InvalidBucketState", s3.put_bucket_versioning, Bucket=LOCKED, VersioningConfiguration={"Status": "Suspended"})
    for period in ({"Days": 2}, {"Years": 1}):
        conf = {"ObjectLockEnabled": "Enabled", "Rule": {"DefaultRetention": {"Mode": "GOVERNANCE", **period}}}
        s3.put_object_lock_configuration(Bucket=LOCKED, ObjectLockConfiguration=conf)
        same(s3.get_object_lock_configuration(Bucket=LOCKED)["ObjectLockConfiguration"], conf)
    conf = {"ObjectLockEnabled": "Enabled", "Rule": {"DefaultRetention": {"Mode": "NONE", "Days": 1}}}
    refused("MalformedXML", s3.put_object_lock_configuration, Bucket=LOCKED, ObjectLockConfiguration=conf)
    version = locked("default", short(1))
    same(s3.head_object(Bucket=LOCKED, Key="default")["ObjectLockMode"], "GOVERNANCE", "default of the bucket")
    refused("AccessDenied", s3.delete_object, Bucket=LOCKED, Key="default", VersionId=version)
    s3.put_object_lock_configuration(Bucket=LOCKED, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled"})


@step("what a bucket without Object Lock says of it")
def _():
    bucket = f"{BUCKET}-free"
    s3.create_bucket(Bucket=bucket)
    refused("ObjectLockConfigurationNotFoundError", s3.get_object_lock_configuration, Bucket=bucket)
    s3.put_object(Bucket=bucket, Key="k", Body=short(0))
    refused("InvalidRequest", s3.get_object_retention, Bucket=bucket, Key="k")
    refused("InvalidRequest", s3.put_object_legal_hold, Bucket=bucket, Key="k", LegalHold={"Status": "ON"})
    same(s3.get_object(Bucket=bucket, Key="k")["Body"].read(), short(0), "object afterwards")
    s3.delete_object(Bucket=bucket, Key="k")
    s3.delete_bucket(Bucket=bucket)


@step("retention: set with the object, lengthened, bypassed")
def _():
    until = later(30)
    lock = {"ObjectLockMode": "GOVERNANCE", "ObjectLockRetainUntilDate": until}
    one = locked("r/key", data("small2"), **lock)
    head = s3.head_object(Bucket=LOCKED, Key="r/key")
    same((head["ObjectLockMode"], head["ObjectLockRetainUntilDate"]), ("GOVERNANCE", until), "HEAD")
    got = s3.get_object(Bucket=LOCKED, Key="r/key", VersionId=one)
    same((got["Body"].read(), got["ObjectLockMode"]), (data("small2"), "GOVERNANCE"), "GET")
    same(s3.get_object_retention(Bucket=LOCKED, Key="r/key", VersionId=one)["Retention"],
         {"Mode": "GOVERNANCE", "RetainUntilDate": until})
    refused("AccessDenied", s3.delete_object, Bucket=LOCKED, Key="r/key", VersionId=one)
    batch = s3.delete_objects(Bucket=LOCKED, Delete={"Objects": [{"Key": "r/key", "VersionId": one}]})
    same([(row["Key"], row["VersionId"], row["Code"]) for row in batch["Errors"]], [("r/key", one, "AccessDenied")], "batch")
    longer = {"Mode": "GOVERNANCE", "RetainUntilDate": later(60)}
    s3.put_object_retention(Bucket=LOCKED, Key="r/key", Retention=longer)
    same(s3.get_object_retention(Bucket=LOCKED, Key="r/key")["Retention"], longer, "lengthened")
    shorter = {"Mode": "GOVERNANCE", "RetainUntilDate": later(1)}
    refused("AccessDenied", s3.put_object_retention, Bucket=LOCKED, Key="r/key", Retention=shorter)
    s3.put_object_retention(Bucket=LOCKED, Key="r/key", Retention=shorter, BypassGovernanceRetention=True)
    s3.delete_object(Bucket=LOCKED, Key="r/key", VersionId=one, BypassGovernanceRetention=True)
    refused(("NoSuchVersion", "NoSuchKey"), s3.get_object, Bucket=LOCKED, Key="r/key", VersionId=one)


@step("retention of an upload in parts")
def _():
    until = later(30)
    upload = s3.create_multipart_upload(
        Bucket=LOCKED, Key="r/parts", ObjectLockMode="GOVERNANCE", ObjectLockRetainUntilDate=until,
    )["UploadId"]
    etag = s3.upload_part(Bucket=LOCKED, Key="r/parts", UploadId=upload, PartNumber=1, Body=short(2))["ETag"]
    parts = {"Parts": [{"PartNumber": 1, "ETag": etag}]}
    s3.complete_multipart_upload(Bucket=LOCKED, Key="r/parts", UploadId=upload, MultipartUpload=parts)
    same(s3.get_object_retention(Bucket=LOCKED, Key="r/parts")["Retention"]["RetainUntilDate"], until, "of an upload")


@step("a copy gets the lock that its request says")
def _():
    locked("r/src", short(3))
    until = later(3)
    s3.copy_object(Bucket=LOCKED, Key="r/copy", CopySource=f"{LOCKED}/r/src", ObjectLockMode="GOVERNANCE",
                   ObjectLockRetainUntilDate=until, ObjectLockLegalHoldStatus="OFF")
    same(s3.get_object_retention(Bucket=LOCKED, Key="r/copy")["Retention"], {"Mode": "GOVERNANCE", "RetainUntilDate": until})


@step("legal hold: with the object, on, off")
def _():
    version = locked("h/key", short(4), ObjectLockLegalHoldStatus="ON")
    same(s3.get_object_legal_hold(Bucket=LOCKED, Key="h/key")["LegalHold"], {"Status": "ON"})
    same(s3.head_object(Bucket=LOCKED, Key="h/key")["ObjectLockLegalHoldStatus"], "ON", "HEAD")
    refused("AccessDenied", s3.delete_object, Bucket=LOCKED, Key="h/key", VersionId=version, BypassGovernanceRetention=True)
    s3.put_object_legal_hold(Bucket=LOCKED, Key="h/key", VersionId=version, LegalHold={"Status": "OFF"})
    same(s3.get_object_legal_hold(Bucket=LOCKED, Key="h/key", VersionId=version)["LegalHold"], {"Status": "OFF"})
    refused("MalformedXML", s3.put_object_legal_hold, Bucket=LOCKED, Key="h/key", LegalHold={"Status": "abc"})
    same(s3.get_object(Bucket=LOCKED, Key="h/key")["Body"].read(), short(4), "object afterwards")
    s3.delete_object(Bucket=LOCKED, Key="h/key", VersionId=version)


@step("half a lock is refused before anything is stored")
def _():
    refused("InvalidArgument", s3.put_object, Bucket=LOCKED, Key="bad", Body=short(0), ObjectLockMode="GOVERNANCE")
    refused("InvalidArgument", s3.put_object, Bucket=LOCKED, Key="bad", Body=short(0), ObjectLockLegalHoldStatus="maybe")
    refused(404, s3.head_object, Bucket=LOCKED, Key="bad")


@step("a bucket with locks is emptied by bypassing them")
def _():
    empty(LOCKED)
    s3.delete_bucket(Bucket=LOCKED)
