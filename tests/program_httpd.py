#!/usr/bin/env python3
"""What onefd-httpd promises, in TAP.

Usage: program_httpd.py ONEFD_HTTPD [TEST]...
"""
import os
import random
import re
import resource
import select
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from datetime import timedelta
from email.utils import formatdate, parsedate_to_datetime

from http_server import Server, request
from tap import PATIENCE, Skip, needs, run, same, until

PROGRAM = os.path.realpath(sys.argv[1])
TOP = tempfile.mkdtemp(prefix="onefd-httpd.")
ROOT = TOP + "/root"
SECRET = b"what is outside of the root\n"
MIB = 1 << 20
OLD = 1000000000  # Sun, 09 Sep 2001 01:46:40 GMT


def serve(*options, root=ROOT, **how):
    return Server(PROGRAM, root, *options, **how)


def path_of(name):
    path = os.path.join(ROOT, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    return path


def make(name, content):
    """A file of that content, or of that many random bytes."""
    if isinstance(content, int):
        content = os.urandom(content)
    path = path_of(name)
    if os.path.lexists(path):
        os.unlink(path)
    with open(path, "wb") as file:
        file.write(content)
    return content


def statuses(server, expected, *headers, **how):
    """Asks for each path of @expected; its status is that, or one of those."""
    with server.connect() as client:
        for path, status in expected.items():
            answer = client.get(path, *headers, **how)
            assert answer.status in (status if isinstance(status, tuple) else (status,)), \
                (path, answer)


# ---- files --------------------------------------------------------------------


def files_of_every_size_come_to_the_byte():
    sizes = (0, 1, 4095, 4096, 4097, 65535, 65536, 65537, 10 * MIB + 3)
    files = {f"/sizes/{size}": make(f"sizes/{size}", size) for size in sizes}
    with serve() as server, server.connect() as client:
        for path, content in [*files.items()] * 2:
            answer = client.get(path)
            same(path, (answer.status, answer["Content-Length"]), (200, str(len(content))))
            same(path, answer.body, content)
            same(path, server.get(path).body, content)


def curl_gets_them_too():
    needs("curl")
    files = {f"/curl/{size}": make(f"curl/{size}", size) for size in (0, 70000, 5 * MIB)}
    with serve() as server:
        for path, content in files.items():
            for options in ([], ["--http1.0"], ["--compressed"]):
                url = f"http://127.0.0.1:{server.port}{path}"
                got = subprocess.run(["curl", "-fsS", *options, url], check=True,
                                     timeout=PATIENCE, stdout=subprocess.PIPE).stdout
                same(path, got, content)
        path, content = [*files.items()][-1]
        got = subprocess.run(
            ["curl", "-fsS", "-r", "100-2000000", f"http://127.0.0.1:{server.port}{path}"],
            check=True, timeout=PATIENCE, stdout=subprocess.PIPE).stdout
        same(path, got, content[100:2000001])


def head_is_the_get_without_its_body():
    make("head", 70000)
    make("some/index.html", b"index")
    os.makedirs(path_of("empty") + "/x", exist_ok=True)
    with serve() as server, server.connect() as client:
        for path, headers in (("/head", ()), ("/none", ()), ("/some", ()), ("/some/", ()),
                              ("/empty/", ()), ("/head", ('If-Match: "x"',)), ("/head", ("If-None-Match: *",))):
            got, head = (client.get(path, *headers, method=method) for method in ("GET", "HEAD"))
            same(path, head.status, got.status)
            same(path, *([h for h in a.headers if h[0] != "date"] for a in (head, got)))
        # A range is GET's alone.
        same("range", client.get("/head", "Range: bytes=5-9", method="HEAD").status, 200)


def connection_stays_unless_it_is_to_close():
    content = make("kept", 3000)
    with serve() as server:
        for version, header, stays in (("1.1", "X: y", True), ("1.1", "Connection: close", False),
                                       ("1.0", "X: y", False)):
            with server.connect() as client:
                for _ in range(3 if stays else 1):
                    same(version, client.get("/kept", header, version=version).body, content)
                    same(version, client.get("/none", header, version=version).status, 404) \
                        if stays else None
                if not stays:
                    assert client.ended(), (version, header)
        large = make("kept-large", 600 << 10)
        for headers in (("close",), ("keep-alive", "close"), ("close", "keep-alive"),
                        ("keep-alive, close",)):
            with server.connect() as client:
                answer = client.get("/kept-large", *(f"Connection: {header}" for header in headers))
                same(headers, (answer["Connection"], answer.body == large), ("close", True))
                assert client.ended(), headers
        with server.connect() as client:
            same("1.0", client.get("/none", version="1.0").status, 404)
            assert client.ended()


def hundred_requests_in_one_packet_are_answered_in_order():
    files = [make(f"piped/{i}", i * 37) for i in range(50)]
    with serve() as server, server.connect() as client:
        client.send(b"".join(request(f"/piped/{i % 50}") if i % 10 else request("/none")
                             for i in range(100)))
        for i in range(100):
            answer = client.answer()
            if i % 10:
                same(i, (answer.status, answer.body), (200, files[i % 50]))
            else:
                same(i, answer.status, 404)


def requests_come_in_any_pieces():
    content = make("pieces", 100)
    with serve() as server, server.connect() as client:
        for byte in request("/pieces", "X-Long: " + "x" * 300):
            client.send(bytes([byte]))
        same("bytes", client.answer().body, content)
        client.send(request("/pieces") + b"GET /pie")
        same("one and a half", client.answer().body, content)
        client.send(b"ces HTTP/1.1\r\nHost: x\r\n\r\n")
        same("the rest", client.answer().body, content)


def requests_around_large_ones_come_in_any_pieces():
    """Those that came with the request of a large file are answered behind it."""
    files = {name: make(f"around/{name}", size)
             for name, size in (("large", 600 << 10), ("huge", 3 * MIB), ("small", 100))}
    headers = ("X-Y: z", "Connection: keep-alive", "Content-Length: 0", "Range: bytes=0-",
               "X-Long: " + "x" * 900)
    chance = random.Random(11)
    with serve() as server:
        for _ in range(40):
            names = chance.choices([*files], k=chance.randrange(1, 9))
            stream, ends = b"", []
            for name in names:
                stream += chance.choice((b"", b"", b"\r\n"))
                stream += request(f"/around/{name}", *chance.choices(headers, k=chance.randrange(2)))
                ends.append(len(stream))
            with server.connect() as client:
                sent = answered = 0
                while answered < len(names):
                    piece = stream[sent:sent + chance.choice((1, 40, 100, 1000, len(stream)))]
                    if piece:
                        client.send(piece)
                    sent += len(piece)
                    while answered < len(names) and ends[answered] <= sent and \
                            (sent == len(stream) or chance.random() < 0.5):
                        same(names, client.answer().body == files[names[answered]], True)
                        answered += 1
                same("behind", client.get("/none").status, 404)
        server.wait_idle()


def host_is_asked_for():
    make("host", 10)
    with serve() as server:
        with server.connect() as client:
            client.send(b"GET /host HTTP/1.1\r\n\r\n")
            same("without", client.answer().status, 400)
        same("1.0", server.get("/host", version="1.0").status, 200)


# ---- ranges -------------------------------------------------------------------


def single_range_is_answered_by_206():
    content = make("range", 100000)
    with serve() as server, server.connect() as client:
        same("says so", client.get("/range")["Accept-Ranges"], "bytes")
        for spec, first, last in (("0-0", 0, 0), ("0-99999", 0, 99999), ("0-", 0, 99999),
                                  ("99999-99999", 99999, 99999), ("99999-", 99999, 99999),
                                  ("500-70000", 500, 70000), ("99990-200000", 99990, 99999),
                                  ("5-99999999999999999999999", 5, 99999),
                                  ("-1", 99999, 99999), ("-100000", 0, 99999),
                                  ("-200000", 0, 99999)):
            answer = client.get("/range", f"Range: bytes={spec}")
            same(spec, (answer.status, answer["Content-Range"]),
                 (206, f"bytes {first}-{last}/100000"))
            same(spec, answer.body, content[first:last + 1])
        same("unit", client.get("/range", "Range: BYTES=1-2").status, 206)


def range_behind_the_end_is_answered_by_416():
    make("range", 100000)
    make("nothing", 0)
    with serve() as server, server.connect() as client:
        for path, size, spec in (("/range", 100000, "100000-"), ("/range", 100000, "100001-100002"),
                                 ("/range", 100000, "-0"), ("/nothing", 0, "0-"),
                                 ("/range", 100000, "99999999999999999999999-")):
            answer = client.get(path, f"Range: bytes={spec}")
            same(spec, (answer.status, answer["Content-Range"]), (416, f"bytes */{size}"))


def range_that_is_none_or_several_is_the_whole():
    content = make("range", 100000)
    with serve() as server, server.connect() as client:
        for value in ("bytes=5-4", "bytes=", "bytes=-", "bytes=a-b", "bytes=1", "bytes=1-2x",
                      "lines=1-2", "bytes", "=1-2", "bytes=--1", "bytes=+1-2", "bytes=0x1-2",
                      "bytes=1-2-3", "bytes=1 -2",
                      "bytes=0-0,5-9", "bytes=0-0,-1", "bytes=" + ",".join("0-" for _ in range(500))):
            answer = client.get("/range", f"Range: {value}")
            same(value, (answer.status, answer["Content-Range"]), (200, None))
            same(value, answer.body, content)


# ---- conditions ----------------------------------------------------------------


def dated(name, size=1000, when=OLD):
    content = make(name, size)
    os.utime(path_of(name), (when, when))
    return content


def tag_changes_with_the_file():
    dated("tag")
    with serve() as server, server.connect() as client:
        tag = client.get("/tag")["ETag"]
        assert re.fullmatch(r'"[^"]+"', tag), tag
        same("again", client.get("/tag")["ETag"], tag)
        os.utime(path_of("tag"), ns=(OLD * 10**9, OLD * 10**9 + 1))
        other = client.get("/tag")["ETag"]
        assert other != tag, "a nanosecond later"
        dated("tag", 1001)
        assert client.get("/tag")["ETag"] not in (tag, other)


def if_none_match_and_if_match():
    content = dated("tag")
    with serve() as server, server.connect() as client:
        tag = client.get("/tag")["ETag"]
        for value, hit in ((tag, True), ("*", True), (f'"x", {tag}', True), (f'{tag},"x"', True),
                           (f"W/{tag}", True), ('"x"', False), (f'"a,{tag[1:]}', False)):
            for method in ("GET", "HEAD"):
                answer = client.get("/tag", f"If-None-Match: {value}", method=method)
                same(value, answer.status, 304 if hit else 200)
                same(value, answer["ETag"], tag)
            same(value, client.get("/tag", f"If-Match: {value}").status,
                 200 if hit and not value.startswith("W/") else 412)
        same("no file", client.get("/none", "If-None-Match: *").status, 404)
        # The tag is the better witness: the date is not looked at.
        same("both", client.get("/tag", 'If-None-Match: "x"',
                                f"If-Modified-Since: {formatdate(OLD, usegmt=True)}").body, content)
        same("both", client.get("/tag", f"If-Match: {tag}",
                                f"If-Unmodified-Since: {formatdate(OLD - 9, usegmt=True)}").status, 200)
        # A range is looked at only when the file is what was asked for.
        same("range", client.get("/tag", "Range: bytes=0-1", f"If-None-Match: {tag}").status, 304)
        same("range", client.get("/tag", "Range: bytes=0-1", 'If-Match: "x"').status, 412)


def three_forms(when):
    """The dates of RFC 9110: IMF-fixdate, RFC 850, asctime."""
    day = time.gmtime(when)
    return (formatdate(when, usegmt=True), time.strftime("%A, %d-%b-%y %H:%M:%S GMT", day),
            time.strftime("%a %b ", day) + f"{day.tm_mday:2}" + time.strftime(" %H:%M:%S %Y", day))


def if_modified_since_and_if_unmodified_since():
    dated("dated")
    with serve() as server, server.connect() as client:
        answer = client.get("/dated")
        same("Last-Modified", answer["Last-Modified"], "Sun, 09 Sep 2001 01:46:40 GMT")
        now = parsedate_to_datetime(answer["Date"]).timestamp()
        assert abs(now - time.time()) < PATIENCE, answer
        for when, modified, unmodified in ((OLD, 304, 200), (OLD - 1, 200, 412),
                                           (OLD + 1, 304, 200), (OLD + 400000000, 304, 200)):
            for date in three_forms(when):
                same(date, client.get("/dated", f"If-Modified-Since: {date}").status, modified)
                same(date, client.get("/dated", f"If-Unmodified-Since: {date}").status, unmodified)
        for date in ("yesterday", "", "Sun, 09 Sep 2001 01:46:40", "Sun, 99 Sep 2001 01:46:40 GMT",
                     "Sun, 09 Sep 2001 01:46:40 GMT" * 20, "1000000000"):
            same(date, client.get("/dated", f"If-Modified-Since: {date}").status, 200)
            same(date, client.get("/dated", f"If-Unmodified-Since: {date}").status, 200)


def if_range():
    content = dated("ranged")
    with serve() as server, server.connect() as client:
        tag = client.get("/ranged")["ETag"]
        for value, part in ((tag, True), (formatdate(OLD, usegmt=True), True), ('"x"', False),
                            (f"W/{tag}", False), (formatdate(OLD - 1, usegmt=True), False),
                            (formatdate(OLD + 1, usegmt=True), False), ("nonsense", False)):
            answer = client.get("/ranged", "Range: bytes=10-19", f"If-Range: {value}")
            same(value, (answer.status, answer.body),
                 (206, content[10:20]) if part else (200, content))
        same("beyond", client.get("/ranged", "Range: bytes=1000-", f"If-Range: {tag}").status, 416)
        same("another's", client.get("/ranged", "Range: bytes=1000-", 'If-Range: "x"').status, 200)


# ---- names and types -------------------------------------------------------------


def date_that_is_to_come_is_none():
    """It is sent as now; no range holds by it, nor by a second that is not over."""
    make("future", 100)
    os.utime(path_of("future"), (4000000000, 4000000000))
    with serve() as server:
        answer = server.get("/future")
        assert parsedate_to_datetime(answer["Last-Modified"]) <= \
            parsedate_to_datetime(answer["Date"]) + timedelta(seconds=1), answer
        whole = server.get("/future", "Range: bytes=0-0", "If-Range: " + formatdate(4000000000, usegmt=True))
        same("a range by a date to come", (whole.status, len(whole.body)), (200, 100))


def content_types():
    types = {"a.html": "text/html", "a.css": "text/css", "a.png": "image/png", "a.HTML": "text/html",
             "a.jpg": "image/jpeg", "a.json": "application/json", "a.svg": "image/svg+xml",
             "a.b.txt": "text/plain", "a": "application/octet-stream",
             "html": "application/octet-stream", "a.nobodyknows": "application/octet-stream"}
    for name in types:
        make(f"types/{name}", 10)
    with serve() as server, server.connect() as client:
        for name, kind in types.items():
            said = client.get(f"/types/{name}")["Content-Type"] or "application/octet-stream"
            same(name, said.split(";")[0], kind)


def types_of_a_file():
    make("types/a.one", 10)
    make("types/a.two", 10)
    make("types/a.html", 10)
    with open(TOP + "/types", "w", encoding="ascii") as file:
        file.write("# a comment\n\ntext/x-both one two # one more\napplication/x-none\n")
    with serve(f"--types={TOP}/types") as server, server.connect() as client:
        for name in ("one", "two"):
            same(name, client.get(f"/types/a.{name}")["Content-Type"].split(";")[0], "text/x-both")


def directories():
    index, start = make("dir/index.html", 100), make("dir/start", 50)
    os.makedirs(path_of("dir/without") + "/x", exist_ok=True)
    make("dir/without/file", 10)
    with serve() as server, server.connect() as client:
        answer = client.get("/dir")
        same("slash", answer.status, 301)
        assert answer["Location"].endswith("/dir/"), answer
        assert client.get("/dir?a=b")["Location"].split("?")[0].endswith("/dir/")
        answer = client.get("/dir/")
        same("index", (answer.status, answer.body), (200, index))
        same("its type", answer["Content-Type"].split(";")[0], "text/html")
        same("without", client.get("/dir/without/").status, 403)
        same("without", client.get("/dir/without").status, 301)
        same("a file with a slash", client.get("/dir/start/").status, 404)
        same("below a file", client.get("/dir/start/x").status, 404)
    with serve("--index=start") as server:
        same("--index", server.get("/dir/").body, start)


def redirect_names_this_server_alone():
    """//host/path would name another; a line break would be a header more."""
    for name in ("evil.example", "a\r\nX-Evil: 1", "a b", "50%", "q?", "#h", "ä"):
        os.makedirs(path_of(name), exist_ok=True)
    with serve() as server:
        for path in ("//evil.example", "///evil.example", "/%2fevil.example", "/.//evil.example",
                     "//evil.example/..//evil.example", "/\\evil.example",
                     "/a%0d%0aX-Evil:%201", "/a%20b", "/50%25", "/q%3f", "/%23h", "/%c3%a4"):
            with server.connect() as client:
                answer = client.get(path)
                place = answer["Location"] or "/"
                assert re.fullmatch(r"(http://localhost)?/([!-~]*/)?", place), (path, answer)
                assert not re.match(r"(http://localhost)?//|.*[\\ ]", place), (path, answer)
                assert answer["X-Evil"] is None, answer
                if path.startswith("/q") or path.startswith("/%23") or path.startswith("/50"):
                    same(path, client.get(place).status, 403)


def percent_is_decoded_once():
    with serve() as server:
        for path, name in (("/na%20me", "na me"), ("/%61%62c", "abc"), ("/p%2541", "p%41"),
                           ("/%e2%82%ac", "€"), ("/%E2%82%AC", "€"), ("/a+b", "a+b"),
                           ("/q%3Fx", "q?x"), ("/h%23", "h#"), ("/name?query=1&x=%2e%2e", "name"),
                           ("/name?", "name"), ("/%5cx", "\\x"), ("/%c3%28", b"\xc3(")):
            content = make(os.fsdecode(name), 30)
            answer = server.get(path)
            same(path, (answer.status, answer.body), (200, content))
        for path in ("/%", "/%4", "/%zz", "/a%2", "/%-1"):
            assert server.get(path).status in (400, 404), path


# ---- what is refused ---------------------------------------------------------------


def other_methods_are_answered_by_405():
    make("file", 10)
    with serve() as server:
        for method in ("POST", "PUT", "DELETE", "OPTIONS", "PATCH", "BREW"):
            with server.connect() as client:
                answer = client.get("/file", "Content-Length: 0", method=method)
                same(method, answer.status, 405)
                same(method, {word.strip() for word in answer["Allow"].split(",")}, {"GET", "HEAD"})
        with server.connect() as client:
            client.send(request("/file", "Content-Length: 100000", method="POST") + b"x" * 100000)
            same("with a body", client.answer().status, 405)
        same("afterwards", server.get("/file").status, 200)


def what_is_no_request_is_answered_by_400_or_the_end():
    make("file", 10)
    with serve() as server:
        for text in (b"\0\0\0\0\r\n\r\n", b"GET\r\n\r\n", b"GET /file HTTP/9.9\r\nHost: x\r\n\r\n",
                     b"GET file HTTP/1.1\r\nHost: x\r\n\r\n", b"NONSENSE\r\n\r\n",
                     b"GET /file HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n",
                     b"GET /%00 HTTP/1.1\r\nHost: x\r\n\r\n",
                     b"GET /file%00.html HTTP/1.1\r\nHost: x\r\n\r\n",
                     b"GET /file HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n",
                     b"GET /file HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
                     b"POST /file HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"):
            with server.connect() as client:
                client.send(text)
                client.socket.shutdown(socket.SHUT_WR)
                said = client.file.read()
                assert not said or re.match(rb"HTTP/1\.[01] (4\d\d|505|501) ", said), (text, said)
        same("afterwards", server.get("/file").status, 200)


def request_that_two_may_read_in_two_ways_is_refused_and_the_last():
    """What lies behind it is no request: it may be the body, as another in the way sees it."""
    make("file", 10)
    inner = request("/file")
    with serve() as server:
        for headers in ((f"Content-Length: {len(inner)}", "Transfer-Encoding: chunked"),
                        ("Content-Length: 0", f"Content-Length: {len(inner)}"),
                        ("Transfer-Encoding : chunked",), ("Content-Length\t: 5",),
                        ("Transfer-Encoding: chunked", "Transfer-Encoding: identity"),
                        ("Transfer-Encoding: identity",), ("Transfer-Encoding: xchunked",),
                        ("Host: another",)):
            for method in ("GET", "POST"):
                with server.connect() as client:
                    client.send(request("/file", *headers, method=method) + b"0\r\n\r\n" + inner)
                    answer = client.answer()
                    same(headers, (answer.status, answer["Connection"]), (400, "close"))
                    assert client.ended(), headers


def huge_requests_are_refused():
    make("file", 10)
    with serve() as server:
        for text in (request("/" + "x" * 1000000), request("/file", "X: " + "x" * 1000000),
                     request("/file", *(f"X-{i}: x" for i in range(50000))), b"G" * 1000000,
                     request("/file")[:-2] + b"X: y" + b" " * 1000000):
            with server.connect() as client:
                try:
                    client.send(text)
                    status = client.head()[0]
                    assert status in (400, 414, 431), (text[:50], status)
                    assert client.file.read() is not None
                except ConnectionError:
                    pass
        path = "/" + "x" * 3000
        assert server.get(path).status in (404, 414), "a component too long"
        assert server.get("/x" * 1500).status in (404, 414)
        server.wait_idle()
        same("afterwards", server.get("/file").status, 200)


def what_is_too_long_by_a_little_keeps_no_memory():
    """libmicrohttpd refuses it between the first line and the headers, when its memory is full."""
    make("file", 10)

    def ask_all():
        for length in range(7800, 8200, 4):
            for _ in range(20):
                with server.connect() as client:
                    client.send(request("/file?" + "x" * length))
        server.wait_idle()

    # A sanitizer would keep what was freed.
    sanitizer = os.environ.get("ASAN_OPTIONS", "") + ":quarantine_size_mb=1"
    with serve(env={**os.environ, "ASAN_OPTIONS": sanitizer}) as server:
        ask_all()
        before = server.memory()
        ask_all()
        assert server.memory() - before < 2 * MIB, server.memory() - before


TRAVERSALS = (
    "/../secret", "/../../../../../../../../etc/passwd", "/..", "/../", "/dir/../../secret",
    "/..%2fsecret", "/..%2Fsecret", "/%2e%2e/secret", "/%2e%2e%2fsecret", "/.%2e/secret",
    "/%2E./secret", "/dir/%2e%2e/%2e%2e/secret", "//../secret", "/./../secret", "/dir/./../../secret",
    "/dir//../..//secret", "/..%5csecret", "/..\\secret", "/%2e%2e%5csecret", "/%252e%252e/secret",
    "/..%252fsecret", "/%c0%ae%c0%ae/secret", "/%c0%ae%c0%ae%c0%afsecret", "/..;/secret",
    "//etc/passwd", "///etc/passwd", "/%2fetc/passwd", "/%2fetc%2fpasswd", "/.//etc/passwd",
    "/..%00/secret", "/%00/../secret", "/../secret%00", "/..?/../secret", "/dir/..%2f..%2fsecret",
    "/.../secret", "/proc/self/environ", "/dir/up/secret", "http://localhost/../secret")


def nothing_outside_of_the_root_is_served(*options):
    make("dir/index.html", b"index")
    with open(TOP + "/secret", "wb") as file:
        file.write(SECRET)
    outside = [SECRET.strip(), b"root:x:0"]
    with serve(*options) as server:
        for path in (*TRAVERSALS, TOP + "/secret", "/" + TOP + "/secret", "/%2f" + TOP + "/secret"):
            with server.connect() as client:
                answer = client.get(path)
                assert not any(text in answer.body for text in outside), (path, answer)
                assert answer.status in (200, 301, 400, 403, 404), (path, answer)
                if answer.status == 200:
                    same(path, answer.body, b"index")


def nothing_outside_of_the_root_is_served_with_follow():
    nothing_outside_of_the_root_is_served("--follow")


def link(target, name):
    path = path_of(name)
    if os.path.lexists(path):
        os.unlink(path)
    os.symlink(target, path)


def symlinks():
    content = make("links/file", 100)
    make("links/dir/index.html", b"index")
    with open(TOP + "/secret", "wb") as file:
        file.write(SECRET)
    os.makedirs(TOP + "/outside", exist_ok=True)
    with open(TOP + "/outside/file", "wb") as file:
        file.write(SECRET)
    link("file", "links/in")
    link("dir", "links/indir")
    link("../../secret", "links/out")
    link(TOP + "/secret", "links/absolute")
    link(TOP + "/outside", "links/outdir")
    link("dangling", "links/nowhere")
    link("loop", "links/loop")
    link("../file", "links/dir/link")
    with serve() as server:
        statuses(server, {f"/links/{name}": 403 for name in (
            "in", "indir", "indir/", "indir/index.html", "out", "absolute", "outdir",
            "outdir/file", "nowhere", "loop", "dir/link")})
        same("beside", server.get("/links/file").body, content)
    with serve("--follow") as server:
        for name, expected in (("in", content), ("indir/", b"index"), ("out", SECRET),
                               ("absolute", SECRET), ("outdir/file", SECRET), ("dir/link", content)):
            answer = server.get(f"/links/{name}")
            same(name, (answer.status, answer.body), (200, expected))
        statuses(server, {"/links/nowhere": 404, "/links/indir": 301, "/links/loop": (403, 404)})


def special_files_are_refused_without_a_wait():
    content = make("special/file", 10)
    os.mkfifo(path_of("special/fifo"))
    made = ["fifo", "socket", "linked"]
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path_of("special/socket"))
        try:
            os.mknod(path_of("special/zero"), 0o666 | stat.S_IFCHR, os.makedev(1, 5))
            made.append("zero")
        except PermissionError:
            pass
        link("/dev/zero", "special/linked")
        for options in ((), ("--follow",)):
            with serve(*options) as server, server.connect() as client:
                for name in made * 20:
                    same(name, client.get(f"/special/{name}").status, 403)
                same("fifo/", server.get("/special/fifo/").status, 404)
                same("beside", client.get("/special/file").body, content)


