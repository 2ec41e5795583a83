#!/usr/bin/env python3
"""Puts a few objects of every kind and leaves them, or checks that they are there as they were put.

    leave_behind.py put | check

Between the two, gateway, key service and provider may be restarted. An upload that was begun before is completed after.
Run it with the Python of the boto3 environment.
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import boto3
import botocore.client

import canary
from canary import data
from harness import same

BUCKET = "left-behind"
WHOLE = {"small": "small", "empty": "empty", "dir/large": "large", "name with ü+%": "segment1"}
PARTS = ["part1", "part3", "part2", "tail"]
FIELDS = {
    "ContentType": canary.CONTENT_TYPE, "CacheControl": canary.CACHE_CONTROL,
    "ContentDisposition": canary.CONTENT_DISPOSITION, "ContentLanguage": canary.CONTENT_LANGUAGE,
    "Metadata": {"note": canary.META, "second-note": canary.META_SECOND},
}

s3 = boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"], region_name=os.environ["AWS_REGION"],
                  config=botocore.client.Config(s3={"addressing_style": "path"}))


def joined():
    return b"".join(data(name) for name in PARTS)


def send(upload, key, number):
    return s3.upload_part(Bucket=BUCKET, Key=key, UploadId=upload, PartNumber=number, Body=data(PARTS[number - 1]))["ETag"]


def complete(upload, key, etags):
    parts = [{"PartNumber": number, "ETag": etag} for number, etag in sorted(etags.items())]
    s3.complete_multipart_upload(Bucket=BUCKET, Key=key, UploadId=upload, MultipartUpload={"Parts": parts})


def put():
    s3.create_bucket(Bucket=BUCKET)
    for key, name in WHOLE.items():
        s3.put_object(Bucket=BUCKET, Key=key, Body=data(name), **FIELDS)
    upload = s3.create_multipart_upload(Bucket=BUCKET, Key="multipart", **FIELDS)["UploadId"]
    complete(upload, "multipart", {number: send(upload, "multipart", number) for number in range(1, 5)})
    s3.copy_object(Bucket=BUCKET, Key="copied", CopySource={"Bucket": BUCKET, "Key": "multipart"})
    upload = s3.create_multipart_upload(Bucket=BUCKET, Key="unfinished", **FIELDS)["UploadId"]
    for number in (1, 2):
        send(upload, "unfinished", number)


def look(key, want):
    answer = s3.get_object(Bucket=BUCKET, Key=key)
    same(answer["Body"].read(), want, f"body of {key}")
    for field, value in FIELDS.items():
        same(answer[field], value, f"{field} of {key}")
    if want:
        same(s3.get_object(Bucket=BUCKET, Key=key, Range="bytes=-1000")["Body"].read(), want[-1000:], f"end of {key}")


def check():
    for key, name in WHOLE.items():
        look(key, data(name))
    look("multipart", joined())
    look("copied", joined())
    upload = s3.list_multipart_uploads(Bucket=BUCKET)["Uploads"][0]["UploadId"]
    for number in (3, 4):
        send(upload, "unfinished", number)
    listed = s3.list_parts(Bucket=BUCKET, Key="unfinished", UploadId=upload)["Parts"]
    complete(upload, "unfinished", {part["PartNumber"]: part["ETag"] for part in listed})
    look("unfinished", joined())
    print("what was left behind is there as it was put")


{"put": put, "check": check}[sys.argv[1]]()
