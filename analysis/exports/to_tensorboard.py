"""A run as event files of TensorBoard: the HParams page and one curve a metric and trial."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from analysis import pareto
from analysis.exports import plain
from analysis.results import Results

PLUGIN = "hparams"
BEST = "best/"  # the metrics of the best epoch, which the HParams page shows; it would take a curve's last point


def to_tensorboard(results: Results, folder: Path) -> str:
    """One folder a trial in `folder`: its settings, its metrics by epoch and those of its best epoch under best/.

    The folder itself says which settings and metrics there are, so that the HParams page has a column for each, also
    for those that the first trial did not use. Settings go by their path, as several branches share one column there.
    Returns what to type to look at it.

    Raises:
        ValueError: tensorboardX is not installed, or the folder holds event files already.
    """
    try:
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.proto.summary_pb2 import Summary
    except ImportError:
        raise ValueError("tensorboard: needs tensorboardX; pip install 'hypertune[tensorboard]'") from None
    folder = Path(folder)
    if next(folder.rglob("events.out.tfevents.*"), None) is not None:
        raise ValueError(f"{folder}: holds event files already, and they are not overwritten; choose another folder")
    columns = {p.name: p.column for p in results.parameters}
    trials = list(plain.trials(results))
    shown = [o.metric for o in pareto.objectives(results)] or ([results.metric] if results.metric else [])
    shown += [name for name in plain.metrics(results) if name not in shown]

    def write(place: Path, events: Sequence[Any]) -> None:
        place.mkdir(parents=True, exist_ok=True)
        writer = EventsWriter(str(place / "events"))
        for event in events:
            writer.write_event(event)
        writer.close()

    def scalars(time: float, step: int, values: Mapping[str, float]) -> Any:
        found = [Summary.Value(tag=_tag(name), simple_value=value) for name, value in values.items()]
        return Event(wall_time=time, step=step, summary=Summary(value=found))

    names = _folders([trial.id for trial in trials])
    begun = min((trial.began for trial in trials), default=0.0)
    write(folder, [Event(wall_time=begun, summary=_experiment(results, shown, trials))])
    for trial, name in zip(trials, names, strict=True):
        last = trial.ended or max((row.time for row in trial.epochs), default=trial.began)
        settings = {columns[key]: value for key, value in trial.settings.items()}
        best = {BEST + key: value for key, value in trial.best.items()}
        events = [Event(wall_time=trial.began, summary=_start(trial, settings))]
        events += [scalars(row.time, row.epoch, row.metrics) for row in trial.epochs]
        events += [scalars(last, trial.best_epoch or 0, best)] if best else []
        events += [Event(wall_time=last, summary=_end(trial, last))] if trial.state != "running" else []
        write(folder / name, events)
    return f"tensorboard --logdir {folder}"


def _experiment(results: Results, shown: Sequence[str], trials: Sequence[plain.Trial]) -> Any:
    """Every setting with its values, every metric."""
    from tensorboardX.proto.api_pb2 import DataType, Experiment, HParamInfo, Interval, MetricInfo, MetricName

    infos: dict[str, Any] = {}
    for parameter in results.parameters:
        values = [trial.settings[parameter.name] for trial in trials if parameter.name in trial.settings]
        kinds = {_kind(value) for value in values}
        kind = kinds.pop() if len(kinds) == 1 else "string"
        info = HParamInfo(name=parameter.column, type=DataType.Value(f"DATA_TYPE_{kind.upper()}"))
        if kind == "float64":
            info.domain_interval.CopyFrom(Interval(min_value=min(values), max_value=max(values)))
        elif kind == "string":
            info.domain_discrete.extend(list(dict.fromkeys(map(str, values))))
        infos.setdefault(parameter.column, info)
    metrics = [
        MetricInfo(name=MetricName(tag=_tag(BEST + name)), display_name=f"{name} (best epoch)") for name in shown
    ]
    return _plugin(
        "_hparams_/experiment",
        experiment=Experiment(name=results.name, hparam_infos=list(infos.values()), metric_infos=metrics),
    )


def _start(trial: plain.Trial, settings: Mapping[str, Any]) -> Any:
    from tensorboardX.proto.plugin_hparams_pb2 import SessionStartInfo

    info = SessionStartInfo(group_name=trial.id, start_time_secs=trial.began)
    for name, value in settings.items():
        field = {"float64": "number_value", "bool": "bool_value", "string": "string_value"}[_kind(value)]
        setattr(info.hparams[name], field, str(value) if field == "string_value" else value)
    return _plugin("_hparams_/session_start_info", session_start_info=info)


def _end(trial: plain.Trial, time: float) -> Any:
    from tensorboardX.proto.api_pb2 import Status
    from tensorboardX.proto.plugin_hparams_pb2 import SessionEndInfo

    well = trial.state in ("finished", "stopped", "interrupted")
    status = Status.Value("STATUS_SUCCESS" if well else "STATUS_FAILURE")
    return _plugin("_hparams_/session_end_info", session_end_info=SessionEndInfo(status=status, end_time_secs=time))


def _plugin(tag: str, **content: Any) -> Any:
    from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData
    from tensorboardX.proto.summary_pb2 import Summary, SummaryMetadata

    data = HParamsPluginData(version=0, **content).SerializeToString()
    metadata = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name=PLUGIN, content=data))
    return Summary(value=[Summary.Value(tag=tag, metadata=metadata)])


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    return "float64" if isinstance(value, int | float) and math.isfinite(value) else "string"


def _tag(name: str) -> str:
    """A name as TensorBoard takes it: letters, digits and -_./ alone, without a slash in front."""
    return re.sub(r"[^-/\w.]", "_", name).lstrip("/") or "_"


def _folders(names: Sequence[str]) -> list[str]:
    """A folder's name for each trial, none of which leads elsewhere and no two the same."""
    found: dict[str, None] = {}
    for name in names:
        made = re.sub(r"[^-\w.]", "_", name).lstrip(".")[:100] or "_"
        while made in found:
            made += "_"
        found[made] = None
    return list(found)
