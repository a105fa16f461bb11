"""Loss against compute: trains a ladder, predicts its largest rung from the smaller ones, then trains that.

    python -m experiments.loss_against_compute.run --experiment_dir DIR --gin_bindings "text = ['books']"

Run again, it goes on where it stopped. The prediction is written down before the largest rung begins, and
never written again. See the README beside this file.
"""

import dataclasses
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from icl import experiment_command
from icl.errors import InputError
from icl.experiment_command import train_to_end, write_json

flags.adopt_module_key_flags(experiment_command)


@dataclasses.dataclass(frozen=True)
class Size:
    """A ladder: every rung on every number of tokens, and the rung that is predicted.

    Attributes:
      gin: Its file, beside this one.
      rungs: Models of the runs that the laws are fitted to.
      tokens: Numbers of tokens that each of them is trained on, in runs of their own.
      target: The model that is predicted.
      target_tokens: What it is trained on.
      unseen_rows: Rows after those of the longest run, on which all are measured.
    """

    gin: str
    rungs: tuple[str, ...]
    tokens: tuple[int, ...]
    target: str
    target_tokens: int
    unseen_rows: int


SIZES = {
    "smoke": Size("smoke.gin", ("w8", "w12", "w16"), (8192, 16_384, 32_768), "w24", 65_536, 64),
    "cpu": Size(
        "ladder.gin",
        ("p10k", "p30k", "p55k", "p100k"),
        (300_000, 600_000, 1_200_000, 2_400_000),
        "p300k",
        4_800_000,
        512,
    ),
    "gpu": Size(
        "gpu.gin",
        ("p100k", "p300k", "p1m", "p3m"),
        (20_000_000, 40_000_000, 80_000_000, 160_000_000),
        "p10m",
        320_000_000,
        8192,
    ),
}


def experiment(workdir: Path, size: Size, bindings: Sequence[str]) -> dict[str, Any]:
    """Trains, predicts, trains the target, and writes `prediction.json`, `results.json` and `loss.png`.

    Args:
      workdir: Folder to write to; what it holds already is gone on with.
      size: The ladder.
      bindings: Lines of gin that win over its file; they name the text.

    Returns:
      What results.json holds.

    Raises:
      InputError: a setting is wrong, the text is too short for all to be unique, or the folder's target was
        trained before it was predicted.
    """
    from icl.analysis.run_points import read_points

    runs = {tokens: load(size, size.rungs, tokens, bindings) for tokens in size.tokens}
    (target,) = load(size, [size.target], size.target_tokens, bindings)
    unseen = unseen_rows(size, target)
    smaller, largest = workdir / "smaller", workdir / "largest"
    prediction = workdir / "prediction.json"
    if largest.exists() and not prediction.exists():
        raise InputError(
            f"{largest} exists, but no {prediction}: expected a prediction before the run it is of"
        )
    for tokens, rungs in runs.items():
        for run in rungs:
            train_to_end(run, smaller / f"{tokens}" / run.rung)
    if not prediction.exists():
        points = read_points([smaller], rows=unseen)
        counts = {point.name: point.params for point in read_points([smaller], count="all")}
        write_json(prediction, predict(points, counts, target, smaller))
    train_to_end(target, largest / target.rung)
    return conclude(workdir, unseen)


def load(size: Size, rungs: Sequence[str], tokens: int, bindings: Sequence[str]) -> list[Any]:
    """The runs of some rungs on so many tokens; a twentieth of them is the warm-up."""
    from icl.config import load_runs

    own = [f"TrainConfig.tokens = {tokens}", f"OptimizerConfig.warmup_tokens = {tokens // 20}"]
    return load_runs([str(Path(__file__).parent / size.gin)], [*own, *bindings], rungs)


def unseen_rows(size: Size, target: Any) -> range:
    """The rows after the longest run, once it is sure that the text is long enough for them to be unique."""
    from icl.analysis.text_loss import rows_after
    from icl.training.setup import Setup

    first = max(target.tokens(target.train.steps), max(size.tokens)) // target.data.row_length + 1
    return rows_after(Setup(target), first, size.unseen_rows)


