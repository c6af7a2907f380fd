"""A service that answers with a language model and meters it: FastAPI, and an outbox that loses nothing.

The usage of a call is written to a file of SQLite before the caller has its answer, and leaves it when Tollgate has answered 204. So a crash of
this service, of Tollgate or of the network between loses no event, and none counts twice: an event keeps its id.

    pip install fastapi uvicorn httpx
    TOLLGATE=http://127.0.0.1:8080 uvicorn --app-dir examples/services fastapi_service:app --port 9000
    curl -d '{"customer": "acme", "prompt": "how much is it?"}' -H 'Content-Type: application/json' http://127.0.0.1:9000/complete
"""

import asyncio
import json
import os
import sqlite3
import uuid
from contextlib import asynccontextmanager
from datetime import datetime, timezone

import httpx
from fastapi import FastAPI
from pydantic import BaseModel

TOLLGATE = os.environ.get("TOLLGATE", "http://127.0.0.1:8080")
KEY = os.environ.get("TOLLGATE_KEY")
AT_ONCE = 100


class Outbox:
    """Events that are not acknowledged yet."""

    def __init__(self, path):
        self.file = sqlite3.connect(path)
        self.file.execute("CREATE TABLE IF NOT EXISTS outbox (place INTEGER PRIMARY KEY, event TEXT NOT NULL)")
        self.filled = asyncio.Event()
        self.filled.set()

    def add(self, event):
        with self.file:
            self.file.execute("INSERT INTO outbox (event) VALUES (?)", [json.dumps(event)])
        self.filled.set()

    def first(self):
        return self.file.execute("SELECT place, event FROM outbox ORDER BY place LIMIT ?", [AT_ONCE]).fetchall()

    def forget(self, rows):
        with self.file:
            self.file.executemany("DELETE FROM outbox WHERE place = ?", [[place] for place, _ in rows])

    async def send(self, client):
        """Sends for ever, a hundred events to a request."""
        wait = 1
        while True:
            rows = self.first()
            if not rows:
                self.filled.clear()
                await self.filled.wait()
                continue
            try:
                body = "\n".join(event for _, event in rows)
                answer = await client.post("/api/v1/events", content=body, headers={"Content-Type": "application/x-ndjson"})
                if answer.status_code == 400:
                    # No retry mends it. It names each event that is none, and stays here for a person to look at.
                    print("refused:", answer.text)
                answer.raise_for_status()
                self.forget(rows)
                wait = 1
            except httpx.HTTPError as error:
                print(f"not acknowledged, sent again in {wait} s: {error}")
                await asyncio.sleep(wait)
                wait = min(2 * wait, 30)


@asynccontextmanager
async def lifespan(app):
    headers = {"Authorization": f"Bearer {KEY}"} if KEY else {}
    async with httpx.AsyncClient(base_url=TOLLGATE, headers=headers, timeout=10) as client:
        app.state.outbox = Outbox(os.environ.get("OUTBOX", "outbox.db"))
        sending = asyncio.create_task(app.state.outbox.send(client))
        yield
        sending.cancel()


app = FastAPI(lifespan=lifespan)


class Question(BaseModel):
    customer: str
    prompt: str


def model(prompt):
    """Stands for a language model: an answer, and what the provider says that it used."""
    answer = f"You asked: {prompt}"
    return answer, {"model": "m-large", "input_tokens": len(prompt.split()), "output_tokens": len(answer.split())}


@app.post("/complete")
async def complete(question: Question):
    answer, used = model(question.prompt)
    app.state.outbox.add({
        "specversion": "1.0",
        "id": str(uuid.uuid4()),
        "source": "fastapi-service",
        "type": "llm.completion",
        "subject": question.customer,
        "time": datetime.now(timezone.utc).isoformat(),
        "data": used,
    })
    return {"answer": answer}
