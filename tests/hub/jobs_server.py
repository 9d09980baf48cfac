"""The Jobs of the loopback Hub: the requests of the real client to start a job, read its log and wait for its end."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI, HTTPException, Request, Response

PRICES = {"cpu-basic": 0.000167, "a10g-small": 0.0167}


@dataclass
class Jobs:
    """The received requests, and the behaviour of the next job.

    Attributes:
        requests: bodies of the requests that start a job.
        log: lines of the job's log.
        stage: final stage of the job, with the reason in `message`.
    """

    token: str
    owner: str
    requests: list[dict[str, Any]] = field(default_factory=list)
    log: list[str] = field(default_factory=lambda: ["epoch 1/1", "Test accuracy 0.8"])
    stage: str = "COMPLETED"
    message: str | None = None
    is_read: bool = False
    """Whether the log was read; until then the job runs."""

    def clear(self) -> None:
        self.__init__(self.token, self.owner)  # type: ignore[misc]

    def describe(self) -> dict[str, Any]:
        status = {"stage": self.stage if self.is_read else "RUNNING", "message": self.message}
        return {"id": "job1", "owner": {"id": "1", "name": self.owner, "type": "user"}, "status": status}

    def add_routes(self, app: FastAPI) -> None:
        def check(request: Request) -> None:
            if request.headers.get("authorization") != f"Bearer {self.token}":
                raise HTTPException(401, "Invalid username or password.")

        @app.get("/api/jobs/hardware")
        async def hardware() -> Any:
            about = {"cpu": "2 vCPU", "ram": "16 GB", "unitCostMicroUSD": 0, "unitLabel": "minute"}
            return [about | {"name": n, "prettyName": f"One {n}", "unitCostUSD": usd} for n, usd in PRICES.items()]

        @app.post("/api/buckets/{owner}/{name}")
        async def create_bucket(request: Request, owner: str, name: str) -> Any:
            check(request)
            return {"url": f"http://{request.headers['host']}/buckets/{owner}/{name}"}

        @app.post("/api/jobs/{owner}")
        async def start(request: Request, owner: str) -> Any:
            check(request)
            self.requests.append(await request.json())
            return self.describe()

        @app.get("/api/jobs/{owner}/{job_id}")
        async def inspect(request: Request, owner: str, job_id: str) -> Any:
            check(request)
            return self.describe()

        @app.get("/api/jobs/{owner}/{job_id}/logs")
        async def logs(request: Request, owner: str, job_id: str) -> Response:
            check(request)
            self.is_read = True
            events = [json.dumps({"data": line, "timestamp": "2026-01-01T00:00:00.000Z"}) for line in self.log]
            return Response("".join(f"data: {event}\n\n" for event in events), media_type="text/event-stream")
