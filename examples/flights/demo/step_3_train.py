"""Train: three candidates as jobs in processes of their own, by a pipeline whose steps are cached."""

from __future__ import annotations

from flights.pipeline import retrain_delay, train_delay

from demo.screen import Screen
from modelyard.sdk.pipelines import check_succeeded, register_pipeline, start_run, step_output, wait_run
from modelyard.types.pipelines import PipelineRun, StepState

UNTIL = "2013-04-01T00:00:00+00:00"
TIMEOUT_S = 300


def run(screen: Screen) -> PipelineRun:
    """Run the training pipeline to its end."""
    register_pipeline(retrain_delay)
    started = start_run(train_delay, {"until": UNTIL})
    screen.say(f"pipeline run {started.id}, {len(started.steps)} steps, each a job")
    done = check_succeeded(wait_run(started.id, timeout_s=TIMEOUT_S, on_change=lambda seen: follow(screen, seen)))
    for step in done.steps:
        if step.name.startswith("train-"):
            found = step_output(done.id, step.name)
            screen.good(
                f"{found['candidate']:9} log loss {found['log_loss']:.4f}, AUC {found['auc']:.3f} held out, "
                f"run {found['run']}"
            )
    return done


def follow(screen: Screen, seen: PipelineRun) -> None:
    """Say which steps run."""
    running = [step.name for step in seen.steps if step.state is StepState.RUNNING]
    over = sum(step.state.final for step in seen.steps)
    screen.now(f"{over} of {len(seen.steps)} steps are done; running: {', '.join(running) or 'none'}")
