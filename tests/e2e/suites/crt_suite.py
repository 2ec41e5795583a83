"""boto3 and aws-cli with the CRT transfer client (the AWS common runtime): parallel parts, ranged downloads, checksums as trailers.

    crt_suite.py boto3 | awscli
"""

import os
import sys
from pathlib import Path
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from canary import data
from harness import Suite, command, file_bytes, same
from relay import relay

CLIENT = sys.argv[1]
suite = Suite(f"{CLIENT}-crt")
step = suite.step
BUCKET = suite.bucket


def with_boto3():
    """`preferred_transfer_client="crt"` of boto3 itself insists on TLS and a public certificate; this is what it switches to."""
    import boto3
    import botocore.config
    import botocore.credentials
    import botocore.session
    from s3transfer.crt import (
        BotocoreCRTCredentialsWrapper, BotocoreCRTRequestSerializer, CRTTransferManager, create_s3_crt_client,
    )

    config = botocore.config.Config(s3={"addressing_style": "path"})
    s3 = boto3.client(
        "s3", endpoint_url=suite.endpoint, region_name=suite.region, aws_access_key_id=suite.access_key,
        aws_secret_access_key=suite.secret_key, config=config,
    )
    s3.create_bucket(Bucket=BUCKET, **({} if suite.region == "us-east-1" or not suite.claviger else {
        "CreateBucketConfiguration": {"LocationConstraint": suite.region}}))
    credentials = BotocoreCRTCredentialsWrapper(botocore.credentials.Credentials(suite.access_key, suite.secret_key))
    crt = create_s3_crt_client(suite.region, credentials.to_crt_credentials_provider(), use_ssl=False)
    serializer = BotocoreCRTRequestSerializer(
        botocore.session.Session(), {"region_name": suite.region, "endpoint_url": suite.endpoint, "config": config})

    def transfers():
        """Leaving it waits until files have got their names."""
        return CRTTransferManager(crt, serializer)

    @step("files up, one part and several")
    def _():
        with transfers() as manager:
            for blob in ["empty", "small", "medium", "large"]:
                manager.upload(suite.file(blob), BUCKET, f"crt/{blob}").result()
        for blob in ["empty", "small", "medium", "large"]:
            same(s3.head_object(Bucket=BUCKET, Key=f"crt/{blob}")["ContentLength"], len(data(blob)), "the size")

    @step("files down, in ranges side by side, checksums verified")
    def _():
        with transfers() as manager:
            for blob in ["empty", "small", "medium", "large"]:
                manager.download(BUCKET, f"crt/{blob}", suite.work(f"{blob}.back")).result()
        for blob in ["empty", "small", "medium", "large"]:
            same(file_bytes(suite.work(f"{blob}.back")), data(blob), blob)

    @step("a stream up and down")
    def _():
        with transfers() as manager, open(suite.file("large"), "rb") as file, open(suite.work("stream.back"), "wb") as back:
            manager.upload(file, BUCKET, "crt/stream").result()
            manager.download(BUCKET, "crt/stream", back).result()
        same(file_bytes(suite.work("stream.back")), data("large"), "the stream")

    @step("delete through the CRT")
    def _():
        with transfers() as manager:
            for entry in s3.list_objects_v2(Bucket=BUCKET)["Contents"]:
                manager.delete(BUCKET, entry["Key"]).result()
        s3.delete_bucket(Bucket=BUCKET)


def with_awscli():
    """The CRT of aws-cli 2.9 leaves the port out, so a relay stands at port 80 of an address of its own."""
    relay(("127.80.80.80", 80), (urlsplit(suite.endpoint).hostname, urlsplit(suite.endpoint).port))
    config = suite.work("aws.config")
    Path(config).write_text("[default]\ns3 =\n    preferred_transfer_client = crt\n    addressing_style = path\n")
    env = os.environ | {"AWS_CONFIG_FILE": config}

    def aws(*arguments):
        return command(["/usr/bin/aws", "--endpoint-url", "http://127.80.80.80", *arguments], env=env)

    @step("the client is aws-cli 2 with the CRT")
    def _():
        same(aws("--version").startswith("aws-cli/2."), True, "version 2")
        same("crt" in aws("configure", "get", "s3.preferred_transfer_client"), True, "the setting")

    @step("mb, cp up and down, one part and several")
    def _():
        aws("s3", "mb", f"s3://{BUCKET}")
        for blob in ["empty", "small", "large"]:
            aws("s3", "cp", "--quiet", suite.file(blob), f"s3://{BUCKET}/crt/{blob}")
        for blob in ["small", "large"]:
            aws("s3", "cp", "--quiet", f"s3://{BUCKET}/crt/{blob}", suite.work(f"{blob}.back"))
            same(file_bytes(suite.work(f"{blob}.back")), data(blob), blob)

    @step("ls shows the sizes, sync transfers nothing twice")
    def _():
        same(str(len(data("large"))) in aws("s3", "ls", f"s3://{BUCKET}/crt/large"), True, "the size")
        tree = suite.work("tree", "x").rsplit("/", 1)[0]
        aws("s3", "sync", "--quiet", "--exclude", "*empty", f"s3://{BUCKET}/crt/", tree)
        same(aws("s3", "sync", "--exclude", "*empty", f"s3://{BUCKET}/crt/", tree), "", "the second sync")

    @step("rm and rb")
    def _():
        aws("s3", "rm", "--quiet", "--recursive", f"s3://{BUCKET}/")
        aws("s3", "rb", f"s3://{BUCKET}")


{"boto3": with_boto3, "awscli": with_awscli}[CLIENT]()
