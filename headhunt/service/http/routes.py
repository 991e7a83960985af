"""The routes of the HTTP interface."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import anyio.to_thread
from fastapi import APIRouter, Header, HTTPException, Query, Request, Response
from fastapi import Path as InPath
from fastapi.responses import FileResponse, StreamingResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.datastructures import Headers

from features.runtime.errors import UsageError
from headhunt.service.board.board import Board
from headhunt.service.board.schemas import (
    Exports,
    Health,
    History,
    Problem,
    PromotionRequest,
    Promotions,
    Searches,
    SearchStatus,
    Top,
)
from headhunt.service.board.studies import LONGEST_TOP
from headhunt.service.http.guard import Message, Receive, Scope, Send
from headhunt.service.jobs import jobs as jobs_module
from headhunt.service.jobs.admission import admit, admit_again, parse
from headhunt.service.jobs.downloads import download, report_page
from headhunt.service.jobs.jobs import Jobs, UnknownError
from headhunt.service.jobs.logs import stream
from headhunt.service.jobs.records import ACTIVE, Kind
from headhunt.service.settings import Settings

Name = Annotated[
    str, InPath(description="of the search", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100, examples=["cars"])
]
Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=200,
        pattern=r"^[\x21-\x7e]+$",
        description="a request repeated with the same key is executed only once",
    ),
]


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The error responses of a route for the OpenAPI document: these, and those of the guard around every route."""
    words = {
        400: "The request cannot be read",
        401: "A token is required",
        403: "The request comes from a page of another site",
        404: "Not found",
        408: "The body did not arrive in time",
        409: "The request conflicts with the current state",
        413: "The body is too large",
        416: "The file does not have this range",
        415: "The body's content type is not supported",
        421: "The Host header is not a known name of the service",
        422: "The request is not valid",
        429: "Too many requests",
        503: "Too many concurrent requests, or Ray or the storage does not respond",
    }
    return {status: {"model": Problem, "description": words[status]} for status in (*statuses, 401, 421, 429, 503)}


def partial(media_type: str) -> dict[str, Any]:
    """The partial response of a file, for the OpenAPI document."""
    kinds = (media_type, "multipart/byteranges")
    content = {kind: {"schema": {"type": "string", "format": "binary"}} for kind in kinds}
    return {"description": "The part or parts requested by the Range header", "content": content}


RANGE_HEADER = {
    "parameters": [
        {
            "name": "Range",
            "in": "header",
            "description": "send only this part",
            "schema": {"type": "string", "examples": ["bytes=0-999"]},
        }
    ]
}

RANGES = (400, 416)
"""Error statuses of range requests."""

WRITING = (400, 403, 408, 409, 413)

METRICS_SECONDS = 1.0
"""Seconds that /metrics is cached: collecting them takes longer than any other response."""


class Log(StreamingResponse):
    """A streamed log; `ended` is called when it is complete or the client has disconnected."""

    def __init__(self, pieces: AsyncIterator[bytes], ended: Callable[[], None]) -> None:
        super().__init__(pieces, media_type="text/plain; charset=utf-8")
        self._ended = ended

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the log."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._ended()


