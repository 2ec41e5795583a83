"""Sub-resources with configuration documents: what is forwarded arrives as it was written, what is not says why."""

import base64
import hashlib
import json
import sys
import urllib.error
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import boto3
import botocore.client
import botocore.exceptions

from canary import data
from harness import Suite, same

suite = Suite("configuration")
step = suite.step
BUCKET = suite.bucket
URL = f"{suite.endpoint}/{BUCKET}"

s3 = boto3.client(
    "s3", endpoint_url=suite.endpoint, region_name=suite.region,
    aws_access_key_id=suite.access_key, aws_secret_access_key=suite.secret_key,
    config=botocore.client.Config(signature_version="s3v4", s3={"addressing_style": "path"}, retries={"max_attempts": 1}),
)


def refused(code, function, **arguments):
    """The call has to fail with this code; gives the error."""
    try:
        function(**arguments)
    except botocore.exceptions.ClientError as error:
        same(error.response["Error"]["Code"], code, "code")
        return error.response
    raise AssertionError(f"went through; expected {code}")


def permissions(answer):
    return sorted((grant["Grantee"].get("URI") or grant["Grantee"]["ID"], grant["Permission"]) for grant in answer["Grants"])


EVERYBODY = "http://acs.amazonaws.com/groups/global/AllUsers"


@step("make the bucket")
def _():
    s3.create_bucket(Bucket=BUCKET)
    s3.put_object(Bucket=BUCKET, Key="object", Body=data("small"))


@step("bucket ACL: read, canned, as a document, back to private")
def _():
    first = s3.get_bucket_acl(Bucket=BUCKET)
    owner = first["Owner"]["ID"]
    same(permissions(first), [(owner, "FULL_CONTROL")], "ACL of a new bucket")
    s3.put_bucket_acl(Bucket=BUCKET, ACL="public-read")
    same(permissions(s3.get_bucket_acl(Bucket=BUCKET)), sorted([(owner, "FULL_CONTROL"), (EVERYBODY, "READ")]), "canned")
    policy = {
        "Owner": {"ID": owner},
        "Grants": [
            {"Grantee": {"Type": "CanonicalUser", "ID": owner}, "Permission": "FULL_CONTROL"},
            {"Grantee": {"Type": "Group", "URI": EVERYBODY}, "Permission": "READ_ACP"},
        ],
    }
    s3.put_bucket_acl(Bucket=BUCKET, AccessControlPolicy=policy)
    got = permissions(s3.get_bucket_acl(Bucket=BUCKET))
    same(got, sorted([(owner, "FULL_CONTROL"), (EVERYBODY, "READ_ACP")]), "document")
    s3.put_bucket_acl(Bucket=BUCKET, ACL="private")


@step("object ACL: canned with PUT, changed, granted in headers, with copy and multipart")
def _():
    owner = s3.get_bucket_acl(Bucket=BUCKET)["Owner"]["ID"]
    public = sorted([(owner, "FULL_CONTROL"), (EVERYBODY, "READ")])
    s3.put_object(Bucket=BUCKET, Key="public", Body=data("one"), ACL="public-read")
    same(permissions(s3.get_object_acl(Bucket=BUCKET, Key="public")), public, "PUT")
    s3.put_object_acl(Bucket=BUCKET, Key="public", ACL="private")
    same(permissions(s3.get_object_acl(Bucket=BUCKET, Key="public")), [(owner, "FULL_CONTROL")], "changed")
    same(s3.get_object(Bucket=BUCKET, Key="public")["Body"].read(), data("one"), "content")
    s3.copy_object(Bucket=BUCKET, Key="copied", CopySource={"Bucket": BUCKET, "Key": "object"}, ACL="public-read")
    same(permissions(s3.get_object_acl(Bucket=BUCKET, Key="copied")), public, "copy")
    upload = s3.create_multipart_upload(Bucket=BUCKET, Key="parts", ACL="public-read")["UploadId"]
    part = s3.upload_part(Bucket=BUCKET, Key="parts", UploadId=upload, PartNumber=1, Body=data("small"))
    parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    s3.complete_multipart_upload(Bucket=BUCKET, Key="parts", UploadId=upload, MultipartUpload=parts)
    same(permissions(s3.get_object_acl(Bucket=BUCKET, Key="parts")), public, "multipart")
    s3.put_object(Bucket=BUCKET, Key="granted", Body=data("one"), GrantRead=f'id="{owner}"', GrantReadACP=f"uri={EVERYBODY}")
    same(permissions(s3.get_object_acl(Bucket=BUCKET, Key="granted")), sorted([(owner, "READ"), (EVERYBODY, "READ_ACP")]), "grants")
    refused("InvalidArgument", s3.put_object_acl, Bucket=BUCKET, Key="granted", ACL="public-ready")