def file_that_may_not_be_read_is_refused():
    make("secret/file", 10)
    make("secret/closed/file", 10)
    content = make("secret/open", 10)
    os.chmod(path_of("secret/file"), 0)
    os.chmod(path_of("secret/closed"), 0)
    os.chmod(TOP, 0o755)
    nobody = {}
    if os.geteuid() == 0:
        nobody = {"user": 65534, "group": 65534, "extra_groups": []}
        if subprocess.run(["test", "-x", PROGRAM], check=False, **nobody).returncode != 0:
            raise Skip("the program is where only root can run it")
    with serve(**nobody) as server:
        statuses(server, {"/secret/file": 403, "/secret/closed/file": 403, "/secret/closed/": 403})
        same("beside", server.get("/secret/open").body, content)
    os.chmod(path_of("secret/closed"), 0o755)


# ---- files that change ---------------------------------------------------------------


def begin_download(server, path):
    """A download whose client has read the headers, and no more."""
    client = server.connect(receive_buffer=4096)
    client.ask(path)
    status, headers = client.head()
    same(path, status, 200)
    return client, int(dict(headers)["content-length"])


def file_that_shrinks_ends_its_connection():
    content = make("shrinks", 40 * MIB)
    with serve() as server:
        client, _ = begin_download(server, "/shrinks")
        with client:
            os.truncate(path_of("shrinks"), MIB)
            try:
                got = client.file.read()
            except ConnectionError:
                got = b""
            assert len(got) < len(content) and got == content[:len(got)], len(got)
        same("now", server.get("/shrinks").body, content[:MIB])
        server.wait_idle()