class RangedFile(FileResponse):
    """A file, or the part requested by a Range header. A temporary file is always sent whole, and deleted in any case."""

    def __init__(self, path: Path, media_type: str, name: str | None = None, temporary: bool = False) -> None:
        super().__init__(path, filename=name, media_type=media_type)
        self._temporary = path if temporary else None
        if temporary:
            self.headers["accept-ranges"] = "none"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the file; HTTPException for an invalid range."""
        asked = dict(scope["headers"]).get(b"range", b"").decode("latin-1")[:200]

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] in RANGES:
                size = Headers(raw=message["headers"]).get("content-range")
                raise HTTPException(
                    message["status"],
                    f"the Range header is {asked!r}; it must be bytes=FIRST-LAST, within the file. Remove it to get the whole "
                    "file.",
                    {"Content-Range": size} if size else None,
                )
            await send(message)

        if self._temporary is None:
            await super().__call__(scope, receive, sending)
            return
        whole = {**scope, "headers": [(key, value) for key, value in scope["headers"] if key != b"range"]}
        try:
            await super().__call__(whole, receive, send)
        finally:
            self._temporary.unlink(missing_ok=True)


def add_routes(routes: APIRouter, settings: Settings, jobs: Jobs, board: Board, registry: CollectorRegistry) -> None:
    """Adds all routes of the service's own paths."""
    followers = 0
    metrics_text, metrics_until = b"", 0.0

    def answer(body: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
        return Response(body, status, headers, "application/json")

    def fresh(name: str, status: int) -> Response:
        return answer(board.refresh(name).json, status, {"Location": f"/searches/{name}"})

    silent = {
        "model": Health | Problem,
        "description": "Ray or the storage does not respond, or too many concurrent requests",
    }

    @routes.get("/healthz", response_model=Health, responses={**problems(), 503: silent}, tags=["service"])
    async def health() -> Response:
        """Whether the service, Ray and the storage respond; status 503 with the same body if one of them does not."""
        found = board.health()
        return answer(found.model_dump_json().encode(), 200 if found.status == "ok" else 503)

    @routes.get(
        "/metrics",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **problems()},
        tags=["service"],
    )
    async def metrics() -> Response:
        """Metrics in Prometheus text format, at most one second old."""
        nonlocal metrics_text, metrics_until
        if time.monotonic() >= metrics_until:
            metrics_text, metrics_until = generate_latest(registry), time.monotonic() + METRICS_SECONDS
        return Response(metrics_text, media_type=CONTENT_TYPE_LATEST)

    @routes.get("/searches", response_model=Searches, responses=problems(), tags=["searches"])
    async def list_searches() -> Response:
        """All searches with their status, newest first."""
        return answer(board.all_json)

    @routes.post(
        "/searches",
        status_code=201,
        response_model=SearchStatus,
        responses={
            201: {"headers": {"Location": {"schema": {"type": "string"}, "description": "the search's URL"}}},
            **problems(*WRITING, 415, 422),
        },
        openapi_extra={
            "requestBody": {
                "required": True,
                "description": "a configuration as `headhunt run` takes it, without `workdir` and `search.storage`",
                "content": {
                    "application/json": {"schema": {"$ref": "#/components/schemas/Configuration"}},
                    "application/yaml": {"schema": {"type": "string", "maxLength": settings.body_bytes}},
                },
            }
        },
        tags=["searches"],
    )
    async def start_search(request: Request, key: Key = None) -> Response:
        """Validates a configuration and starts its search: prepare, cache, search. Nothing starts if it is invalid."""
        body = await request.body()
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind not in ("application/json", "application/yaml", "application/x-yaml", "text/yaml"):
            raise HTTPException(
                415,
                f"the Content-Type is {kind!r}; it must be application/yaml or application/json, with a configuration.",
            )

        def start() -> Response:
            asked = jobs_module.Request.of(key, "create", body) if key else None
            admitted = admit(parse(body, kind == "application/json"), settings)
            return fresh(jobs.create(admitted, asked), 201)

        return await anyio.to_thread.run_sync(start)

    @routes.get("/searches/{name}", response_model=SearchStatus, responses=problems(404, 422), tags=["searches"])
    async def show_search(name: Name) -> Response:
        """The status of a search: its progress, its best trial, its jobs."""
        return answer(board.entry(name).json)

    @routes.get("/searches/{name}/history", response_model=History, responses=problems(404, 422), tags=["searches"])
    async def show_history(name: Name) -> Response:
        """The values of the completed trials by trial number, each with the best value so far."""
        return answer(board.history(name))

    @routes.get("/searches/{name}/top", response_model=Top, responses=problems(404, 422), tags=["searches"])
    async def show_top(name: Name, limit: Annotated[int, Query(ge=1, le=LONGEST_TOP)] = 10) -> Response:
        """The leaderboard, best first."""
        return answer(board.top(name, limit))

    @routes.get(
        "/searches/{name}/logs",
        response_class=StreamingResponse,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **problems(404, 422)},
        tags=["searches"],
    )
    async def show_logs(
        name: Name,
        job: Annotated[int | None, Query(ge=1, le=10**9, description="default: the latest")] = None,
        follow: Annotated[bool, Query(description="keep streaming until the job ends")] = False,
    ) -> Response:
        """The log of a job."""
        nonlocal followers
        files = jobs.files(name, job)
        if follow and followers >= settings.followers:
            raise HTTPException(
                503,
                f"the maximum of {settings.followers} logs are being followed already. Read this one without `follow`.",
            )

        def is_over() -> bool:
            number = int(files.folder.name)
            return all(snapshot.state not in ACTIVE for snapshot in jobs.of(name) if snapshot.job.number == number)

        def ended() -> None:
            nonlocal followers
            followers -= follow

        followers += follow
        return Log(stream(files.log, follow, is_over), ended)

    @routes.post(
        "/searches/{name}/stop",
        status_code=202,
        response_model=SearchStatus,
        responses=problems(*WRITING, 404, 422),
        tags=["searches"],
    )
    def stop_search(name: Name, key: Key = None) -> Response:
        """Asks the search's active job to save its state and end; no effect if no job is active."""
        jobs.stop(name, jobs_module.Request.of(key, "stop", name) if key else None)
        return fresh(name, 202)

    @routes.post(
        "/searches/{name}/resume",
        status_code=202,
        response_model=SearchStatus,
        responses=problems(*WRITING, 404, 422),
        tags=["searches"],
    )
    def resume_search(
        name: Name,
        kind: Annotated[
            Kind | None, Query(description="default: promotions if the last job is an unfinished one, else the search")
        ] = None,
        key: Key = None,
    ) -> Response:
        """Resumes a search, or its promotions, after a stop, failure or interruption; finished work is not repeated."""
        asked = ("resume", name, *([kind] if kind else []))
        admit_again(board.run(name), settings)
        jobs.resume(name, jobs_module.Request.of(key, *asked) if key else None, kind)
        return fresh(name, 202)

    @routes.get(
        "/searches/{name}/promotions", response_model=Promotions, responses=problems(404, 422), tags=["promotions"]
    )
    async def list_promotions(name: Name) -> Response:
        """The finished promotions, best first."""
        told = board.known_promotions(name)
        if told is None:
            told = await anyio.to_thread.run_sync(board.promotions, name)
        return answer(told)

    @routes.post(
        "/searches/{name}/promotions",
        status_code=202,
        response_model=SearchStatus,
        responses=problems(*WRITING, 404, 415, 422),
        tags=["promotions"],
    )
    def promote(name: Name, wanted: PromotionRequest, key: Key = None) -> Response:
        """Fine-tunes the best trials, or the given ones, through the whole network; exports them and builds the report.

        `{}` promotes the best `train.top` trials of the configuration."""
        arguments = wanted.arguments
        admit_again(board.run(name), settings)
        incomplete = board.incomplete(name, wanted.trials or ())
        if incomplete:
            raise UsageError(
                f"trials: received {', '.join(map(str, incomplete))}, which the search {name!r} has not completed. GET "
                f"/searches/{name}/top lists the trials that can be promoted."
            )
        jobs.promote(name, arguments, jobs_module.Request.of(key, "promote", name, *arguments) if key else None)
        return fresh(name, 202)

    @routes.get("/searches/{name}/exports", response_model=Exports, responses=problems(404, 422), tags=["promotions"])
    def list_exports(name: Name) -> Exports:
        """The downloadable formats of each exported trial."""
        return board.exports(name)

    @routes.get(
        "/searches/{name}/exports/{trial}/{format}",
        response_class=FileResponse,
        responses={
            200: {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}},
            206: partial("application/octet-stream"),
            **problems(404, 422, *RANGES),
        },
        openapi_extra=RANGE_HEADER,
        tags=["promotions"],
    )
    def download_export(
        name: Name,
        trial: Annotated[int, InPath(ge=0, le=10**9)],
        format: Annotated[str, InPath(description="keras, savedmodel, onnx, litert, config, or bundle", max_length=40)],
    ) -> Response:
        """A trial's export as a file, or a part of it by a Range header; folders are sent as zip archives, always whole."""
        jobs.of(name)
        found = download(settings.root, name, trial, format)
        return RangedFile(found.path, "application/octet-stream", found.name, found.temporary)

    @routes.get(
        "/searches/{name}/report",
        response_class=FileResponse,
        responses={
            200: {"content": {"text/html": {"schema": {"type": "string"}}}},
            206: partial("text/html"),
            **problems(404, 422, *RANGES),
        },
        openapi_extra=RANGE_HEADER,
        tags=["promotions"],
    )
    def show_report(name: Name) -> Response:
        """The report's page."""
        jobs.of(name)
        page = report_page(settings.root, name)
        if page is None:
            raise UnknownError(
                f"the search {name!r} has no report yet. Promote trials to build one: POST /searches/{name}/promotions."
            )
        return RangedFile(page, "text/html")