@step("a new bucket with a canned ACL")
def _():
    name = f"{BUCKET}-acl"
    s3.create_bucket(Bucket=name, ACL="public-read")
    assert (EVERYBODY, "READ") in permissions(s3.get_bucket_acl(Bucket=name)), "the ACL did not arrive"
    s3.delete_bucket(Bucket=name)


CORS = {
    "CORSRules": [
        {"AllowedMethods": ["GET", "PUT"], "AllowedOrigins": ["https://app.example"], "AllowedHeaders": ["*"],
         "ExposeHeaders": ["etag"], "MaxAgeSeconds": 60},
    ]
}


@step("CORS: none, written, read, removed")
def _():
    refused("NoSuchCORSConfiguration", s3.get_bucket_cors, Bucket=BUCKET)
    s3.put_bucket_cors(Bucket=BUCKET, CORSConfiguration=CORS)
    same(s3.get_bucket_cors(Bucket=BUCKET)["CORSRules"], CORS["CORSRules"], "rules")
    s3.delete_bucket_cors(Bucket=BUCKET)
    refused("NoSuchCORSConfiguration", s3.get_bucket_cors, Bucket=BUCKET)


def cross_origin(method, path, **headers):
    """A request without a signature, or presigned in its path; status, what of the answer is for browsers, and the first
    thing that it varies by."""
    names = {"acr_method": "Access-Control-Request-Method", "acr_headers": "Access-Control-Request-Headers", "origin": "Origin"}
    url = path if path.startswith("http") else f"{URL}/{path}"
    sent = urllib.request.Request(url, method=method, headers={names[name]: value for name, value in headers.items()})
    try:
        with urllib.request.urlopen(sent, timeout=30) as answer:
            status, got = answer.status, answer.headers
    except urllib.error.HTTPError as error:
        status, got = error.code, error.headers
    return status, got.get("Access-Control-Allow-Origin"), got.get("Access-Control-Allow-Methods"), got.get("Vary", "").split(",")[0] or None


APP = "https://app.example"


@step("CORS: a preflight is answered by the bucket's rules, without a signature")
def _():
    same(cross_origin("OPTIONS", "object", origin=APP, acr_method="GET")[0], 403, "without rules")
    s3.put_bucket_cors(Bucket=BUCKET, CORSConfiguration=CORS)
    for method in ["GET", "PUT"]:
        got = cross_origin("OPTIONS", "object", origin=APP, acr_method=method, acr_headers="content-type")
        same(got, (200, APP, method, "Origin"), f"preflight of {method}")
    upload = f"{URL}/new?partNumber=1&uploadId=x&X-Amz-Signature=abc&response-expires=1"
    same(cross_origin("OPTIONS", upload, origin=APP, acr_method="PUT")[:2], (200, APP), "URL of an upload")
    same(cross_origin("OPTIONS", "", origin=APP, acr_method="GET")[:2], (200, APP), "the bucket")
    same(cross_origin("OPTIONS", "object", origin=APP, acr_method="DELETE")[:2], (403, None), "a method that no rule has")
    same(cross_origin("OPTIONS", "object", origin="https://evil.example", acr_method="GET")[:2], (403, None), "another origin")
    same(cross_origin("OPTIONS", "object")[:2], (400, None), "no origin")
    same(cross_origin("OPTIONS", f"{suite.endpoint}/{BUCKET}-none/k", origin=APP, acr_method="GET")[:2], (404, None), "no bucket")


@step("CORS: answers to a page's requests say what it may read, errors too")
def _():
    def url(key, method="get_object"):
        return s3.generate_presigned_url(method, Params={"Bucket": BUCKET, "Key": key}, ExpiresIn=60)

    same(cross_origin("GET", url("object"), origin=APP), (200, APP, "GET", "Origin"), "GET")
    same(cross_origin("GET", url("none"), origin=APP), (404, APP, "GET", "Origin"), "GET of nothing")
    same(cross_origin("PUT", url("object-by-page", "put_object"), origin=APP)[:3], (200, APP, "PUT"), "PUT")
    same(cross_origin("GET", url("object"), origin="https://evil.example")[:2], (200, None), "another origin")
    same(cross_origin("GET", url("object")), (200, None, None, None), "no page")
    s3.delete_bucket_cors(Bucket=BUCKET)
    same(cross_origin("GET", url("object"), origin=APP)[:2], (200, None), "without rules")