def file_that_grows_is_sent_as_it_was_promised():
    content = make("grows", 20 * MIB)
    with serve() as server:
        client, length = begin_download(server, "/grows")
        with client, open(path_of("grows"), "ab") as file:
            file.write(b"more" * MIB)
            file.flush()
            same("body", client.file.read(length), content)
            same("next", client.get("/none").status, 404)


def file_that_is_replaced_is_sent_to_its_end():
    content = make("replaced", 20 * MIB)
    with serve() as server:
        client, length = begin_download(server, "/replaced")
        with client:
            make("new", 1000)
            os.rename(path_of("new"), path_of("replaced"))
            same("body", client.file.read(length), content)
            same("next", len(client.get("/replaced").body), 1000)


# ---- clients -----------------------------------------------------------------------


def client_that_does_not_read_holds_up_nobody_and_little():
    make("large", 64 * MIB)
    content = make("small", 1000)
    with serve("--timeout=86400") as server:
        same("at first", server.get("/small").body, content)
        before = server.memory()
        stuck = [begin_download(server, "/large")[0] for _ in range(20)]
        for _ in range(50):
            same("beside", server.get("/small").body, content)
        server.wait_for(requests=20)
        counters = server.counters()
        assert counters["bytes"] <= 20 * 2 * MIB, counters
        assert server.memory() - before < 60 * MIB, server.memory() - before
        for client in stuck:
            client.reset()
        server.wait_idle()


