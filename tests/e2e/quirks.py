"""What a target can't do by itself: the one table of steps that are declared instead of passed.

A row is (targets, clients, step, reason); clients and steps are shell patterns. The targets `rgw` and `provider` are the stores
without Claviger in between; a row of `claviger` or `claviger-rgw` is a limit that no proxy can lift, or one of Claviger's own.
"""

import fnmatch

TARGETS = ["provider", "rgw", "claviger", "claviger-rgw"]

ROWS = [
    # --- the embedded provider by itself: it keeps what a client sends it, and computes no more than it must
    ("provider", "boto3", "checksum *: multipart", "the embedded provider combines no checksums of parts"),
    ("provider", "boto3", "checksum SHA512: computed*", "the embedded provider knows the older five algorithms"),
    ("provider", "boto3", "checksum SHA512: a wrong*", "the embedded provider knows the older five algorithms"),
    ("provider", "boto3", "checksum XXHASH*: computed*", "the embedded provider knows the older five algorithms"),
    ("provider", "boto3", "checksum XXHASH*: a wrong*", "the embedded provider knows the older five algorithms"),
    ("provider", "boto3", "checksum MD5:*", "the embedded provider knows the older five algorithms"),
    ("provider", "boto3", "checksum FULL_OBJECT*", "the embedded provider combines no checksums of parts"),
    ("provider", "boto3", "GetObjectAttributes*", "the embedded provider has no GetObjectAttributes"),
    ("provider", "boto3", "GetObjectTagging*", "the embedded provider has no tags"),

    ("provider claviger", "configuration", "*ACL*", "the embedded provider has no ACLs"),
    ("provider claviger", "configuration", "CORS:*", "the embedded provider has no CORS rules"),
    ("provider claviger", "configuration", "lifecycle:*", "the embedded provider has no lifecycle rules"),
    ("provider claviger", "configuration", "policy:*", "the embedded provider has no policies"),
    ("provider claviger", "configuration", "public access block:*", "the embedded provider has no policies"),
    ("provider claviger", "configuration", "bucket tags:*", "the embedded provider has no tags"),
    ("provider claviger", "configuration", "request payment:*", "the embedded provider sends no bills"),
    ("provider claviger", "configuration", "logging and*", "the embedded provider has no logs and events"),
    ("provider claviger", "configuration", "ownership*", "the embedded provider has no ownership controls"),
    ("provider claviger", "configuration", "bucket encryption:*", "the embedded provider encrypts nothing"),
    ("provider claviger", "versions", "*", "the embedded provider keeps no versions"),
    ("provider", "configuration", "what would make*", "the embedded provider knows no configuration and gives no reason"),
    ("provider", "configuration", "a document that is none*", "the embedded provider knows no configuration"),
    ("provider", "configuration", "an unknown bucket*", "the embedded provider knows no configuration"),
    ("provider", "signatures", "the date may stand in Date*", "the embedded provider reads x-amz-date only"),
    ("provider", "signatures", "clocks may differ*", "the embedded provider words the refusal with less"),
    ("provider", "signatures", "a date that is missing*", "the embedded provider says InvalidRequest"),
    ("provider", "signatures", "headers are signed trimmed*", "the embedded provider takes no header twice"),
    ("provider", "signatures", "a header of Amazon's*", "the embedded provider ignores it"),
    ("provider", "signatures", "two ways of authentication*", "the embedded provider goes by the first"),
    ("provider", "signatures", "presigned: from a second*", "the embedded provider says InvalidRequest"),
    ("provider", "fidelity", "all three date formats*", "the embedded provider's framework reads one format"),
    ("provider", "fidelity", "Expires is kept*", "the embedded provider's framework wants a date"),
    ("provider", "fidelity", "DeleteObjects*", "the embedded provider checks neither tags nor digests there"),
    ("provider", "fidelity", "x-amz-checksum-mode*", "the embedded provider's framework takes any mode"),
    ("provider", "fidelity", "response-* overrides*", "the embedded provider overrides in GET only"),
    ("provider", "fidelity", "max-keys*", "the embedded provider's framework refuses an empty value"),
    ("provider", "forms", "a small form*", "the embedded provider's framework answers a form without ETag"),
    ("provider", "forms", "an empty file*", "the embedded provider's framework takes an empty file for none"),
    ("provider", "forms", "${filename}*", "the embedded provider's framework keeps the path"),
    ("provider", "forms", "success_action_*", "the embedded provider's framework gives other locations"),
    ("provider", "forms", "a form that its policy*", "the embedded provider's framework says 400"),
    ("provider", "forms", "a signature that is wrong*", "the embedded provider's framework says 400"),
    ("provider", "forms", "a checksum*", "the embedded provider's framework ignores checksums in forms"),
    ("provider", "forms", "what is no form*", "the embedded provider's framework says 501"),

    ("provider", "node", "presigned PUT with hoisted*", "the embedded provider's framework reads no headers from the query"),

    # --- Ceph RGW 16.2, by itself; and with Claviger before it, where a proxy can't make up for what the store does:
    # conditions are passed through and never emulated, and the store decides which parts it joins
    ("provider", "boto3", "a PUT without a length*", "the embedded provider wants a length"),
    ("rgw", "boto3", "a PUT without a length*", "RGW 16 wants a length"),
    ("rgw", "boto3", "checksum*computed*", "RGW 16 knows no additional checksums"),
    ("rgw", "boto3", "checksum*a wrong one*", "RGW 16 knows no additional checksums"),
    ("rgw", "boto3", "checksum*multipart*", "RGW 16 knows no additional checksums"),
    ("rgw", "boto3", "GetObjectAttributes*", "RGW 16 has no GetObjectAttributes"),
    ("rgw", "boto3", "PUT If-Match", "RGW 16 compares the header with its quotes, so that the right ETag is refused too"),
    ("rgw claviger-rgw", "boto3", "Complete If-None-Match*", "RGW 16 ignores conditions on Complete"),
    ("rgw", "boto3", "copy conditions", "RGW 16 ignores copy-source-if-none-match"),
    ("rgw claviger-rgw", "boto3", "some uploaded parts left out*", "RGW 16 wants every uploaded part in Complete"),
    ("rgw", "boto3", "wrong order*", "RGW 16 takes parts in any order"),
    ("rgw", "boto3", "abort removes*", "RGW 16 says NoSuchKey for a part of an aborted upload"),
    ("rgw claviger-rgw", "boto3", "ListMultipartUploads pages*", "RGW 16 leaves out the common prefixes of uploads"),
    ("rgw", "boto3", "ListObjects (V1)*", "RGW 16 does not encode NextMarker, so a key with `+` starts the listing over"),
    ("rgw", "boto3", "ranges of a * object", "RGW 16 answers bytes=-0 with 206"),
    ("rgw", "boto3", "GET and HEAD by part number", "RGW 16 ignores partNumber"),
    ("rgw claviger-rgw", "fidelity", "CopyObject If-None-Match*", "RGW 16 ignores conditions on a copy's destination"),
    ("rgw", "fidelity", "all three date formats*", "RGW 16 reads no asctime, and refuses what is no date"),
    ("rgw", "fidelity", "content encodings*", "RGW 16 keeps aws-chunked"),
    ("rgw", "fidelity", "metadata beyond ASCII*", "RGW 16 sends raw UTF-8 in headers"),
    ("rgw", "fidelity", "DeleteObject If-Match", "RGW 16 ignores conditions on DELETE"),
    ("rgw", "fidelity", "DeleteObjects*", "RGW 16 checks neither tags nor digests there"),
    ("rgw", "fidelity", "a trailer on UploadPart*", "RGW 16 knows no trailers"),
    ("rgw", "fidelity", "x-amz-checksum-mode*", "RGW 16 knows no additional checksums"),
    ("rgw", "fidelity", "max-keys*", "RGW 16 takes numbers below zero"),
    ("rgw", "fidelity", "encoding-type=url*", "RGW 16 leaves some characters unencoded, and takes other types"),
    ("rgw", "fidelity", "delete them in batches*", "RGW 16 answers 1,001 keys with an empty 400"),
    ("rgw", "boto3-crt", "*", "RGW 16 knows no trailers, which this client always sends"),
    ("rgw", "s3fs", "*", "RGW 16 wants no location for its only one, and this client names it"),
    ("rgw", "duckdb", "*", "RGW 16 wants no location for its only one, and fsspec names it"),
    ("rgw", "terraform", "[!e]*", "RGW 16 refuses AES256 over plain HTTP"),
    ("rgw", "forms", "a small form*", "RGW 16 answers a form without ETag"),
    ("rgw", "forms", "headers and metadata*", "RGW 16 ignores Cache-Control and the like in forms"),
    ("rgw", "forms", "${filename}*", "RGW 16 keeps the path"),
    ("rgw", "forms", "a signature that is wrong*", "RGW 16 says AccessDenied to all of them"),
    ("rgw", "forms", "a checksum*", "RGW 16 ignores checksums in forms"),
    ("rgw", "forms", "what is no form*", "RGW 16 says 400"),
    ("rgw", "boto3", "metadata of 3,000 bytes*", "RGW 16 takes more metadata than S3"),
    ("rgw", "boto3", "a key of 1,024 bytes*", "RGW 16 says InvalidObjectName"),
    ("rgw claviger-rgw", "configuration", "ownership*", "RGW 16 knows no ownership controls; directly it lists the bucket instead"),
    ("rgw claviger-rgw", "configuration", "bucket encryption:*", "RGW 16 knows no bucket encryption; directly it lists the bucket instead"),
    ("rgw", "configuration", "what the store does not know*", "RGW 16 takes a DELETE of what it does not know for one of the bucket"),
    ("rgw", "configuration", "what would make the store*", "RGW 16 says MethodNotAllowed"),
    ("rgw", "configuration", "a document that is none*", "RGW 16 says InvalidArgument for an ACL that is none"),
    ("rgw", "versions", "versioning is switched on*", "RGW 16 says InvalidArgument for a document that is none"),
    ("rgw", "versions", "every write of a key*", "RGW 16 sends no ETag with a 304"),
    ("rgw claviger-rgw", "versions", "the 404 of a deleted*", "RGW 16 does not say that a delete marker is there"),
    ("rgw claviger-rgw", "versions", "the answer to a copy names*", "RGW 16 does not answer the version that a copy made"),
    ("rgw", "versions", "copies name the version*", "RGW 16 does not answer the version that was copied"),
    ("rgw", "versions", "multipart uploads make one*", "RGW 16 does not answer the version that was copied"),
    ("rgw", "versions", "listings of versions page*", "RGW 16 does not encode NextKeyMarker, so a key with `+` starts the listing over"),
    ("rgw claviger-rgw", "versions", "tags of an upload in parts", "RGW 16 forgets the tags of an upload"),
    ("rgw", "versions", "tags of copies*", "RGW 16 has no directive for tags: they go with the metadata"),
    ("rgw", "versions", "tags that break a rule*", "RGW 16 says InvalidArgument for tags in a header"),
    ("rgw claviger-rgw", "versions", "retention of an upload*", "RGW 16 forgets the lock of an upload"),
    ("rgw claviger-rgw", "versions", "a copy gets the lock*", "RGW 16 ignores the lock of a copy"),
    ("rgw", "versions", "attributes of a version", "RGW 16 has no GetObjectAttributes"),
    ("rgw", "signatures", "the date may stand in Date*", "RGW 16 reads x-amz-date only"),
    ("rgw", "signatures", "clocks may differ*", "RGW 16 tells neither time in the refusal"),
    ("rgw", "signatures", "headers are signed trimmed*", "RGW 16 does not join a header that is sent twice"),
    ("rgw", "signatures", "a header of Amazon's*", "RGW 16 takes unsigned x-amz- headers"),
    ("rgw", "signatures", "two ways of authentication*", "RGW 16 goes by one of them"),
    ("rgw", "signatures", "presigned: from a second*", "RGW 16 says AccessDenied for an expiry that is no number"),
    ("rgw", "signatures", "presigned: neither before*", "RGW 16 takes presigned requests before their time"),
    ("rgw", "awscli", "cp empty*", "RGW 16 answers 416 without a message, on which this client stumbles"),
    ("rgw", "rust-sdk", "put 20 MiB from a file*", "RGW 16 knows no aws-chunked bodies with signed trailers"),
    ("rgw", "rust-sdk", "multipart from files", "RGW 16 knows no aws-chunked bodies with signed trailers"),
    ("rgw", "rust-sdk", "ranges", "needs the object of a step that RGW 16 can't do"),
    ("rgw", "rust-sdk", "list", "needs the object of a step that RGW 16 can't do"),
]


def reason(target, client, step):
    """Why this step is not expected to work, or None."""
    for targets, clients, steps, why in ROWS:
        if target in targets.split() and any(fnmatch.fnmatchcase(client, c) for c in clients.split()) \
                and fnmatch.fnmatchcase(step, steps):
            return why
    return None


def client_environment(target, client):
    """Settings that a client needs to talk to a store at all. Through Claviger none are needed."""
    if target == "rgw":
        return {"AWS_REQUEST_CHECKSUM_CALCULATION": "when_required", "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required"}
    return {}
