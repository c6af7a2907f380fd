"""An S3 server with one bucket, `tollgate`, on a free port of 127.0.0.1.

Prints its URL, and ends when its input ends. The argument N makes one in N requests fail without any
effect, and one in N writes fail after its effect; 0 makes none fail.
"""

import itertools
import sys
import threading

import boto3
from moto.server import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

one_in = int(sys.argv[1])
moto = DomainDispatcherApplication(create_backend_app)
requests = itertools.count(1)
is_ready = threading.Event()
faults = []


def failed(status, code, start_response):
    faults.append(status)
    body = f"<Error><Code>{code}</Code><Message>injected</Message></Error>".encode()
    headers = [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))]
    start_response(status, headers)
    return [body]


def application(environ, start_response):
    if not one_in or not is_ready.is_set():
        return moto(environ, start_response)
    number = next(requests)
    if number % one_in == 0:
        # What is not read here must not be taken for the next request.
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        return failed("503 Slow Down", "SlowDown", start_response)
    if number % one_in == one_in // 2 and environ["REQUEST_METHOD"] == "PUT":
        for _ in moto(environ, lambda *_: lambda _: None):
            pass
        return failed("500 Internal Server Error", "InternalError", start_response)
    return moto(environ, start_response)


server = make_server(
    "127.0.0.1", 0, application, threaded=True, request_handler=MotoRequestHandler
)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_port}"
client = boto3.client(
    "s3",
    endpoint_url=url,
    aws_access_key_id="test",
    aws_secret_access_key="test",
    region_name="us-east-1",
)
client.create_bucket(Bucket="tollgate")
is_ready.set()
print(url, flush=True)
sys.stdin.read()
print(len(faults), flush=True)
