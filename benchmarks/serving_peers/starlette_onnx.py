"""The least that answers: Starlette, orjson and ONNX Runtime.

It has Evergreen's own graph and preparation, and nothing else: it trusts what it is sent, keeps no log, counts
nothing, and knows one model.
"""

from __future__ import annotations

import os
from pathlib import Path

import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from include.engines.session import open_onnx
from include.registry.folder import read_metadata

folder = Path(os.environ["BENCH_FOLDER"])
predictor = open_onnx(folder, read_metadata(folder)["engine"])


async def predict(request: Request) -> Response:
    """Answer columns with chances and codes."""
    answer = predictor.answer(orjson.loads(await request.body()))
    told = {"predict": answer.predict, "probability": answer.probability}
    return Response(
        orjson.dumps(told, option=orjson.OPT_SERIALIZE_NUMPY), media_type="application/json"
    )


app = Starlette(routes=[Route("/predict", predict, methods=["POST"])])
