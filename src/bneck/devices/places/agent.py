"""What runs on a device: requests come in on one pipe, answers go out on another, a json line each.

It is `local` at the other end of a line: the same runtimes, the same clock. After a request may
follow a model's bytes, as many as its `bytes` says.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from typing import Any, BinaryIO

from bneck.devices.places.contract import Place
from bneck.devices.places.local import Local
from bneck.devices.runtimes import MissingRuntime
from bneck.devices.timing import Timer
from bneck.specs.errors import InputError

HELLO = "bneck agent 1"


def serve(requests: BinaryIO, answers: BinaryIO, place: Place) -> None:
    """Answer requests until there are no more."""
    timers: dict[int, Timer] = {}
    _say(answers, {"hello": HELLO})
    for line in iter(requests.readline, b""):
        request = json.loads(line)
        model = requests.read(request.get("bytes", 0))
        try:
            answer = _answer(place, timers, request, model)
        except MissingRuntime as error:
            answer = {"missing": error.package}
        except InputError as error:
            answer = {"refused": str(error)}
        except Exception as error:  # an engine's own; the line must not break off for it
            answer = {"refused": f"{type(error).__name__}: {error}"}
        _say(answers, {"id": request["id"], **answer})


def _answer(
    place: Place, timers: dict[int, Timer], request: dict[str, Any], model: bytes
) -> dict[str, Any]:
    match request["do"]:
        case "describe":
            return {"device": asdict(place.describe())}
        case "version":
            return {"version": place.version(request["runtime"])}
        case "load":
            how = {"runtime": request["runtime"], "threads": request["threads"]}
            timers[request["timer"]] = place.load(model, size=tuple(request["size"]), **how)
            return {}
        case "burst":
            burst = timers[request["timer"]].burst(request["runs"], request["warmup"])
            return {"wall_ms": burst.wall_ms, "cpu_ms": burst.cpu_ms}
        case "close":
            timers.pop(request["timer"]).close()
            return {}
    return {"refused": f"this agent does not know {request['do']!r}"}


def _say(answers: BinaryIO, answer: dict[str, Any]) -> None:
    answers.write(json.dumps(answer).encode() + b"\n")
    answers.flush()


def main() -> None:
    """Serve this machine over stdin and stdout."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what engines print must not get between the answers
    serve(sys.stdin.buffer, answers, Local())
