"""PostgreSQL refuses to run as root: who is root does the work as `postgres`."""

import json
import os
import pwd


def become():
    if os.getuid() == 0:
        user = pwd.getpwnam("postgres")
        os.setgroups([])
        os.setgid(user.pw_gid)
        os.setuid(user.pw_uid)
    os.environ |= {"HOME": "/nonexistent", "LC_ALL": "C", "TZ": "UTC"}


def as_ordinary_user(work):
    """Does `work` in a process of an ordinary user; answers what it answered, which has to be JSON."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        become()
        answer = work()
        with os.fdopen(writer, "w") as pipe:
            json.dump(answer, pipe)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        text = pipe.read()
    _, status = os.waitpid(child, 0)
    if status != 0 or not text:
        raise SystemExit("failed, see above")
    return json.loads(text)
