"""Programs that use S3 in a way of their own, played with boto3 call by call: not the programs themselves.

    patterns_suite.py hadoop      S3A: directories by marker objects, rename by copy and delete, the committers' pending uploads
    patterns_suite.py registry    the S3 storage driver of a container registry: uploads in small parts, resumed from listings, moved by copy
    patterns_suite.py terraform   state with a lock file: conditional writes
"""

import base64
import concurrent.futures
import hashlib
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import boto3
import botocore.client
import botocore.exceptions

from canary import data
from harness import Suite, same

CLIENT = sys.argv[1]
suite = Suite(CLIENT)
step = suite.step
BUCKET = suite.bucket
MIB = 1 << 20

s3 = boto3.client(
    "s3", endpoint_url=suite.endpoint, region_name=suite.region, aws_access_key_id=suite.access_key,
    aws_secret_access_key=suite.secret_key,
    config=botocore.client.Config(signature_version="s3v4", s3={"addressing_style": "path"}, max_pool_connections=16),
)


def code_of(function, **arguments):
    try:
        function(**arguments)
    except botocore.exceptions.ClientError as error:
        return error.response["Error"]["Code"]
    return None


def keys(prefix=""):
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
    return [entry["Key"] for page in pages for entry in page.get("Contents", [])]


def get(key):
    return s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()


def delete(batch):
    answer = s3.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": key} for key in batch], "Quiet": True})
    same(answer.get("Errors", []), [], "errors of DeleteObjects")