def downloads_that_nobody_reads_make_no_small_file_wait():
    """Of 16 files that may be open, 12 are for large ones: the others of those wait for them."""
    large = make("large", 32 * MIB)
    make("small", 1000)

    def limit():
        resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))

    with serve(preexec_fn=limit) as server:
        stalled = [server.connect(receive_buffer=4096) for _ in range(30)]
        for client in stalled:
            client.ask("/large")
        server.wait_for(requests=30, bytes=12 * 64 * 1024)
        for _ in range(20):
            same("small", server.get("/small").status, 200)
        same("head of a large", server.get("/large", method="HEAD").status, 200)
        same("end of a large", server.get("/large", "Range: bytes=-10").body, large[-10:])
        for client in stalled[:20]:
            client.reset()
        server.wait_for(requests=10)
        same("those that waited", stalled[-1].answer().body == large, True)
        for client in stalled[20:]:
            client.close()
        server.wait_idle()


def downloads_that_nobody_reads_make_no_large_file_wait():
    """More than the loop has polls."""
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 2048:
        raise Skip("too few descriptors for so many large files")
    large = make("large", 8 * MIB)
    with serve() as server:
        stalled = [server.connect(receive_buffer=4096) for _ in range(300)]
        for client in stalled:
            client.ask("/large")
        for client in stalled:
            client.head()
        for _ in range(3):
            same("large", server.get("/large").body == large, True)
        for client in stalled:
            client.reset()
        server.wait_idle()