@step("lifecycle: none, written, read, removed")
def _():
    rules = [
        {"ID": "old", "Status": "Enabled", "Filter": {"Prefix": "logs/"}, "Expiration": {"Days": 30},
         "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 2}},
        {"ID": "off", "Status": "Disabled", "Filter": {"Prefix": "x"}, "Expiration": {"Days": 1}},
    ]
    refused("NoSuchLifecycleConfiguration", s3.get_bucket_lifecycle_configuration, Bucket=BUCKET)
    s3.put_bucket_lifecycle_configuration(Bucket=BUCKET, LifecycleConfiguration={"Rules": rules})
    got = s3.get_bucket_lifecycle_configuration(Bucket=BUCKET)["Rules"]
    by_id = {rule["ID"]: rule for rule in got}
    same(sorted(by_id), ["off", "old"], "rules")
    same(by_id["old"]["Expiration"], {"Days": 30}, "expiration")
    same(by_id["old"]["AbortIncompleteMultipartUpload"], {"DaysAfterInitiation": 2}, "abort")
    s3.delete_bucket_lifecycle(Bucket=BUCKET)
    refused("NoSuchLifecycleConfiguration", s3.get_bucket_lifecycle_configuration, Bucket=BUCKET)


@step("policy: none, written, read as it was, status, removed")
def _():
    policy = json.dumps({
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{BUCKET}/*"}],
    })
    refused("NoSuchBucketPolicy", s3.get_bucket_policy, Bucket=BUCKET)
    same(s3.get_bucket_policy_status(Bucket=BUCKET)["PolicyStatus"]["IsPublic"], False, "public without a policy")
    s3.put_bucket_policy(Bucket=BUCKET, Policy=policy)
    same(s3.get_bucket_policy(Bucket=BUCKET)["Policy"], policy, "policy")
    same(s3.get_bucket_policy_status(Bucket=BUCKET)["PolicyStatus"]["IsPublic"], True, "public with a policy")
    s3.delete_bucket_policy(Bucket=BUCKET)
    refused("NoSuchBucketPolicy", s3.get_bucket_policy, Bucket=BUCKET)
    if suite.claviger:
        refused("MalformedPolicy", s3.put_bucket_policy, Bucket=BUCKET, Policy="no JSON")


@step("public access block: written and read")
def _():
    wanted = {"BlockPublicAcls": True, "IgnorePublicAcls": False, "BlockPublicPolicy": True, "RestrictPublicBuckets": False}
    s3.put_public_access_block(Bucket=BUCKET, PublicAccessBlockConfiguration=wanted)
    same(s3.get_public_access_block(Bucket=BUCKET)["PublicAccessBlockConfiguration"], wanted, "block")
    refused("AccessDenied", s3.put_bucket_acl, Bucket=BUCKET, ACL="public-read")
    s3.delete_public_access_block(Bucket=BUCKET)


@step("bucket tags: none, written, read, removed")
def _():
    tags = [{"Key": "team", "Value": "storage"}, {"Key": "cost centre", "Value": "1 & 2"}]
    refused("NoSuchTagSet", s3.get_bucket_tagging, Bucket=BUCKET)
    s3.put_bucket_tagging(Bucket=BUCKET, Tagging={"TagSet": tags})
    got = s3.get_bucket_tagging(Bucket=BUCKET)["TagSet"]
    same(sorted(got, key=lambda tag: tag["Key"]), sorted(tags, key=lambda tag: tag["Key"]), "tags")
    s3.delete_bucket_tagging(Bucket=BUCKET)
    refused("NoSuchTagSet", s3.get_bucket_tagging, Bucket=BUCKET)


@step("request payment: read and written")
def _():
    same(s3.get_bucket_request_payment(Bucket=BUCKET)["Payer"], "BucketOwner", "payer")
    s3.put_bucket_request_payment(Bucket=BUCKET, RequestPaymentConfiguration={"Payer": "Requester"})
    same(s3.get_bucket_request_payment(Bucket=BUCKET)["Payer"], "Requester", "payer")
    s3.put_bucket_request_payment(Bucket=BUCKET, RequestPaymentConfiguration={"Payer": "BucketOwner"})


@step("logging and notification are read")
def _():
    assert "LoggingEnabled" not in s3.get_bucket_logging(Bucket=BUCKET), "logging is on"
    assert "TopicConfigurations" not in s3.get_bucket_notification_configuration(Bucket=BUCKET), "events are on"


@step("ownership controls: none, written, read, removed")
def _():
    refused("OwnershipControlsNotFoundError", s3.get_bucket_ownership_controls, Bucket=BUCKET)
    rules = {"Rules": [{"ObjectOwnership": "ObjectWriter"}]}
    s3.put_bucket_ownership_controls(Bucket=BUCKET, OwnershipControls=rules)
    same(s3.get_bucket_ownership_controls(Bucket=BUCKET)["OwnershipControls"], rules, "rules")
    s3.delete_bucket_ownership_controls(Bucket=BUCKET)


@step("bucket encryption: none, written, read, removed")
def _():
    refused("ServerSideEncryptionConfigurationNotFoundError", s3.get_bucket_encryption, Bucket=BUCKET)
    rules = {"Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]}
    s3.put_bucket_encryption(Bucket=BUCKET, ServerSideEncryptionConfiguration=rules)
    got = s3.get_bucket_encryption(Bucket=BUCKET)["ServerSideEncryptionConfiguration"]["Rules"][0]
    same(got["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"], "AES256", "algorithm")
    s3.delete_bucket_encryption(Bucket=BUCKET)


@step("what the store does not know is refused and changes nothing")
def _():
    name = f"{BUCKET}-unknown"
    s3.create_bucket(Bucket=name)
    # Before a store that takes a request on an unknown sub-resource for one on the bucket, these would remove it.
    for remove in [s3.delete_bucket_ownership_controls, s3.delete_bucket_encryption]:
        refused("NotImplemented", remove, Bucket=name)
    refused("NotImplemented", s3.delete_bucket_metrics_configuration, Bucket=name, Id="one")
    refused("NotImplemented", s3.get_bucket_accelerate_configuration, Bucket=name)
    refused("NotImplemented", s3.put_bucket_accelerate_configuration, Bucket=name, AccelerateConfiguration={"Status": "Enabled"})
    s3.head_bucket(Bucket=name)
    s3.delete_bucket(Bucket=name)


@step("what would make the store write or serve is refused with a reason")
def _():
    website = {"IndexDocument": {"Suffix": "index.html"}}
    error = refused("NotImplemented", s3.put_bucket_website, Bucket=BUCKET, WebsiteConfiguration=website)
    same(error["ResponseMetadata"]["HTTPStatusCode"], 501, "status")
    assert "ciphertext" in error["Error"]["Message"], error["Error"]["Message"]
    logging = {"LoggingEnabled": {"TargetBucket": BUCKET, "TargetPrefix": "logs/"}}
    error = refused("NotImplemented", s3.put_bucket_logging, Bucket=BUCKET, BucketLoggingStatus=logging)
    assert "logs" in error["Error"]["Message"], error["Error"]["Message"]


def signed(method, query, body, **headers):
    """A signed request with a body of our own."""
    from botocore.auth import S3SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    request = AWSRequest(method=method, url=f"{URL}?{query}", data=body, headers=headers)
    S3SigV4Auth(Credentials(suite.access_key, suite.secret_key), "s3", suite.region).add_auth(request)
    sent = urllib.request.Request(f"{URL}?{query}", data=body, method=method, headers=dict(request.headers))
    try:
        with urllib.request.urlopen(sent, timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@step("a document that is none, or another, or altered on its way is refused")
def _():
    for query, body, code in [
        ("cors", b"<CORSConfiguration>", "MalformedXML"),
        ("cors", b"<!DOCTYPE a [<!ENTITY b 'c'>]><CORSConfiguration>&b;</CORSConfiguration>", "MalformedXML"),
        ("cors", b"<LifecycleConfiguration/>", "MalformedXML"),
        ("acl", b"<AccessControl/>", "MalformedACLError"),
        ("policy", b"<policy/>", "MalformedPolicy"),
    ]:
        status, answer = signed("PUT", query, body)
        assert status == 400 and f"<Code>{code}</Code>" in answer, (query, status, answer)
    good = b"<CORSConfiguration><CORSRule><AllowedMethod>GET</AllowedMethod><AllowedOrigin>*</AllowedOrigin></CORSRule></CORSConfiguration>"
    wrong = base64.b64encode(hashlib.md5(b"other").digest()).decode()
    status, answer = signed("PUT", "cors", good, **{"Content-MD5": wrong})
    assert status == 400 and "<Code>BadDigest</Code>" in answer, (status, answer)
    if suite.target != "claviger":
        refused("NoSuchCORSConfiguration", s3.get_bucket_cors, Bucket=BUCKET)


@step("expected owners and paying requesters go to the store")
def _():
    owner = s3.list_buckets()["Owner"]["ID"]
    s3.head_object(Bucket=BUCKET, Key="object", ExpectedBucketOwner=owner, RequestPayer="requester")
    copy = {"Bucket": BUCKET, "Key": "object"}
    s3.copy_object(Bucket=BUCKET, Key="copied", CopySource=copy, ExpectedBucketOwner=owner, ExpectedSourceBucketOwner=owner)


@step("an unknown bucket is NoSuchBucket for its configuration too")
def _():
    refused("NoSuchBucket", s3.get_bucket_acl, Bucket=f"{BUCKET}-none")
    refused("NoSuchBucket", s3.put_bucket_cors, Bucket=f"{BUCKET}-none", CORSConfiguration=CORS)


@step("clean up")
def _():
    for entry in s3.list_objects_v2(Bucket=BUCKET).get("Contents", []):
        s3.delete_object(Bucket=BUCKET, Key=entry["Key"])
    s3.delete_bucket(Bucket=BUCKET)
