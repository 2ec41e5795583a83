"""barman-cloud and a PostgreSQL server: base backup and write-ahead log into the bucket, restored into another server.

Parts are uploaded side by side from processes of their own, sizes are uneven, and the objects are read back by range.
"""

import glob
import os
import pwd
import shutil
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from harness import Suite, command, same

suite = Suite("barman")
step = suite.step
BIN = sorted(glob.glob("/usr/lib/postgresql/*/bin"))[-1]
BARMAN = Path(os.environ["CLAVIGER_CLIENTS_DIR"]) / "barman" / "bin"
URL = f"s3://{suite.bucket}"
# A server does not run as root, and its user may not be allowed to read the clients' folder: the log goes through a spool.
USER = "postgres" if os.getuid() == 0 else pwd.getpwuid(os.getuid()).pw_name
home = Path(tempfile.mkdtemp(prefix="pg"))
main, restored, spool = home / "main", home / "restored", home / "spool"
spool.mkdir()
for folder in (home, spool):
    shutil.chown(folder, USER)
options = ["--cloud-provider", "aws-s3", "--endpoint-url", suite.endpoint]


def run(*arguments, **named):
    """As the server's user."""
    as_user = ["runuser", "-u", USER, "--"] if os.getuid() == 0 else []
    return command([*as_user, "env", f"PATH={BIN}:/usr/bin:/bin", f"PGHOST={home}", *map(str, arguments)], cwd=home, **named)


def barman(program, *arguments):
    env = os.environ | {"PGHOST": str(home), "PATH": f"{BIN}:{os.environ['PATH']}"}
    return command([str(BARMAN / f"barman-cloud-{program}"), *options, *map(str, arguments)], env=env)


def sql(text):
    return run("psql", "-XAtq", "-U", USER, "-d", "postgres", "-c", text).strip()


def start(folder):
    run("pg_ctl", "-D", folder, "-w", "-l", home / "server.log", "-o", f"-k {home} -c listen_addresses=", "start")


def settings(folder, lines):
    with open(folder / "postgresql.auto.conf", "a") as file:
        file.write("\n".join(lines) + "\n")


def last_backup():
    return [line.split()[0] for line in barman("backup-list", URL, "main").splitlines() if line[:8].isdigit()][-1]


def archive():
    """What the server has put into the spool goes to the bucket, compressed as barman does it."""
    for segment in sorted(spool.iterdir()):
        barman("wal-archive", "--gzip", URL, "main", segment)
        segment.unlink()


@step("a server whose write-ahead log goes to the bucket")
def _():
    command(["curl", "-sf", "-X", "PUT", "-H", "x-amz-content-sha256: UNSIGNED-PAYLOAD", "--aws-sigv4", f"aws:amz:{suite.region}:s3",
             "--user", f"{suite.access_key}:{suite.secret_key}", f"{suite.endpoint}/{suite.bucket}"])
    run("initdb", "-D", main, "-A", "trust", "-N", "-U", USER)
    settings(main, ["archive_mode = on", "wal_level = replica", "fsync = off", f"archive_command = 'cp %p {spool}/%f'"])
    start(main)
    sql("CREATE TABLE t AS SELECT n, repeat(md5(n::text), 20) AS text FROM generate_series(1, 40000) n")


@step("base backup in parts, and a change after it")
def _():
    # The end of a backup waits for its log to be archived, which the spool has done by then.
    barman("backup", "--min-chunk-size", "5MB", "-J", "2", "--immediate-checkpoint", "-h", home, "-U", USER, URL, "main")
    sql("INSERT INTO t VALUES (0, 'after the backup')")
    segment = sql("SELECT pg_walfile_name(pg_switch_wal())")
    for _ in range(60):
        if sql("SELECT coalesce(last_archived_wal, '') FROM pg_stat_archiver") >= segment:
            break
        time.sleep(0.5)
    run("pg_ctl", "-D", main, "-m", "fast", "stop")
    archive()


@step("restore into another server, replayed from the bucket to the last change")
def _():
    barman("restore", URL, "main", last_backup(), restored)
    for number in range(1, 12):
        name = f"0000000100000000{number:08X}"
        try:
            barman("wal-restore", URL, "main", name, spool / name)
        except AssertionError:
            break
    command(["chown", "-R", USER, str(restored), str(spool)])
    command(["chmod", "700", str(restored)])
    settings(restored, ["archive_mode = off", f"restore_command = 'cp {spool}/%f %p'", "recovery_target_action = 'promote'"])
    run("touch", restored / "recovery.signal")
    start(restored)
    for _ in range(60):
        if sql("SELECT pg_is_in_recovery()") == "f":
            break
        time.sleep(0.5)
    same(sql("SELECT count(*), max(length(text)) FROM t"), "40001|640", "the table")
    same(sql("SELECT text FROM t WHERE n = 0"), "after the backup", "the last change")
    run("pg_ctl", "-D", restored, "-m", "fast", "stop")


@step("a backup is deleted")
def _():
    backup = last_backup()
    barman("backup-delete", "--backup-id", backup, URL, "main")
    same(backup in barman("backup-list", URL, "main"), False, "the list")


for folder in (main, restored):
    if (folder / "postmaster.pid").exists():
        run("pg_ctl", "-D", folder, "-m", "immediate", "stop", check=False)
shutil.rmtree(home, ignore_errors=True)