def predict(points: Sequence[Any], counts: Mapping[str, int], target: Any, folder: Path) -> dict[str, Any]:
    """What is written down before the target is trained.

    Args:
      points: The finished runs, N without embeddings.
      counts: All parameters of each run, by its name.
      target: The run that is predicted.
      folder: That the names of the runs lie in.
    """
    from icl import model
    from icl.analysis import scaling_laws as laws
    from icl.training.setup import Setup

    setup = Setup(target)
    params, tokens = model.num_non_embedding_params(setup.model), target.tokens(target.train.steps)
    whole, flops = model.num_params(setup.model), tokens * setup.flops_per_token()
    with_all = [dataclasses.replace(point, params=counts[point.name]) for point in points]
    by_product = [dataclasses.replace(point, flops=0.0) for point in points]
    earlier = one_rung_earlier(points)
    chosen = min(earlier, key=lambda form: abs(earlier[form]["error"]), default="chinchilla")
    law = fit(chosen, points)
    (other,) = {"chinchilla", "kaplan"} - {chosen}
    beside = {
        f"{chosen}, all parameters": (fit(chosen, with_all), {"params": whole, "tokens": tokens}),
        other: (fit(other, points), {"params": params, "tokens": tokens}),
        "compute": (laws.fit_compute_law(points, irreducible=False), {"flops": flops}),
        "compute as 6 N D": (
            laws.fit_compute_law(by_product, irreducible=False),
            {"flops": 6.0 * params * tokens},
        ),
    }
    return {
        "written": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
        "target": {"params": params, "tokens": tokens, "flops": flops, "all_params": whole},
        "form": chosen,
        "extrapolated": dataclasses.asdict(law.predict(params=params, tokens=tokens)),
        "prediction": corrected(law.predict(params=params, tokens=tokens), earlier.get(chosen)),
        "one_rung_earlier": earlier,
        "laws": {chosen: law_as_json(law)}
        | {name: law_as_json(law) | {"predicts": dataclasses.asdict(law.predict(**at))}
           for name, (law, at) in beside.items()},
        "points": [
            dataclasses.asdict(point)
            | {"name": str(Path(point.name).relative_to(folder)), "all_params": counts[point.name]}
            for point in points
        ],
    }  # fmt: skip


def fit(form: str, points: Sequence[Any]) -> Any:
    """L(N, D) in the form of Hoffmann et al. ("chinchilla") or of Kaplan et al. ("kaplan")."""
    from icl.analysis import scaling_laws as laws

    return {"chinchilla": laws.fit_chinchilla_law, "kaplan": laws.fit_kaplan_law}[form](points)


def one_rung_earlier(points: Sequence[Any]) -> dict[str, dict[str, Any]]:
    """The same prediction one rung below, by form: of the largest run, from smaller models on fewer tokens.

    What it says of the forms is known before the target is trained, and decides between them. Nothing where
    those are fewer than three sizes or numbers of tokens, which do not determine a law.
    """
    if min(len({point.params for point in points}), len({point.tokens for point in points})) < 4:
        return {}
    params, tokens = max(point.params for point in points), max(point.tokens for point in points)
    (last,) = (point for point in points if (point.params, point.tokens) == (params, tokens))
    before = [point for point in points if point.params < params and point.tokens < tokens]
    return {
        form: outcome(dataclasses.asdict(fit(form, before).predict(params=params, tokens=tokens)), last.loss)
        for form in ("chinchilla", "kaplan")
    }


def corrected(predicted: Any, earlier: Mapping[str, Any] | None) -> dict[str, Any]:
    """A prediction less the relative error that the same extrapolation had one rung earlier, as far as known.

    The correction counts as being as uncertain as it is large, beside the interval of the law.
    """
    found = dataclasses.asdict(predicted)
    if earlier is None:
        return found
    error = earlier["error"]
    loss = predicted.loss / (1 + error)
    below, above = (math.hypot(end / predicted.loss - 1, error) for end in (predicted.low, predicted.high))
    return found | {"loss": loss, "low": loss * (1 - below), "high": loss * (1 + above)}


