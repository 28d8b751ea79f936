"""What a user of the SDK does with a workspace; every answer is checked."""

import asyncio
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from openhands.sdk.workspace import RemoteWorkspace
from openhands.sdk.workspace.remote import AsyncRemoteWorkspace

host, key = sys.argv[1:]


def check(got, expected):
    assert got == expected, f"{got!r} is not {expected!r}"


workspace = RemoteWorkspace(host=host, api_key=key, working_dir="/tmp")
assert workspace.alive
check(workspace.get_server_info()["title"], "Trilith Agent")

# Without the key nothing works, and life is still told.
stranger = RemoteWorkspace(host=host, api_key="wrong", working_dir="/tmp")
assert stranger.alive
result = stranger.execute_command("touch /tmp/broken-into")
check(result.exit_code, -1)
assert "401" in result.stderr, result.stderr
assert not stranger.file_upload(b"x", "/tmp/broken-into").success
check(workspace.execute_command("ls /tmp/broken-into").exit_code, 2)

# Commands.
result = workspace.execute_command("echo out; echo err >&2; exit 7", cwd="/usr")
check((result.stdout, result.stderr, result.exit_code), ("out\n", "err\n", 7))
check(result.timeout_occurred, False)
check(workspace.execute_command("pwd", cwd="/usr").stdout, "/usr\n")
result = workspace.execute_command("echo before; sleep 1000", timeout=1)
check((result.stdout, result.exit_code, result.timeout_occurred), ("before\n", -1, True))
result = workspace.execute_command("kill -9 $$")
check(result.exit_code, -9)
result = workspace.execute_command("seq 1 2000000 | head -c 10000000")
expected = "".join(f"{number}\n" for number in range(1, 2000000))[:10000000]
assert result.exit_code == 0 and result.stdout == expected, len(result.stdout)
binary = bytes(range(256)) * 500
check(workspace.file_upload(binary, "/tmp/binary").success, True)
result = workspace.execute_command("cat /tmp/binary")
assert result.stdout == binary.decode("utf-8", "replace")


def run(number):
    command = f"echo {number}; echo e{number} >&2; exit {number}"
    result = workspace.execute_command(command)
    check((result.stdout, result.stderr, result.exit_code), (f"{number}\n", f"e{number}\n", number))


with ThreadPoolExecutor(200) as pool:
    list(pool.map(run, range(200)))

# Commands that are not waited for.
command = workspace.start_command("echo started; sleep 1000")
while not (output := workspace.get_command_output(command)):
    pass
check((output["stdout"], output["exit_code"]), ("started\n", None))
workspace.stop_command(command)
check(workspace.get_command_output(command)["exit_code"], -15)
workspace.stop_command(command)
workspace.stop_command("0" * 32)

# Files.
here = Path("/tmp/here")
here.write_bytes(binary * 50)
uploaded = workspace.file_upload(here, "/tmp/new/dir/there")
check((uploaded.success, uploaded.file_size, uploaded.error), (True, len(binary) * 50, None))
downloaded = workspace.file_download("/tmp/new/dir/there", "/tmp/back/again")
check((downloaded.success, downloaded.file_size), (True, len(binary) * 50))
assert Path("/tmp/back/again").read_bytes() == binary * 50
assert not workspace.file_download("/tmp/no-such-file", "/tmp/x").success
check(workspace.file_upload(b"", "/tmp/empty").file_size, 0)

# Repositories.
check(workspace.git_changes("/tmp/new"), [])
result = workspace.execute_command(
    """
    git init -q -b main repo && cd repo
    git config user.name a && git config user.email a@example.org
    printf 'old\\n' > changed; echo x > gone; echo y > 'with space'; echo z > kept
    git add . && git commit -qm first
    printf 'new\\n' > changed; rm gone; echo w > added; git mv 'with space' 'other name'
    mkdir sub && echo v > sub/é
    """,
    cwd="/tmp",
)
check((result.exit_code, result.stderr), (0, ""))
changes = [(change.status.value, str(change.path)) for change in workspace.git_changes("repo")]
expected = [
    ("ADDED", "added"),
    ("UPDATED", "changed"),
    ("DELETED", "gone"),
    ("ADDED", "other name"),
    ("ADDED", "sub/é"),
    ("DELETED", "with space"),
]
check(changes, expected)
below = [(status, f"repo/{path}") for status, path in expected]
changes = [(change.status.value, str(change.path)) for change in workspace.git_changes("/tmp")]
check(changes, below)
diff = workspace.git_diff("repo/changed")
check((diff.original, diff.modified), ("old", "new"))
diff = workspace.git_diff("repo/gone")
check((diff.original, diff.modified), ("x", ""))
diff = workspace.git_diff("repo/added")
check((diff.original, diff.modified), ("", "w"))
diff = workspace.git_diff("/tmp/binary")
check((diff.original, diff.modified), (None, None))
# Work on a branch is seen after it has been committed.
workspace.execute_command("git checkout -qb work && git add . && git commit -qm second", cwd="/tmp/repo")
changes = [(change.status.value, str(change.path)) for change in workspace.git_changes("repo")]
check(changes, expected)


async def story():
    async with AsyncRemoteWorkspace(host=host, api_key=key, working_dir="/tmp") as workspace:
        result = await workspace.execute_command("echo out; exit 3")
        check((result.stdout, result.exit_code), ("out\n", 3))
        check((await workspace.file_upload(b"async", "/tmp/async")).success, True)
        check((await workspace.file_download("/tmp/async", "/tmp/async")).file_size, 5)


asyncio.run(story())
print("the story is over")