def large_file_leaves_nothing_behind():
    """Neither while its connection is idle, nor to end that when its timeout would have come."""
    large = make("large", MIB)
    with serve("--timeout=1") as server:
        with server.connect() as first:
            for _ in range(2):  # the second is sent on what has been given back
                same("large", first.get("/large").body == large, True)
            server.wait_for(connections=1)
        clients = [server.connect() for _ in range(20)]
        for client in clients:
            same("large", client.get("/large").body == large, True)
        server.wait_for(connections=20, requests=0)
        end = time.monotonic() + 1.5
        while time.monotonic() < end:
            for client in clients:
                same("status", client.get("/large", method="HEAD").status, 200)
        for client in clients:
            client.close()
        server.wait_idle()


def client_that_does_not_read_is_hung_up_on():
    make("large", 64 * MIB)
    with serve("--timeout=1") as server:
        server.get("/large")
        server.wait_idle()
        before = server.descriptors()
        client, length = begin_download(server, "/large")
        server.wait_idle()
        until(lambda: server.descriptors() == before)
        with client:
            try:
                assert len(client.file.read()) < length
            except ConnectionError:
                pass


def client_that_reads_slowly_gets_it_all():
    content = make("slowly", 3 * MIB)
    with serve("--timeout=1") as server:
        client, length = begin_download(server, "/slowly")
        with client:
            got = b""
            while len(got) < length:
                got += client.file.read(length // 20)
                select.select([], [], [], 0.1)  # twice the timeout, in all
            same("body", got, content)


def clients_that_hang_up_midway_cost_nothing():
    make("large", 64 * MIB)
    content = make("small", 1000)
    with serve() as server, server.connect() as other:
        other.get("/small")
        server.wait_idle(connections=1)
        before = server.descriptors()
        for length in (0, 1, 10000, 3000000):
            for i in range(8):
                client = server.connect()
                client.ask("/large")
                if length:
                    client.file.read(length)
                if i % 2:
                    client.reset()
                else:
                    client.close()
        same("beside", other.get("/small").body, content)
        server.wait_idle(connections=1)
        until(lambda: server.descriptors() == before)


def client_that_says_no_more_is_answered_and_let_go():
    """The end comes right behind the request, or behind many: each time at another moment."""
    contents = [make(f"last/{i}", 1000 + i) for i in range(30)]
    with serve("--timeout=86400") as server:
        for i in range(400):
            count = 1 if i % 20 else 30
            with server.connect() as client:
                client.send(b"".join(request(f"/last/{j}") for j in range(count)))
                client.socket.shutdown(socket.SHUT_WR)
                for j in range(count):
                    same(j, client.answer().body, contents[j])
                assert client.ended()
        server.wait_idle()


def half_a_request_and_an_idle_connection_are_hung_up_on():
    make("small", 1000)
    with serve("--timeout=1") as server:
        clients = [server.connect() for _ in range(4)]
        clients[1].send(b"GET /small HTT")
        clients[2].send(b"GET /small HTTP/1.1\r\nHost: x\r\n")
        clients[3].get("/small")
        for client in clients:
            try:
                said = client.file.read()
            except ConnectionError:
                said = b""
            assert not said or said.startswith(b"HTTP/1.1 408"), said
        server.wait_idle()


def bytes_of_a_request_that_trickle_in_do_not_keep_it_up():
    """The time is that of the whole request, or a byte a second would hold a place for ever."""
    with serve("--timeout=1") as server, server.connect() as client:
        client.send(b"GET /x HTTP/1.1\r\nHost: x\r\n")
        end = time.monotonic() + 10
        try:
            while client.silent(0.2):
                assert time.monotonic() < end, "it is still there"
                client.send(b"X: y\r\n")
        except ConnectionError:
            pass


# ---- limits -----------------------------------------------------------------------


def more_connections_than_allowed_wait_their_turn():
    content = make("small", 1000)
    with serve("--connections=2", "--timeout=86400") as server:
        first = [server.connect() for _ in range(2)]
        for client in first:
            same("first", client.get("/small").body, content)
        third = server.connect()
        third.ask("/small")
        for _ in range(20):
            same("beside", first[0].get("/small").body, content)
        assert third.silent()
        first[1].close()
        same("third", third.answer().body, content)
        first[0].close()
        third.close()


def no_descriptor_left_is_no_reason_to_spin():
    content = make("small", 1000)
    with serve("--timeout=86400") as server:
        same("at first", server.get("/small").body, content)
        server.wait_idle()
        server.allow_descriptors(3)
        clients = [server.connect() for _ in range(10)]
        for client in clients:
            client.ask("/small")
        before = server.cpu()
        select.select([], [], [], 0.5)
        assert server.cpu() - before < 0.25, "it spins"
        # Each that goes makes room for another, whatever the first ones were told.
        waiting = list(clients)
        while waiting:
            ready = select.select([client.socket for client in waiting], [], [], PATIENCE)[0]
            assert ready, f"{len(waiting)} are never answered"
            for client in [client for client in waiting if client.socket in ready]:
                try:
                    answer = client.answer()
                    assert answer.status == 503 or answer.body == content, answer
                except ConnectionError:
                    pass
                client.close()
                waiting.remove(client)
        server.wait_idle()
        same("afterwards", server.get("/small").body, content)


# ---- signals and the log ---------------------------------------------------------------

COMBINED = re.compile(
    rb'(\S+) \S+ \S+ \[(\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4})\] '
    rb'"((?:[^"\\]|\\.)*)" (\d{3}) (\d+|-) "((?:[^"\\]|\\.)*)" "((?:[^"\\]|\\.)*)"\n')


def lines_of(path):
    with open(path, "rb") as file:
        return file.readlines()


def log_has_a_line_for_each_request():
    make("small", 1000)
    log = TOP + "/log"
    with serve(f"--log={log}") as server, server.connect() as client:
        client.get("/small", "User-Agent: tester/1", "Referer: http://x/y")
        client.get("/none?a=b")
        client.get("/small", "Range: bytes=0-9")
        client.get("/small", method="HEAD")
        client.get("/small", "If-None-Match: *")
        until(lambda: len(lines_of(log)) == 5)
        said = [COMBINED.fullmatch(line) for line in lines_of(log)]
        assert all(said), lines_of(log)
        same("fields", said[0].group(1, 3, 4, 5, 6, 7),
             (b"127.0.0.1", b"GET /small HTTP/1.1", b"200", b"1000", b"http://x/y", b"tester/1"))
        same("fields", said[1].group(3, 4, 5, 6, 7),
             (b"GET /none?a=b HTTP/1.1", b"404", b"14", b"-", b"-"))
        same("range", said[2].group(4, 5), (b"206", b"10"))
        same("head", said[3].group(3, 4), (b"HEAD /small HTTP/1.1", b"200"))
        assert said[3][5] in (b"0", b"-"), said[3]
        same("none", said[4][4], b"304")
        when = time.mktime(time.strptime(said[0][2][:20].decode(), "%d/%b/%Y:%H:%M:%S"))
        assert abs(when - time.time()) < 86400 + PATIENCE, said[0]
    same("at the end", len(lines_of(log)), 5)


def log_line_cannot_be_forged():
    make("small", 1000)
    log = TOP + "/forged"
    with serve(f"--log={log}") as server:
        for text in (b'GET /"quoted" HTTP/1.1\r\nHost: x\r\n\r\n',
                     b"GET /\x1b[31m HTTP/1.1\r\nHost: x\r\n\r\n",
                     b"GET /small HTTP/1.1\r\nHost: x\r\nUser-Agent: a\" 200 1 \"\x1b\x7f\x01\r\n\r\n",
                     b"GET /small HTTP/1.1\r\nHost: x\r\nReferer: back\\\"slash\\\r\n\r\n",
                     b"GET /small HTTP/1.1\r\nHost: x\r\nUser-Agent: a\r\n 1.2.3.4 - - folded\r\n\r\n",
                     b"GET /%0a1.2.3.4%20-%20- HTTP/1.1\r\nHost: x\r\n\r\n",
                     b"GET /\xff\xfe\x80 HTTP/1.1\r\nHost: x\r\nUser-Agent: \xc2\x85\r\n\r\n",
                     b"BR\x01EW /small HTTP/1.1\r\nHost: x\r\n\r\n"):
            with server.connect() as client:
                client.send(text)
                client.socket.shutdown(socket.SHUT_WR)
                client.file.read()
        with server.connect() as client:
            client.get("/small", "User-Agent: last")
        until(lambda: any(b'"last"' in line for line in lines_of(log)))
    for line in lines_of(log):
        assert COMBINED.fullmatch(line) and not re.search(rb"[\0-\x09\x0b-\x1f\x7f]", line), line
    assert len(lines_of(log)) >= 5, lines_of(log)


def log_to_a_pipe_that_nobody_reads_holds_up_nobody():
    content = make("small", 1000)
    with serve("--log=-", drain=False) as server, server.connect() as client:
        for _ in range(100):
            client.send(request("/small", "User-Agent: " + "x" * 500) * 20)
            for _ in range(20):
                same("body", client.answer().body, content)
        assert server.memory() < 200 * MIB
        before = server.cpu()
        select.select([], [], [], 0.3)
        assert server.cpu() - before < 0.15, "it spins"
        server.process.terminate()
        same("its end", server.process.wait(timeout=PATIENCE), 0)


def log_goes_to_stdout():
    make("small", 1000)
    with serve("--log=-") as server, server.connect() as client:
        for _ in range(3):
            client.get("/small")
        until(lambda: len(server.log) == 3)
        assert all(COMBINED.fullmatch(line) for line in server.log), server.log


def sighup_opens_all_anew():
    trees = [os.path.join(TOP, name) for name in ("first", "second")]
    for i, tree in enumerate(trees):
        os.makedirs(tree)
        with open(tree + "/which.kind", "wb") as file:
            file.write(b"tree %d" % i)
    large = os.urandom(20 * MIB)
    with open(trees[0] + "/large", "wb") as file:
        file.write(large)
    os.symlink(trees[0], TOP + "/www")
    types, log = TOP + "/hup.types", TOP + "/hup.log"
    with open(types, "w", encoding="ascii") as file:
        file.write("text/x-first kind\n")
    with serve(f"--types={types}", f"--log={log}", root=TOP + "/www") as server, \
            server.connect() as kept:
        answer = kept.get("/which.kind")
        same("before", (answer.body, answer["Content-Type"].split(";")[0]), (b"tree 0", "text/x-first"))
        client, length = begin_download(server, "/large")
        os.symlink(trees[1], TOP + "/www.new")
        os.rename(TOP + "/www.new", TOP + "/www")
        with open(types, "w", encoding="ascii") as file:
            file.write("text/x-second kind\n")
        until(lambda: len(lines_of(log)) >= 1)
        os.rename(log, log + ".1")
        server.process.send_signal(signal.SIGHUP)
        until(lambda: os.path.exists(log))
        until(lambda: kept.get("/which.kind").body == b"tree 1")
        same("type", kept.get("/which.kind")["Content-Type"].split(";")[0], "text/x-second")
        same("in flight", client.file.read(length), large)
        same("gone", client.get("/large").status, 404)
        client.close()
        until(lambda: any(b"/large HTTP" in line and b" 404 " in line for line in lines_of(log)))
        # What cannot be opened stays as it was.
        os.rename(types, types + ".gone")
        os.unlink(TOP + "/www")
        server.process.send_signal(signal.SIGHUP)
        select.select([server.process.stderr], [], [], 0.2)
        same("old", kept.get("/which.kind").body, b"tree 1")
        os.set_blocking(server.process.stderr.fileno(), False)
        said = server.process.stderr.read() or b""
        assert all(line.startswith(b"onefd-httpd: ") for line in said.splitlines()), said
        os.set_blocking(server.process.stderr.fileno(), True)


def workers_share_the_work_and_are_replaced():
    content = make("small", 1000)
    with serve("--workers=2") as server:
        def both_have_some():
            """So many that one alone would not get them all, once it looks."""
            clients = [server.connect() for _ in range(60)]
            try:
                for client in clients:
                    same("body", client.get("/small").body, content)
                return all(line["connections"] > 0 for line in server.counters(2))
            finally:
                for client in clients:
                    client.close()

        until(lambda: len(server.children()) == 2)
        until(both_have_some)
        workers = server.children()
        victim = min(workers)
        os.kill(victim, signal.SIGKILL)
        until(lambda: victim not in server.children() and len(server.children()) == 2)
        select.select([server.process.stderr], [], [], 0.3)
        os.set_blocking(server.process.stderr.fileno(), False)
        said = server.process.stderr.read() or b""
        os.set_blocking(server.process.stderr.fileno(), True)
        assert all(line.startswith(b"onefd-httpd: ") for line in said.splitlines()), said
        until(both_have_some)
        workers = server.children()
        server.stop()
        assert not any(os.path.exists(f"/proc/{pid}") for pid in workers), workers


def workers_go_with_their_parent():
    with serve("--workers=2") as server:
        until(lambda: len(server.children()) == 2)
        workers = server.children()
        server.process.kill()
        server.process.wait()
        until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in workers))


