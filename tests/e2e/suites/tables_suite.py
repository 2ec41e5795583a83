"""Table tools: s3fs/fsspec, polars, DuckDB (over fsspec: its own httpfs is an extension that has to be downloaded).

    tables_suite.py s3fs | polars | duckdb
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import canary
from canary import data
from harness import Suite, same

CLIENT = sys.argv[1]
suite = Suite(CLIENT)
step = suite.step
BUCKET = suite.bucket
ROWS = 200_000


def file_system():
    import s3fs

    return s3fs.S3FileSystem(
        key=suite.access_key, secret=suite.secret_key, endpoint_url=suite.endpoint,
        client_kwargs={"region_name": suite.region}, config_kwargs={"s3": {"addressing_style": "path"}},
    )


def with_s3fs():
    fs = file_system()

    @step("mkdir, pipe, cat, info, ls")
    def _():
        fs.mkdir(BUCKET)
        fs.pipe({f"{BUCKET}/a/small": data("small"), f"{BUCKET}/a/empty": b"", f"{BUCKET}/b": data("medium")})
        same(fs.cat(f"{BUCKET}/a/small"), data("small"), "small")
        same((fs.info(f"{BUCKET}/b")["size"], fs.info(f"{BUCKET}/a")["type"]), (len(data("medium")), "directory"), "info")
        same(sorted(fs.ls(BUCKET, detail=False)), [f"{BUCKET}/a", f"{BUCKET}/b"], "ls")
        same(fs.du(BUCKET), len(data("small")) + len(data("medium")), "du")

    @step("a file is written in blocks and read in ranges")
    def _():
        with fs.open(f"{BUCKET}/large", "wb", block_size=5 << 20) as file:
            for at in range(0, len(data("large")), 1_000_000):
                file.write(data("large")[at:at + 1_000_000])
        with fs.open(f"{BUCKET}/large", "rb", block_size=1 << 20) as file:
            for at in [0, 65_535, 5 << 20, len(data("large")) - 10]:
                file.seek(at)
                same(file.read(100), data("large")[at:at + 100], f"at {at}")
        ranges = fs.cat_ranges([f"{BUCKET}/large"] * 3, [0, 70_000, 9_000_000], [10, 70_100, 9_000_001])
        same(ranges, [data("large")[a:b] for a, b in [(0, 10), (70_000, 70_100), (9_000_000, 9_000_001)]], "cat_ranges")

    @step("append to a file")
    def _():
        fs.pipe(f"{BUCKET}/log", data("part2"))
        with fs.open(f"{BUCKET}/log", "ab") as file:
            file.write(data("small"))
        same(fs.cat(f"{BUCKET}/log"), data("part2") + data("small"), "the log")

    @step("put, get, copy, move, glob, find, metadata")
    def _():
        fs.put(suite.file("large"), f"{BUCKET}/put")
        fs.get(f"{BUCKET}/put", suite.work("got"))
        same(Path(suite.work("got")).read_bytes(), data("large"), "get")
        fs.copy(f"{BUCKET}/put", f"{BUCKET}/copied")
        fs.mv(f"{BUCKET}/copied", f"{BUCKET}/c/moved")
        same(fs.cat(f"{BUCKET}/c/moved"), data("large"), "moved")
        same((fs.exists(f"{BUCKET}/copied"), fs.glob(f"{BUCKET}/*/mov*")), (False, [f"{BUCKET}/c/moved"]), "glob")
        fs.pipe(f"{BUCKET}/meta", b"x")
        fs.setxattr(f"{BUCKET}/meta", note=canary.META)
        same(fs.getxattr(f"{BUCKET}/meta", "note"), canary.META, "metadata")

    @step("rm -r removes everything")
    def _():
        fs.rm(BUCKET, recursive=True)
        same(fs.exists(BUCKET), False, "the bucket")


def with_polars():
    import polars as pl

    options = {"aws_access_key_id": suite.access_key, "aws_secret_access_key": suite.secret_key,
               "aws_region": suite.region, "aws_endpoint_url": suite.endpoint, "aws_allow_http": "true"}
    frame = pl.DataFrame({"n": range(ROWS), "city": [f"{canary.META}-{n % 97}" for n in range(ROWS)]})
    url = f"s3://{BUCKET}/table"

    @step("write_parquet, scan with a filter")
    def _():
        frame.write_parquet(f"{url}/one.parquet", storage_options=options, row_group_size=20_000)
        got = pl.scan_parquet(f"{url}/one.parquet", storage_options=options).filter(pl.col("n") >= ROWS - 5).collect()
        same(got.to_dicts(), frame.tail(5).to_dicts(), "the last rows")

    @step("sink_parquet, and a scan over several files")
    def _():
        frame.lazy().with_columns(pl.col("n") + ROWS).sink_parquet(f"{url}/two.parquet", storage_options=options)
        total = pl.scan_parquet(f"{url}/*.parquet", storage_options=options).select(pl.col("n").sum()).collect().item()
        same(total, sum(range(2 * ROWS)), "the sum")

    @step("write_csv and scan_csv")
    def _():
        frame.head(1000).lazy().sink_csv(f"{url}/t.csv", storage_options=options)
        got = pl.scan_csv(f"{url}/t.csv", storage_options=options).collect()
        same(got.equals(frame.head(1000)), True, "the rows")

    remove_all(["table/one.parquet", "table/two.parquet", "table/t.csv"])


def with_duckdb():
    import duckdb

    fs = file_system()
    fs.mkdir(BUCKET)
    db = duckdb.connect()
    db.register_filesystem(fs)
    url = f"s3://{BUCKET}/table"

    @step("COPY TO parquet, read with a filter")
    def _():
        db.execute(f"COPY (SELECT range AS n, '{canary.META}' || (range % 97) AS city FROM range({ROWS})) TO '{url}/one.parquet' (FORMAT parquet, ROW_GROUP_SIZE 20000)")
        got = db.execute(f"SELECT n FROM read_parquet('{url}/one.parquet') WHERE n >= {ROWS - 3} ORDER BY n").fetchall()
        same(got, [(ROWS - 3,), (ROWS - 2,), (ROWS - 1,)], "the last rows")

    @step("several files, and CSV")
    def _():
        db.execute(f"COPY (SELECT range + {ROWS} AS n, '' AS city FROM range({ROWS})) TO '{url}/two.parquet' (FORMAT parquet)")
        db.execute(f"COPY (SELECT 1 AS a, 'x' AS b) TO '{url}/t.csv' (FORMAT csv, HEADER)")
        same(db.execute(f"SELECT sum(n) FROM read_parquet('{url}/*.parquet')").fetchone()[0], sum(range(2 * ROWS)), "the sum")
        same(db.execute(f"SELECT * FROM read_csv('{url}/t.csv')").fetchall(), [(1, "x")], "the rows")

    @step("remove it all")
    def _():
        fs.rm(BUCKET, recursive=True)


def remove_all(keys):
    """polars writes and reads only; the bucket is made and removed by run.py."""
    from harness import command

    @step("the objects are removed")
    def _():
        for key in keys:
            command(["curl", "-sf", "-X", "DELETE", "-H", "x-amz-content-sha256: UNSIGNED-PAYLOAD", "--aws-sigv4",
                     f"aws:amz:{suite.region}:s3", "--user", f"{suite.access_key}:{suite.secret_key}",
                     f"{suite.endpoint}/{BUCKET}/{key}"])


{"s3fs": with_s3fs, "polars": with_polars, "duckdb": with_duckdb}[CLIENT]()
