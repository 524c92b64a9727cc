"""Around every answer: who may ask, security headers, and the count of answers."""

from collections.abc import Collection

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stages.inference.serve.counts import Counts

# The page loads its own two files and shows pictures it has in memory; nothing else.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})


class Guard:
    """ASGI middleware."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        hosts: Collection[str],
        paths: Collection[str],
        counts: Counts,
    ) -> None:
        """Wraps an app.

        Args:
            app: What answers.
            hosts: Names it may be called by; empty takes any. On loopback alone they
                keep a foreign page from reading answers through a name that it made
                to point here.
            paths: What is counted by its own name.
            counts: Where to count.
        """
        self._app = app
        self._hosts = hosts
        self._paths = paths
        self._counts = counts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers, or refuses to."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"] if scope["path"] in self._paths else "other"

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                answer = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    answer[name] = value
                self._counts.requests.labels(path, str(message["status"])).inc()
            await send(message)

        refusal = self._refusal(scope["method"], Headers(scope=scope))
        await (refusal or self._app)(scope, receive, guarded)

    def _refusal(self, method: str, headers: Headers) -> JSONResponse | None:
        host = _name(headers.get("host", ""))
        if self._hosts and host not in self._hosts:
            known = ", ".join(sorted(self._hosts))
            sentence = f"the Host header should be one of {known}, found {host!r}"
            return JSONResponse({"error": sentence}, 421)
        # Browsers say where a request comes from, programs say nothing.
        site = headers.get("sec-fetch-site", "none")
        if method != "GET" and site not in ("none", "same-origin"):
            sentence = "another site's page may not ask here; open this server's own"
            return JSONResponse({"error": sentence}, 403)
        return None


def _name(host: str) -> str:
    """A Host header without its port; IPv6 addresses keep their brackets."""
    if host.startswith("["):
        return host.partition("]")[0].lower() + "]"
    return host.partition(":")[0].lower()
