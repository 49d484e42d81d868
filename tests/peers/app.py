"""Two backends nobody here designed for the sidecar. Usage:
app.py pool PORT DSN    threads and a pool of five database connections (psycopg_pool); /pool tells its own numbers
gunicorn app:wsgi       a WSGI application that works for some milliseconds
"""
import http.server
import json
import sys
import time


def wsgi(environ, start_response):
    end = time.process_time() + 0.005
    while time.process_time() < end:
        pass
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "2")])
    return [b"ok"]


def pool(port, dsn):
    from psycopg_pool import ConnectionPool

    connections = ConnectionPool(dsn, min_size=5, max_size=5, timeout=60, open=True)
    connections.wait()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            if self.path == "/pool":
                body, kind = json.dumps(connections.get_stats()), "application/json"
            elif self.path == "/metrics":
                stats = connections.get_stats()
                busy = stats["pool_size"] - stats["pool_available"]
                body = (
                    "# HELP app_pool_connections Connections of the pool.\n# TYPE app_pool_connections gauge\n"
                    f'app_pool_connections{{state="busy"}} {busy}\n'
                    f'app_pool_connections{{state="free"}} {stats["pool_available"]}\n'
                )
                kind = "text/plain; version=0.0.4"
            else:
                with connections.connection() as connection:
                    connection.execute("select pg_advisory_lock_shared(1)")
                    connection.execute("select pg_advisory_unlock_shared(1)")
                body, kind = "done", "text/plain"
            body = body.encode()
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    http.server.ThreadingHTTPServer.request_queue_size = 128
    server = http.server.ThreadingHTTPServer(("127.0.0.1", int(port)), Handler)
    print("ready", server.server_address[1], flush=True)
    server.serve_forever()


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