def copy_in_parts(source, target, size, part_len):
    """A multipart copy, parts side by side."""
    upload = s3.create_multipart_upload(Bucket=BUCKET, Key=target)["UploadId"]

    def part(number):
        first = (number - 1) * part_len
        last = min(first + part_len, size) - 1
        answer = s3.upload_part_copy(Bucket=BUCKET, Key=target, UploadId=upload, PartNumber=number,
                                     CopySource={"Bucket": BUCKET, "Key": source}, CopySourceRange=f"bytes={first}-{last}")
        return {"PartNumber": number, "ETag": answer["CopyPartResult"]["ETag"]}

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(part, range(1, -(-size // part_len) + 1)))
    s3.complete_multipart_upload(Bucket=BUCKET, Key=target, UploadId=upload, MultipartUpload={"Parts": parts})


def clean():
    for key in keys():
        s3.delete_object(Bucket=BUCKET, Key=key)
    s3.delete_bucket(Bucket=BUCKET)


s3.create_bucket(Bucket=BUCKET, **({} if suite.region == "us-east-1" or not suite.claviger else {
    "CreateBucketConfiguration": {"LocationConstraint": suite.region}}))


def hadoop():
    files = {f"warehouse/t/day={day}/part-{part:05}": data("small") + bytes([day, part]) for day in range(3) for part in range(8)}

    @step("mkdir by marker, create, getFileStatus of file, directory and nothing")
    def _():
        s3.put_object(Bucket=BUCKET, Key="warehouse/t/", Body=b"", ContentType="application/x-directory")
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda item: s3.put_object(Bucket=BUCKET, Key=item[0], Body=item[1]), files.items()))
        same(s3.head_object(Bucket=BUCKET, Key="warehouse/t/")["ContentLength"], 0, "the marker")
        same(code_of(s3.head_object, Bucket=BUCKET, Key="warehouse/t"), "404", "a directory is no object")
        page = s3.list_objects_v2(Bucket=BUCKET, Prefix="warehouse/t/", Delimiter="/", MaxKeys=2)
        same((page["KeyCount"], page["IsTruncated"]), (2, True), "a directory that is not empty")
        same(s3.list_objects_v2(Bucket=BUCKET, Prefix="none/", Delimiter="/", MaxKeys=2)["KeyCount"], 0, "nothing")

    @step("rename a directory by copy and delete")
    def _():
        sources = keys("warehouse/t/")
        same(len(sources), len(files) + 1, "sources")
        for key in sources:
            s3.copy_object(Bucket=BUCKET, Key=key.replace("/t/", "/renamed/", 1), CopySource={"Bucket": BUCKET, "Key": key},
                           MetadataDirective="COPY")
        delete(sources)
        same(keys("warehouse/t/"), [], "the old directory")
        for key, body in files.items():
            same(get(key.replace("/t/", "/renamed/", 1)), body, key)

    @step("rename a large file by a copy in parts, with its ETag as a condition")
    def _():
        s3.put_object(Bucket=BUCKET, Key="warehouse/big", Body=data("large"))
        copy_in_parts("warehouse/big", "warehouse/big2", len(data("large")), 8 * MIB)
        tag = s3.head_object(Bucket=BUCKET, Key="warehouse/big2")["ETag"]
        s3.copy_object(Bucket=BUCKET, Key="warehouse/big3", CopySource={"Bucket": BUCKET, "Key": "warehouse/big2"}, CopySourceIfMatch=tag)
        same(get("warehouse/big3"), data("large"), "the file")
        same(s3.get_object(Bucket=BUCKET, Key="warehouse/big3", IfMatch=s3.head_object(Bucket=BUCKET, Key="warehouse/big3")["ETag"],
                           Range="bytes=6000000-6000099")["Body"].read(), data("large")[6_000_000:6_000_100], "a range")

    @step("the committers: uploads stay pending, one is committed by another process, one is aborted")
    def _():
        def pending(key):
            upload = s3.create_multipart_upload(Bucket=BUCKET, Key=key)["UploadId"]
            tags = [s3.upload_part(Bucket=BUCKET, Key=key, UploadId=upload, PartNumber=number, Body=data(blob))["ETag"]
                    for number, blob in [(1, "part2"), (2, "small")]]
            return json.dumps({"key": key, "upload": upload, "tags": tags})

        notes = [pending("out/a"), pending("out/b")]
        same(keys("out/"), [], "nothing shows before the commit")
        for number, note in enumerate(notes):
            s3.put_object(Bucket=BUCKET, Key=f"out/__magic/{number}.pending", Body=note)
        first, second = (json.loads(get(f"out/__magic/{number}.pending")) for number in range(2))
        s3.complete_multipart_upload(Bucket=BUCKET, Key=first["key"], UploadId=first["upload"], MultipartUpload={
            "Parts": [{"PartNumber": number, "ETag": tag} for number, tag in enumerate(first["tags"], 1)]})
        s3.abort_multipart_upload(Bucket=BUCKET, Key=second["key"], UploadId=second["upload"])
        delete(keys("out/__magic/"))
        s3.put_object(Bucket=BUCKET, Key="out/_SUCCESS", Body=b"{}")
        same(keys("out/"), ["out/_SUCCESS", "out/a"], "the output")
        same(get("out/a"), data("part2") + data("small"), "the file")
        same(s3.list_multipart_uploads(Bucket=BUCKET, Prefix="out/").get("Uploads", []), [], "pending uploads")

    step("empty the bucket and delete it")(clean)


def registry():
    root = "docker/registry/v2"
    # A registry names a blob by its digest, and names are declared leakage. The leak check knows the digests of all that the
    # suites send, so this name has one of something else.
    digest = "sha256/" + hashlib.sha256(b"blob" + data("large")).hexdigest()
    blob, upload_path = f"{root}/blobs/{digest}/data", f"{root}/repositories/app/_uploads/0f6c/data"

    def upload_parts(upload, first, chunks):
        for number, chunk in enumerate(chunks, first):
            s3.upload_part(Bucket=BUCKET, Key=upload_path, UploadId=upload, PartNumber=number, Body=chunk)

    def listed_parts(upload):
        pages = s3.get_paginator("list_parts").paginate(Bucket=BUCKET, Key=upload_path, UploadId=upload, PaginationConfig={"PageSize": 2})
        return [part for page in pages for part in page.get("Parts", [])]

    @step("a push begins: startedat, an upload, its first chunks")
    def _():
        s3.put_object(Bucket=BUCKET, Key=upload_path.replace("data", "startedat"), Body=b"2026-11-21T00:00:00Z", ContentType="application/octet-stream")
        upload = s3.create_multipart_upload(Bucket=BUCKET, Key=upload_path, ContentType="application/octet-stream")["UploadId"]
        upload_parts(upload, 1, [data("large")[:5 * MIB], data("large")[5 * MIB:10 * MIB + 1]])

    @step("another request goes on: found by listing, its parts by ListParts")
    def _():
        uploads = s3.list_multipart_uploads(Bucket=BUCKET, Prefix=upload_path)["Uploads"]
        upload = next(entry["UploadId"] for entry in uploads if entry["Key"] == upload_path)
        parts = listed_parts(upload)
        same([part["Size"] for part in parts], [5 * MIB, 5 * MIB + 1], "the sizes of the parts")
        upload_parts(upload, len(parts) + 1, [data("large")[10 * MIB + 1:15 * MIB + 7], data("large")[15 * MIB + 7:]])
        parts = [{"PartNumber": part["PartNumber"], "ETag": part["ETag"]} for part in listed_parts(upload)]
        s3.complete_multipart_upload(Bucket=BUCKET, Key=upload_path, UploadId=upload, MultipartUpload={"Parts": parts})
        same(s3.head_object(Bucket=BUCKET, Key=upload_path)["ContentLength"], len(data("large")), "the size")

    @step("append to what was completed: UploadPartCopy, then new chunks")
    def _():
        upload = s3.create_multipart_upload(Bucket=BUCKET, Key=upload_path)["UploadId"]
        copied = s3.upload_part_copy(Bucket=BUCKET, Key=upload_path, UploadId=upload, PartNumber=1,
                                     CopySource={"Bucket": BUCKET, "Key": upload_path})["CopyPartResult"]["ETag"]
        more = s3.upload_part(Bucket=BUCKET, Key=upload_path, UploadId=upload, PartNumber=2, Body=data("small"))["ETag"]
        s3.complete_multipart_upload(Bucket=BUCKET, Key=upload_path, UploadId=upload, MultipartUpload={
            "Parts": [{"PartNumber": 1, "ETag": copied}, {"PartNumber": 2, "ETag": more}]})
        same(hashlib.sha256(get(upload_path)).hexdigest(), hashlib.sha256(data("large") + data("small")).hexdigest(), "the content")

    @step("the blob is moved to its digest: a copy in parts, then delete")
    def _():
        copy_in_parts(upload_path, blob, len(data("large")), 6 * MIB)
        delete(keys(upload_path.rsplit("/", 1)[0] + "/"))
        same(hashlib.sha256(b"blob" + get(blob)).hexdigest(), digest.partition("/")[2], "the digest")

    @step("a pull: HEAD, a redirect to a presigned URL, a range that resumes")
    def _():
        import urllib.request

        url = s3.generate_presigned_url("get_object", Params={"Bucket": BUCKET, "Key": blob}, ExpiresIn=1200)
        request = urllib.request.Request(url, headers={"Range": "bytes=7000000-"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            same((answer.status, answer.read()), (206, data("large")[7_000_000:]), "the rest")

    @step("links, tags and the walk of a garbage collection")
    def _():
        link = f"{root}/repositories/app/_manifests/tags/latest/current/link"
        s3.put_object(Bucket=BUCKET, Key=link, Body=b"sha256:0")
        s3.put_object(Bucket=BUCKET, Key=link, Body=b"sha256:1")
        same(get(link), b"sha256:1", "the tag")
        page = s3.list_objects_v2(Bucket=BUCKET, Prefix=f"{root}/repositories/app/_manifests/tags/", Delimiter="/")
        same([entry["Prefix"].rsplit("/", 2)[1] for entry in page["CommonPrefixes"]], ["latest"], "the tags")
        same(sorted(keys(f"{root}/")), sorted([blob, link]), "the walk")

    step("empty the bucket and delete it")(clean)


def terraform():
    state, lock = "env:/prod/network.tfstate", "env:/prod/network.tfstate.tflock"

    def put(key, document, **arguments):
        body = json.dumps(document).encode()
        return s3.put_object(Bucket=BUCKET, Key=key, Body=body, ContentType="application/json", ChecksumAlgorithm="SHA256",
                             ServerSideEncryption="AES256", **arguments)

    @step("the lock is taken by If-None-Match: *, and by one only")
    def _():
        def take(who):
            return code_of(put, key=lock, document={"ID": who}, IfNoneMatch="*")

        with concurrent.futures.ThreadPoolExecutor(6) as pool:
            outcomes = list(pool.map(take, range(6)))
        same(outcomes.count(None), 1, f"winners among {outcomes}")
        lost = {outcome for outcome in outcomes if outcome}
        same(lost <= {"PreconditionFailed", "ConditionalRequestConflict"}, True, f"what the others hear: {lost}")
        same(json.loads(get(lock))["ID"], outcomes.index(None), "who holds it")

    @step("state is written and read back, its serial rising; Content-MD5 too")
    def _():
        for serial in range(1, 4):
            put(state, {"serial": serial, "secret": data("one").hex()})
            same(json.loads(get(state))["serial"], serial, "the serial")
        body = b"{}"
        s3.put_object(Bucket=BUCKET, Key=state, Body=body, ContentMD5=base64.b64encode(hashlib.md5(body).digest()).decode())

    @step("workspaces are listed, the lock is given back and can be taken again")
    def _():
        page = s3.list_objects_v2(Bucket=BUCKET, Prefix="env:/", MaxKeys=1000)
        same([entry["Key"] for entry in page["Contents"]], [state, lock], "the listing")
        same(code_of(put, key=lock, document={"ID": 7}, IfNoneMatch="*"), "PreconditionFailed", "a held lock")
        s3.delete_object(Bucket=BUCKET, Key=lock)
        same(code_of(put, key=lock, document={"ID": 7}, IfNoneMatch="*"), None, "a free lock")
        s3.delete_object(Bucket=BUCKET, Key=lock)

    step("empty the bucket and delete it")(clean)


{"hadoop": hadoop, "registry": registry, "terraform": terraform}[CLIENT]()
