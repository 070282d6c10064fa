"""What the tests of programs in Python share: a runner speaking TAP; for those in shell, tap.sh.

    def a_rule_that_holds():
        same("status", program(), 0)

    sys.exit(run([a_rule_that_holds]))
"""
import os
import shutil
import time
import traceback

PATIENCE = 60  # seconds: bounds a failure, measures nothing


class Skip(Exception):
    """The reason why a test cannot run here."""


class Child:
    """What works beside a test, self.process: it does not outlive one that fails."""

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind:
            self.process.kill()
            self.process.communicate()


def needs(*tools):
    for tool in tools:
        if not shutil.which(tool):
            raise Skip(f"{tool} is not installed")


def same(what, left, right):
    assert left == right, f"{what}: {left!r:.1000} is not {right!r:.1000}"


def until(condition, explain=lambda: "it never came"):
    """Polls what has no event of its own: a directory in /proc."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, explain()
        time.sleep(0.002)


def find_places(default):
    """(name, directory) of each file system to stand on, see mounts.sh, or those of @default()."""
    words = os.environ.get("ONEFD_TEST_DIRS", "").split(":")
    return list(zip(words[::2], words[1::2])) or default()


def comment(text):
    print("# " + text.strip().replace("\n", "\n# "), flush=True)


def run(cases, names=()):
    """Each is a function, or (title, function, arguments...), and what it returns is a comment;
    those of @names alone, if there are any. TIMES=1: how long each took. The exit status."""
    cases = [case if isinstance(case, tuple) else (case.__name__, case) for case in cases]
    cases = [case for case in cases if not names or case[0].split()[0] in names]
    failed = False
    print(f"1..{len(cases)}", flush=True)
    for number, (title, call, *arguments) in enumerate(cases, 1):
        start = time.monotonic()
        said = None
        try:
            said = call(*arguments)
            print(f"ok {number} - {title}", flush=True)
        except Skip as reason:
            print(f"ok {number} - {title} # SKIP {reason}", flush=True)
        except Exception:  # pylint: disable=broad-except
            failed = True
            print(f"not ok {number} - {title}", flush=True)
            comment(traceback.format_exc())
        if os.environ.get("TIMES"):
            comment(f"{time.monotonic() - start:.2f} s {title}")
        if said:
            comment(said)
    return failed