def signal_that_comes_with_the_first_line_is_heeded():
    """It comes while that line waits in a pipe that is full."""
    for options in ((), ("--workers=2",)):
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        filled = os.write(writer, b"x" * MIB)
        os.set_blocking(writer, True)
        with subprocess.Popen([PROGRAM, "--listen=127.0.0.1:0", f"--root={ROOT}", *options],
                              stdout=writer) as process:
            os.close(writer)
            with open(f"/proc/{process.pid}/wchan", encoding="ascii") as place:
                until(lambda: place.seek(0) == 0 and "pipe_write" in place.read())
            process.terminate()
            while os.read(reader, filled):
                pass
            same(options, process.wait(timeout=PATIENCE), 0)
        os.close(reader)


def sigterm_waits_for_what_is_in_hand():
    content = make("download", 20 * MIB)
    for signo in (signal.SIGTERM, signal.SIGINT):
        with serve() as server:
            idle = server.connect()
            idle.get("/none")
            client, length = begin_download(server, "/download")
            server.process.send_signal(signo)
            until(lambda: not listens(server))
            same("body", client.file.read(length), content)
            assert client.ended() and idle.ended()
            server.gone()


def sigterm_does_not_cut_a_body_behind_which_more_was_asked():
    content, small = make("download", 4 * MIB), make("small", 1000)
    with serve() as server:
        client, length = begin_download(server, "/download")
        with client:
            client.ask("/small")
            server.process.send_signal(signal.SIGTERM)
            until(lambda: not listens(server))
            same("body", client.file.read(length) == content, True)
            answer = client.answer()
            same("behind", (answer.body, answer["Connection"]), (small, "close"))
            assert client.ended()
        server.gone()


