"""What must not be there when all clients have gone: uploads that nobody holds, and objects of Claviger's beside the declared ones."""

SYSTEM_BUCKET = "claviger-system"
# Keys that may lie in the system bucket at rest (docs/format.md §2.5).
DECLARED = (".claviger/epochs/", ".claviger/keyset/")
# One epoch an hour, one more for a beginning within another's time.
EPOCHS_MAX_AN_HOUR, EPOCHS_MAX = 1, 2


def keys_of(s3, bucket):
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    return [entry["Key"] for page in pages for entry in page.get("Contents", [])]


def uploads_of(s3, bucket):
    """(key, id) of all uploads of a bucket."""
    pages = s3.get_paginator("list_multipart_uploads").paginate(Bucket=bucket)
    return [(upload["Key"], upload["UploadId"]) for page in pages for upload in page.get("Uploads", [])]


def system_keys(store):
    """What lies in the system bucket; nothing before there is one."""
    if SYSTEM_BUCKET not in {bucket["Name"] for bucket in store.list_buckets()["Buckets"]}:
        return set()
    return set(keys_of(store, SYSTEM_BUCKET))


def look(through, store, bucket, expected_keys, before, hours):
    """Findings, by the gateway's account of things and by the store's own; `before` lay in the system bucket already."""
    findings = []
    for name, s3 in [("through Claviger", through), ("at the store", store)]:
        keys = keys_of(s3, bucket)
        extra, missing = sorted(set(keys) - expected_keys), sorted(expected_keys - set(keys))
        if extra or missing or len(keys) != len(expected_keys):
            findings.append(f"{name}: {len(keys)} objects, {len(expected_keys)} were written and kept; "
                            f"not written {extra[:5]}, not there {missing[:5]}")
        uploads = uploads_of(s3, bucket)
        if uploads:
            findings.append(f"{name}: {len(uploads)} uploads are left, such as {uploads[0][0]!r} {uploads[0][1][:40]}")
    system = system_keys(store) - before
    companions = [key for key in system if not key.startswith(DECLARED)]
    if companions:
        findings.append(f"system bucket: {len(companions)} objects that are neither epochs nor keysets, such as {min(companions)}")
    epochs = sum(key.startswith(DECLARED[0]) for key in system)
    if not 1 <= epochs <= EPOCHS_MAX + EPOCHS_MAX_AN_HOUR * hours:
        findings.append(f"system bucket: {epochs} epochs after {hours:.2f} hours")
    uploads = uploads_of(store, SYSTEM_BUCKET)
    if uploads:
        findings.append(f"system bucket: {len(uploads)} uploads")
    return findings


def clear(through, bucket):
    """Deletes the bucket with all that is in it."""
    keys = keys_of(through, bucket)
    for first in range(0, len(keys), 1000):
        entries = [{"Key": key} for key in keys[first:first + 1000]]
        through.delete_objects(Bucket=bucket, Delete={"Objects": entries, "Quiet": True})
    through.delete_bucket(Bucket=bucket)


def prove_sight(store, bucket, look_again):
    """Where nothing was found: plants an upload and a companion object and makes sure that both are. A check that can't fail
    proves nothing."""
    upload = store.create_multipart_upload(Bucket=bucket, Key="planted")["UploadId"]
    store.put_object(Bucket=SYSTEM_BUCKET, Key=".claviger/mpu/planted/00001", Body=b"planted")
    try:
        found = look_again()
    finally:
        store.abort_multipart_upload(Bucket=bucket, Key="planted", UploadId=upload)
        store.delete_object(Bucket=SYSTEM_BUCKET, Key=".claviger/mpu/planted/00001")
    wanted = ["through Claviger: 1 uploads", "at the store: 1 uploads", "neither epochs nor keysets"]
    unseen = [words for words in wanted if not any(words in finding for finding in found)]
    return [f"what was planted was not found: {unseen}"] if unseen else []
