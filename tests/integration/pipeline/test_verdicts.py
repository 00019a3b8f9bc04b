"""Every way a training run can go, with real parts: promoted, on hold, rejected, skipped, refused."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from include.registry.pins import pin, unpin
from include.registry.promotion import rollback
from tests.integration.pipeline.world import World
from tests.models import write_days

pytestmark = pytest.mark.server
LINEAR = [{"estimator": "sklearn.linear_model.LogisticRegression", "params": {"max_iter": 300}}]
QUICK: dict[str, Any] = {"train": {"candidates": LINEAR, "tune": {"trials": 1, "folds": 2}}}
MUCH_BETTER = {"primary": {"metric": "roc_auc", "promote": "better", "margin": 0.2}}


def of_kind(world: World, model: str, kind: str) -> list[dict[str, Any]]:
    return [event.payload for event in world.ledger.events(model, kind)]


def test_a_model_below_its_minimum_is_rejected_and_never_registered(world: World) -> None:
    world.add_model("weak", **QUICK, evaluate={"minimum": {"roc_auc": 0.99}})
    run = world.run("weak__train")
    assert run.state == "success"
    assert (run.tasks["evaluate"], run.tasks["register"]) == ("success", "skipped")
    assert run.tasks["deploy.promote"] == "skipped"
    verdict = of_kind(world, "weak", "verdict")[0]
    assert verdict["verdict"] == "REJECT"
    assert "must be at least 0.99" in verdict["reason"]
    assert world.registry.versions("weak") == []
    assert world.serves("weak") is None
    assert world.open_runs("weak") == []
    tags = world.registry.client.get_run(verdict["run_id"]).data.tags
    assert tags["evergreen.verdict"] == "REJECT"
    pages = world.registry.client.list_artifacts(verdict["run_id"], "evaluate")
    assert {"evaluate/verdict.json", "evaluate/verdict.md"} <= {page.path for page in pages}

    again = world.run("weak__train")
    assert again.state == "success"
    assert again.tasks["ingest"] == "skipped"
    assert len(of_kind(world, "weak", "verdict")) == 1


def test_a_model_that_is_not_better_is_registered_without_an_alias(world: World) -> None:
    world.add_model("held", **QUICK, evaluate={"primary": {"metric": "roc_auc"}})
    assert world.run("held__train").state == "success"
    before = world.standing("held")
    world.write_spec("held", **QUICK, evaluate=MUCH_BETTER)
    write_days(world.data("held"), first=40, days=10)
    run = world.run("held__train")
    assert run.state == "success"
    assert (run.tasks["register"], run.tasks["deploy.promote"]) == ("success", "skipped")
    assert of_kind(world, "held", "verdict")[-1]["verdict"] == "HOLD"
    after = world.standing("held")
    assert after["versions"] == ["2", "1"]
    assert {**after, "versions": ["1"]} == before

    again = world.run("held__train")
    assert again.tasks["ingest"] == "skipped"
    forced = world.run("held__train", {"force": True})
    assert forced.state == "success"
    assert forced.tasks["register"] == "success"
    assert world.standing("held") == {**after, "versions": ["3", "2", "1"]}
    assert [e["verdict"] for e in of_kind(world, "held", "verdict")] == ["PROMOTE", "HOLD", "HOLD"]


def test_a_rejected_batch_is_quarantined_and_kept_out_of_mlflow_models(world: World) -> None:
    world.add_model("picky", **QUICK, validate={"min_rows": 100_000})
    run = world.run("picky__train")
    assert run.failure[0] == "validate"
    kept = {key.rpartition("/")[2] for key in world.store.list("quarantine/picky/")}
    assert kept == {"manifest.json", "report.html", "report.json"}
    assert world.registry.versions("picky") == []
    experiment = world.registry.experiment_id("picky")
    runs = world.registry.client.search_runs([experiment])
    assert [r.info.status for r in runs] == ["FAILED"]
    reports = world.registry.client.list_artifacts(runs[0].info.run_id, "validate")
    assert any(report.path.endswith(".html") for report in reports)


def test_a_frozen_model_trains_only_when_forced(world: World) -> None:
    world.add_model("frozen", **QUICK)
    now = datetime.now(UTC)
    world.ledger.freeze("frozen", "audit until Monday", key="f", actor="ann", now=now)
    run = world.run("frozen__train")
    assert run.state == "success"
    assert run.tasks["admit"] == "skipped"
    assert set(run.tasks.values()) <= {"skipped", "success"}
    decision = of_kind(world, "frozen", "decision")[-1]
    assert (decision["verdict"], decision["reason"]) == (
        "SKIP",
        "the model is frozen: audit until Monday",
    )
    assert world.registry.versions("frozen") == []
    assert world.run("frozen__train", {"force": True}).tasks["deploy.promote"] == "success"
    assert world.serves("frozen") == "1"


def test_the_same_data_after_a_rollback_is_not_promoted_by_itself(world: World) -> None:
    world.add_model("rolled", **QUICK)
    assert world.run("rolled__train").state == "success"
    write_days(world.data("rolled"), first=40, days=10)
    assert world.run("rolled__train").state == "success"
    assert world.registry.aliases("rolled")["champion"] == "2"
    rollback(
        world.registry,
        world.ledger,
        "rolled",
        to=None,
        key="r",
        reason="complaints",
        actor="ann",
        now=datetime.now(UTC),
    )
    run = world.run("rolled__train")
    assert run.state == "success"
    assert run.tasks["ingest"] == "skipped", "version 2 would take over again by the next cron tick"
    assert world.registry.aliases("rolled")["champion"] == "1"
    forced = world.run("rolled__train", {"force": True})
    assert forced.state == "success"
    assert world.standing("rolled")["aliases"]["champion"] == "3"
    assert world.ledger.verify("rolled").ok


def test_a_pinned_model_is_trained_and_registered_and_not_promoted(world: World) -> None:
    world.add_model("pinned", **QUICK)
    assert world.run("pinned__train").state == "success"
    who = {"actor": "ann", "now": datetime.now(UTC)}
    pin(world.ledger, "pinned", "1", reason="complaints", key="p", **who)
    write_days(world.data("pinned"), first=40, days=10)
    run = world.run("pinned__train")
    assert run.state == "success"
    assert of_kind(world, "pinned", "verdict")[-1]["verdict"] == "PROMOTE"
    assert (run.tasks["register"], run.tasks["deploy.promote"]) == ("success", "skipped")
    assert world.standing("pinned")["aliases"] == {"champion": "1", "challenger": "2"}
    said = world.log.read_text()
    assert f"pinned to version 1 since {who['now']:%Y-%m-%d %H:%M} by ann: complaints" in said
    unpin(world.ledger, "pinned", reason="mended", key="u", **who)
    forced = world.run("pinned__train", {"force": True})
    assert forced.tasks["deploy.promote"] == "success"
    assert world.serves("pinned") == "3"


def test_the_champions_own_data_can_be_trained_on_again_when_forced(world: World) -> None:
    """The first run inferred the features, the second has the champion's: two searches, not one."""
    world.add_model("again", **QUICK)
    assert world.run("again__train").state == "success"
    forced = world.run("again__train", {"force": True})
    assert forced.state == "success"
    assert forced.tasks["evaluate"] == "success"
    assert len(of_kind(world, "again", "verdict")) == 2
    assert world.standing("again")["versions"] == ["2", "1"]


def test_a_champion_whose_snapshot_is_gone_does_not_stop_training(world: World) -> None:
    world.add_model("pruned", **QUICK)
    assert world.run("pruned__train").state == "success"
    for key in list(world.store.list("snapshots/pruned/")):
        world.store.delete(key)
    write_days(world.data("pruned"), first=40, days=10)
    run = world.run("pruned__train")
    assert run.state == "success"
    assert run.tasks["evaluate"] == "success"
    assert len(of_kind(world, "pruned", "verdict")) == 2
