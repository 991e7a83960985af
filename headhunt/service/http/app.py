"""The service as one ASGI application: API, pages and dashboard, with the guard around them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from features.runtime.configfile import shortened
from features.runtime.errors import HeadhuntError, LostError, UsageError
from headhunt.service.board.board import Board
from headhunt.service.http.guard import (
    COOKIE_SECONDS,
    DASHBOARD,
    LOGIN,
    Application,
    Guard,
    Receive,
    Scope,
    Send,
    login_page,
)
from headhunt.service.http.metrics import registry
from headhunt.service.http.routes import add_routes
from headhunt.service.jobs.admission import SERVICE_KEYS, RefusedError
from headhunt.service.jobs.jobs import ConflictError, Jobs, UnknownError
from headhunt.service.settings import Settings
from reports.config import Run

STATIC = Path(__file__).parent / "static"

STATUS: dict[type[HeadhuntError], int] = {
    RefusedError: 422,
    UnknownError: 404,
    ConflictError: 409,
    UsageError: 422,
    LostError: 503,
    HeadhuntError: 500,
}
"""The HTTP status of each of our errors."""


def application(settings: Settings, jobs: Jobs, board: Board, dashboard: Application, version: str) -> Application:
    """The complete application of `headhunt serve`."""
    app = FastAPI(title="Headhunt", version=version, docs_url=None, redoc_url=None)
    guard = Guard(_with_dashboard(app, dashboard), settings)
    add_routes(app.router, settings, jobs, board, registry(board))
    for kind, status in STATUS.items():
        app.add_exception_handler(kind, _refusal(status))
    app.add_exception_handler(RequestValidationError, _not_valid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _own_fault)
    app.mount("/assets", StaticFiles(directory=STATIC), name="assets")
    _add_pages(app, guard, bool(settings.token))
    app.openapi = lambda: _document(app, bool(settings.token))  # type: ignore[method-assign]
    return guard


def _with_dashboard(app: Application, dashboard: Application) -> Application:
    async def either(scope: Scope, receive: Receive, send: Send) -> None:
        is_dashboard = scope["type"] == "http" and scope["path"].startswith(DASHBOARD)
        await (dashboard if is_dashboard else app)(scope, receive, send)

    return either


def _add_pages(app: FastAPI, guard: Guard, has_login: bool) -> None:
    start = (STATIC / "index.html").read_text(encoding="utf-8").replace("{{ login }}", "yes" if has_login else "no")

    @app.get("/", include_in_schema=False)
    async def start_page() -> Response:
        return HTMLResponse(start)

    if not has_login:
        return

    @app.get(LOGIN, include_in_schema=False)
    async def show_login() -> Response:
        return HTMLResponse(login_page(""))

    @app.post(LOGIN, include_in_schema=False)
    async def log_in(request: Request) -> Response:
        form = parse_qs((await request.body()).decode("utf-8", errors="replace"))
        if not guard.is_token(form.get("token", [""])[0].strip()):
            return HTMLResponse(login_page("Wrong token."), 401)
        answer = RedirectResponse(_own_path(request.query_params.get("next", "/")), 303)
        is_https = guard.is_https(dict(request.scope["headers"]))
        answer.set_cookie(
            guard.cookie_name, guard.cookie(), COOKIE_SECONDS, httponly=True, samesite="strict", secure=is_https
        )
        return answer

    @app.post("/logout", include_in_schema=False)
    async def log_out(request: Request) -> Response:
        answer = RedirectResponse(LOGIN, 303)
        is_https = guard.is_https(dict(request.scope["headers"]))
        answer.delete_cookie(guard.cookie_name, httponly=True, samesite="strict", secure=is_https)
        return answer


def _own_path(path: str) -> str:
    """The path if it is a safe redirect target on this service, else "/"."""
    is_own = re.fullmatch(r"/(?!/)[\x21-\x5b\x5d-\x7e]*", path)  # no second / and no backslash
    return path if is_own else "/"


def _refusal(status: int) -> Any:
    async def refuse(request: Request, error: Exception) -> Response:
        content: dict[str, Any] = {"detail": str(error)}
        if isinstance(error, RefusedError):
            content["faults"] = error.faults
        return JSONResponse(content, status)

    return refuse


async def _not_valid(request: Request, error: Exception) -> Response:
    """The response to an invalid path, query, header or small body: each fault with the name of its parameter."""
    assert isinstance(error, RequestValidationError)
    kind = request.headers.get("content-type", "")
    if any(detail["type"] == "model_attributes_type" for detail in error.errors()) and "json" not in kind:
        return JSONResponse({"detail": f"the Content-Type is {kind!r}; it must be application/json."}, 415)
    faults = []
    for detail in error.errors():
        place = [] if detail["type"] == "json_invalid" else detail["loc"][1:]  # there `loc` is a character offset
        where = ".".join(str(part) for part in place) or "the body"
        faults.append(shortened(f"{where}: {detail['msg'].removeprefix('Value error, ')}."))
    return JSONResponse({"detail": f"the request is not valid: {' '.join(faults)}", "faults": faults}, 422)


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    detail = str(error.detail)
    if error.status_code == 404 and detail == "Not Found":
        detail = f"nothing is served at {request.url.path}. /openapi.json describes the API."
    if error.status_code == 405 and detail == "Method Not Allowed":
        allowed = (error.headers or {}).get("Allow", "others")
        detail = f"{request.url.path} does not support {request.method}; allowed: {allowed}."
    return JSONResponse({"detail": detail}, error.status_code, error.headers)


async def _own_fault(request: Request, error: Exception) -> Response:
    detail = f"internal error in headhunt ({type(error).__name__}); see the service's log. Please report it."
    return JSONResponse({"detail": detail}, 500)


def _document(app: FastAPI, has_token: bool) -> dict[str, Any]:
    """The OpenAPI document, including the configuration's schema."""
    if app.openapi_schema:
        return app.openapi_schema
    document = get_openapi(
        title=app.title,
        version=app.version,
        description="Searches of classifier heads, promotions and exports. Every error has a `detail` that explains what to do.",
        routes=app.routes,
    )
    schemas = document["components"]["schemas"]
    configuration = Run.model_json_schema(ref_template="#/components/schemas/Configuration.{model}")
    sections = configuration.pop("$defs")
    for schema in (configuration, *sections.values()):
        for path in SERVICE_KEYS:
            schema.get("properties", {}).pop(path.rpartition(".")[2], None)
    for name, schema in sections.items():
        schemas[f"Configuration.{name}"] = schema
    schemas["Configuration"] = configuration
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    if has_token:
        document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"token": []}]
    app.openapi_schema = document
    return document
