"""Whatever is sent: an answer, or 4xx in the one error form; never a 500."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote as percent

import orjson
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.unit.serving.registry import FEATURES

DATATYPES = ["BOOL", "BYTES", "FP16", "FP32", "FP64", "INT8", "INT64", "UINT8", "UINT64", "X", 3]
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5)
)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
SIZES = st.integers(-1, 3) | ANYTHING
TENSORS = st.fixed_dictionaries(
    {
        "name": st.sampled_from([*FEATURES.names, "other", 5]),
        "shape": st.lists(SIZES, max_size=3) | ANYTHING,
        "datatype": st.sampled_from(DATATYPES),
        "data": st.lists(SCALARS, max_size=3) | ANYTHING,
    },
    optional={"parameters": ANYTHING},
)
KINDS = {
    "FP64": st.none()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.integers(-(2**63), 2**64 - 1),
    "BOOL": st.none() | st.booleans(),
    "BYTES": st.none() | st.text(max_size=8),
}


@st.composite
def nearly_right(draw: st.DrawFn) -> dict[str, Any]:
    """A request with the right names and row counts and any values of the right kind, then perhaps one flaw."""
    rows = draw(st.integers(1, 3))
    inputs: list[Any] = []
    for name in FEATURES.names:
        datatype = draw(
            st.sampled_from(["FP64", "BOOL"] if name in FEATURES.numeric else ["BYTES"])
        )
        data = draw(st.lists(KINDS[datatype], min_size=rows, max_size=rows))
        inputs.append({"name": name, "shape": [rows], "datatype": datatype, "data": data})
    for name in draw(st.lists(st.sampled_from(["customer", "seen_at"]), max_size=2, unique=True)):
        data = draw(st.lists(SCALARS | ANYTHING, min_size=rows, max_size=rows))
        inputs.append({"name": name, "shape": [rows], "datatype": "BYTES", "data": data})
    request: dict[str, Any] = {"inputs": inputs}
    if draw(st.booleans()):
        inputs[draw(st.integers(0, len(inputs) - 1))] = draw(TENSORS | ANYTHING)
    return request | draw(
        st.fixed_dictionaries(
            {}, optional={"id": SCALARS, "outputs": ANYTHING, "parameters": ANYTHING}
        )
    )


def check(answer: Any) -> None:
    body = orjson.loads(answer.content)
    if answer.status_code == 200:
        assert {"outputs", "predictions", "prediction"} & body.keys()
    else:
        assert answer.status_code in (400, 413, 415, 422), answer.text
        assert list(body) == ["error"]
        assert len(body["error"]) < 5000


QUIET = settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@QUIET
@given(request=nearly_right() | st.fixed_dictionaries({"inputs": st.lists(TENSORS)}) | ANYTHING)
@example(request={"inputs": [{"name": "age", "shape": [10**18], "datatype": "FP64", "data": []}]})
def test_infer(served: TestClient, request: Any) -> None:
    for model in ("churn", "price"):
        check(
            served.post(
                f"/v2/models/{model}/infer",
                content=orjson.dumps(request),
                headers={"Content-Type": "application/json"},
            )
        )


ROW = st.fixed_dictionaries(
    {}, optional=dict.fromkeys([*FEATURES.names, "customer", "seen_at"], SCALARS | ANYTHING)
)
FORMS = st.fixed_dictionaries(
    {},
    optional={
        "dataframe_split": st.fixed_dictionaries(
            {}, optional={"columns": st.just(list(FEATURES.names)) | ANYTHING, "data": ANYTHING}
        ),
        "dataframe_records": st.lists(ROW, max_size=3) | ANYTHING,
        "instances": st.lists(ROW | st.lists(SCALARS, min_size=5, max_size=5), max_size=3),
        "inputs": st.fixed_dictionaries(
            dict.fromkeys(FEATURES.names, st.lists(SCALARS, min_size=1, max_size=1))
        )
        | ANYTHING,
    },
)


@QUIET
@given(request=FORMS)
def test_invocations(served: TestClient, request: Any) -> None:
    check(served.post("/models/churn/invocations", json=request))


VALID = st.fixed_dictionaries(
    {
        **{name: SCALARS.filter(lambda v: not isinstance(v, str)) for name in FEATURES.numeric},
        "region": st.none() | st.text(max_size=8),
        "plan": st.none() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=8),
    },
    optional={"customer": SCALARS, "seen_at": st.none() | st.integers(0, 2_000_000_000)},
)
FIELDS = VALID | ROW | ANYTHING | st.dictionaries(st.text(max_size=8), SCALARS, max_size=3)


@QUIET
@given(request=FIELDS | st.fixed_dictionaries({"rows": st.lists(FIELDS, max_size=3) | ANYTHING}))
def test_named_fields(served: TestClient, request: Any) -> None:
    for model in ("churn", "price"):
        check(served.post(f"/predict/{model}", json=request))


@QUIET
@given(rows=st.lists(VALID, min_size=1, max_size=3))
def test_right_fields_are_answered(served: TestClient, rows: list[dict[str, Any]]) -> None:
    answer = served.post("/predict/price", json={"rows": rows})
    assert answer.status_code == 200, answer.text
    assert len(answer.json()["predictions"]) == len(rows)
    one = served.post("/predict/price", json=rows[0])
    assert one.json()["prediction"] == answer.json()["predictions"][0]["prediction"]


@QUIET
@given(path=st.text(max_size=30), method=st.sampled_from(["GET", "POST", "DELETE", "HEAD"]))
def test_paths(served: TestClient, path: str, method: str) -> None:
    for before in ("/v2/models/", "/predict/", "/models/", "/docs/", "/"):
        answer = served.request(
            method, before + percent(path, safe="/%"), follow_redirects=False, content=b"{}"
        )
        assert answer.status_code in (200, 307, 400, 404, 405), (before, path)


@QUIET
@given(
    body=st.binary(max_size=60)
    | st.text(alphabet='age,income\n" 1.e9', max_size=80).map(str.encode)
)
def test_raw_bodies(served: TestClient, body: bytes) -> None:
    for media in ("application/json", "text/csv"):
        check(
            served.post("/models/churn/invocations", content=body, headers={"Content-Type": media})
        )