def listens(server):
    try:
        server.connect().close()
        return True
    except ConnectionError:
        return False


def sigterm_does_not_wait_for_ever():
    """And the log has what each could have got by then."""
    make("large", 64 * MIB)
    log = TOP + "/log-of-the-end"
    with serve("--timeout=86400", f"--log={log}") as server:
        clients = [begin_download(server, "/large")[0] for _ in range(3)]
        before = time.monotonic()
        server.stop()
        assert 2 < time.monotonic() - before < 15, time.monotonic() - before
        got = sorted(len(client.file.read()) for client in clients)
        same("log", sorted(int(COMBINED.fullmatch(line)[5]) for line in lines_of(log)), got)
        for client in clients:
            client.reset()


# ---- the program -------------------------------------------------------------------


def ipv6():
    content = make("small", 1000)
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError as error:
        raise Skip("no IPv6 here") from error
    log = TOP + "/log6"
    with serve(f"--log={log}", listen="[::1]:0") as server:
        same("address", server.host, "::1")
        same("body", server.get("/small").body, content)
        until(lambda: lines_of(log))
        assert lines_of(log)[0].startswith(b"::1 "), lines_of(log)


def end_of(*words):
    end = subprocess.run([PROGRAM, *words], check=False, timeout=PATIENCE, stdin=subprocess.DEVNULL,
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    return end.returncode, end.stdout.decode(), end.stderr.decode()


def wrong_usage_is_status_2():
    at, root = "--listen=127.0.0.1:0", f"--root={ROOT}"
    for words in ((), (at,), (root,), (at, root, "more"), (at, root, "--nonsense"),
                  (at, root, "--workers=0"), (at, root, "--workers=x"), (at, root, "--timeout=0"),
                  (at, root, "--timeout=-1"), (at, root, "--connections=0"),
                  (at, root, "--index=a/b"), (at, root, "--index="), ("--listen=nonsense", root),
                  ("--listen=127.0.0.1:65536", root), ("--listen=127.0.0.1:8o", root)):
        status, out, err = end_of(*words)
        assert status == 2 and err and not out, (words, status, out, err)
    status, out, err = end_of("--help")
    assert status == 0 and "--root" in out and not err, (status, out, err)


def what_cannot_start_says_so_in_a_line():
    make("small", 1000)
    at, root = "--listen=127.0.0.1:0", f"--root={ROOT}"
    for words in ((at, "--root=/nonexistent"), (at, f"--root={ROOT}/small"),
                  (at, root, "--log=/nonexistent/log"), (at, root, "--types=/nonexistent"),
                  ("--listen=192.0.2.1:0", root)):
        status, out, err = end_of(*words)
        assert status == 1 and not out, (words, status, out, err)
        assert re.fullmatch(r"onefd-httpd: [^\n]+: [^\n]+\n", err), (words, err)
    with serve() as server:
        for more in ((), ("--workers=2",)):
            status, out, err = end_of(f"--listen=127.0.0.1:{server.port}", root, *more)
            assert status == 1 and not out, (status, out, err)
            assert re.fullmatch(r"onefd-httpd: [^\n]+: Address already in use\n", err), err


TESTS = (
    files_of_every_size_come_to_the_byte, curl_gets_them_too, head_is_the_get_without_its_body,
    connection_stays_unless_it_is_to_close, hundred_requests_in_one_packet_are_answered_in_order,
    requests_around_large_ones_come_in_any_pieces,
    requests_come_in_any_pieces, host_is_asked_for,
    single_range_is_answered_by_206, range_behind_the_end_is_answered_by_416,
    range_that_is_none_or_several_is_the_whole,
    tag_changes_with_the_file, if_none_match_and_if_match, if_modified_since_and_if_unmodified_since,
    if_range, date_that_is_to_come_is_none,
    content_types, types_of_a_file, directories, redirect_names_this_server_alone,
    percent_is_decoded_once,
    other_methods_are_answered_by_405, what_is_no_request_is_answered_by_400_or_the_end,
    request_that_two_may_read_in_two_ways_is_refused_and_the_last,
    huge_requests_are_refused, what_is_too_long_by_a_little_keeps_no_memory,
    nothing_outside_of_the_root_is_served,
    nothing_outside_of_the_root_is_served_with_follow, symlinks,
    special_files_are_refused_without_a_wait, file_that_may_not_be_read_is_refused,
    file_that_shrinks_ends_its_connection, file_that_grows_is_sent_as_it_was_promised,
    file_that_is_replaced_is_sent_to_its_end,
    client_that_does_not_read_holds_up_nobody_and_little,
    downloads_that_nobody_reads_make_no_small_file_wait,
    downloads_that_nobody_reads_make_no_large_file_wait, large_file_leaves_nothing_behind,
    client_that_does_not_read_is_hung_up_on,
    client_that_reads_slowly_gets_it_all, clients_that_hang_up_midway_cost_nothing,
    client_that_says_no_more_is_answered_and_let_go,
    half_a_request_and_an_idle_connection_are_hung_up_on,
    bytes_of_a_request_that_trickle_in_do_not_keep_it_up,
    more_connections_than_allowed_wait_their_turn, no_descriptor_left_is_no_reason_to_spin,
    log_has_a_line_for_each_request, log_line_cannot_be_forged,
    log_to_a_pipe_that_nobody_reads_holds_up_nobody, log_goes_to_stdout, sighup_opens_all_anew,
    workers_share_the_work_and_are_replaced, workers_go_with_their_parent,
    signal_that_comes_with_the_first_line_is_heeded,
    sigterm_waits_for_what_is_in_hand, sigterm_does_not_cut_a_body_behind_which_more_was_asked,
    sigterm_does_not_wait_for_ever,
    ipv6, wrong_usage_is_status_2, what_cannot_start_says_so_in_a_line)

os.mkdir(ROOT)
try:
    status = run(TESTS, sys.argv[2:])
finally:
    shutil.rmtree(TOP)
sys.exit(status)
