"""pyarrow's S3 file system (the AWS SDK for C++)."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import pyarrow as pa
import pyarrow.csv
import pyarrow.fs as pafs
import pyarrow.parquet as pq

import canary
from canary import data
from harness import Suite, same

suite = Suite("pyarrow")
step = suite.step
BUCKET = suite.bucket
scheme, host = suite.endpoint.split("://")
fs = pafs.S3FileSystem(access_key=suite.access_key, secret_key=suite.secret_key, region=suite.region,
                       scheme=scheme, endpoint_override=host, allow_bucket_creation=True, allow_bucket_deletion=True,
                       request_timeout=30, connect_timeout=10)


def write(key, blob, **arguments):
    with fs.open_output_stream(f"{BUCKET}/{key}", **arguments) as out:
        out.write(blob)


def read(key):
    with fs.open_input_stream(f"{BUCKET}/{key}") as source:
        return source.read()


@step("create_dir makes the bucket")
def _():
    fs.create_dir(BUCKET)
    same(fs.get_file_info(BUCKET).type, pafs.FileType.Directory, "type")


@step("write and read small and empty, with metadata")
def _():
    write("small", data("small"), metadata={"Content-Type": canary.CONTENT_TYPE})
    same(read("small"), data("small"), "body")
    write("empty", b"")
    same(read("empty"), b"", "body")


@step("write 20 MiB in parts, read it back")
def _():
    with fs.open_output_stream(f"{BUCKET}/large") as out:
        for at in range(0, len(data("large")), 3_000_001):
            out.write(data("large")[at:at + 3_000_001])
    same(read("large"), data("large"), "body")


@step("random access")
def _():
    with fs.open_input_file(f"{BUCKET}/large") as file:
        same(file.size(), len(data("large")), "size")
        for at in [0, 65_530, 5_242_870, 20_000_000]:
            same(file.read_at(30, at), data("large")[at:at + 30], f"read at {at}")


@step("sizes in listings")
def _():
    found = {info.base_name: info.size for info in fs.get_file_info(pafs.FileSelector(BUCKET)) if info.is_file}
    same(found, {name: len(data(name)) for name in ["small", "empty", "large"]}, "sizes")


@step("a Parquet dataset, written and filtered")
def _():
    table = pa.table({"n": list(range(50_000)), "part": [n % 3 for n in range(50_000)],
                      "text": [f"{canary.CONTENT.decode()}-{n}" for n in range(50_000)]})
    pq.write_to_dataset(table, f"{BUCKET}/dataset", partition_cols=["part"], filesystem=fs)
    back = pq.read_table(f"{BUCKET}/dataset", filesystem=fs, filters=[("part", "=", 1)], columns=["n"])
    same(sorted(back["n"].to_pylist()), [n for n in range(50_000) if n % 3 == 1], "rows")


@step("copy, move, delete")
def _():
    fs.copy_file(f"{BUCKET}/small", f"{BUCKET}/copied")
    fs.move(f"{BUCKET}/copied", f"{BUCKET}/moved")
    same(read("moved"), data("small"), "body")
    fs.delete_file(f"{BUCKET}/moved")
    same(fs.get_file_info(f"{BUCKET}/moved").type, pafs.FileType.NotFound, "type")


@step("delete everything and the bucket")
def _():
    fs.delete_dir_contents(BUCKET)
    fs.delete_dir(BUCKET)
    same(fs.get_file_info(BUCKET).type, pafs.FileType.NotFound, "type")