def law_as_json(law: Any) -> dict[str, Any]:
    """A fitted law's coefficients with their intervals, and how far points lie from it."""
    coefficients = {name: [value, *law.intervals[name]] for name, value in law.values.items()}
    return {"formula": law.formula, "points": len(law.points), "scatter": law.scatter, "values": coefficients}


def outcome(prediction: Mapping[str, float], measured: float) -> dict[str, Any]:
    """A prediction beside what was measured; errors are shares of the latter."""
    return dict(prediction) | {
        "measured": measured,
        "error": prediction["loss"] / measured - 1,
        "naive_error": prediction["naive"] / measured - 1,
        "within_interval": prediction["low"] <= measured <= prediction["high"],
    }


def conclude(workdir: Path, unseen: range) -> dict[str, Any]:
    """Measures the target, sets it beside the prediction, and draws."""
    from icl.analysis import scaling_laws as laws
    from icl.analysis.run_points import find_runs, read_curve, read_points
    from icl.analysis.scaling_figures import Target, draw
    from icl.analysis.text_loss import text_loss

    found = json.loads((workdir / "prediction.json").read_text())
    (largest,) = read_points([workdir / "largest"], rows=unseen)
    accuracy = text_loss(largest.name, unseen)
    fields = [field.name for field in dataclasses.fields(laws.RunPoint)]
    points = [laws.RunPoint(**{name: point[name] for name in fields}) for point in found["points"]]
    results = found | {
        "prediction": outcome(found["prediction"], largest.loss),
        "unseen": {"rows": len(unseen), "tokens": accuracy.tokens, "standard_error": accuracy.standard_error},
        "size_law": size_law(points),
    }
    write_json(workdir / "results.json", results)
    target = Target(
        **{name: found["target"][name] for name in ("params", "tokens", "flops")},
        prediction=laws.Prediction(**found["prediction"]),
        measured=largest.loss,
    )
    curves = [read_curve(folder) for folder in find_runs([workdir])]
    law, compute_law = fit(found["form"], points), laws.fit_compute_law(points, irreducible=False)
    (workdir / "loss.png").write_bytes(draw(points, curves, law, compute_law, target, "loss (nats per byte)"))
    return results


def size_law(points: Sequence[Any]) -> dict[str, Any] | None:
    """L(N) of the runs on the most tokens; None where those are too few to determine it."""
    from icl.analysis import scaling_laws as laws

    tokens = max(point.tokens for point in points)
    longest = [point for point in points if point.tokens == tokens]
    if len({point.params for point in longest}) < 4:
        return None
    return {"tokens": tokens} | law_as_json(laws.fit_size_law(longest, irreducible=False))


def table(results: Mapping[str, Any]) -> Iterator[str]:
    """Lines that say what came out."""
    yield f"{'parameters':>12} {'tokens':>12} {'FLOPs':>10} {'loss':>8}"
    points = sorted(results["points"], key=lambda point: (point["params"], point["tokens"]))
    for point in (*points, results["target"] | {"loss": results["prediction"]["measured"]}):
        yield f"{point['params']:12,} {point['tokens']:12,} {point['flops']:10.3g} {point['loss']:8.4f}"
    earlier = {f"one rung earlier, {form}": one for form, one in results["one_rung_earlier"].items()}
    extrapolated = outcome(results["extrapolated"], results["prediction"]["measured"])
    last = {f"largest rung, {results['form']}": extrapolated, "the same, corrected": results["prediction"]}
    for name, one in {**earlier, **last}.items():
        yield (
            f"{name}: predicted {one['loss']:.4f} [{one['low']:.4f}, {one['high']:.4f}], measured"
            f" {one['measured']:.4f}: error {one['error']:+.2%}, naive guess {one['naive_error']:+.2%}"
        )


if __name__ == "__main__":
    experiment_command.run(experiment, table, SIZES)
