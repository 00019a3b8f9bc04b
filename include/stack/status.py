"""What the embedded stack is doing at one moment. Starts and changes nothing."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from include.errors import ServiceError
from include.settings import Settings
from include.stack import leftovers, probes
from include.stack.components import Component, get_components
from include.stack.layout import Layout, get_layout
from include.stack.supervision import Process, Supervisor


@dataclass(frozen=True)
class ComponentStatus:
    """One line of `status`.

    Args:
        component: What it is.
        process: What supervisord says.
        healthy: Whether it answered its own probe.
    """

    component: Component
    process: Process
    healthy: bool

    @property
    def name(self) -> str:
        """The component's name."""
        return self.component.name


@dataclass(frozen=True)
class Status:
    """The stack at one moment.

    Args:
        supervised: Whether supervisord answers.
        components: Each component, in starting order.
        leftovers: Process ids that run although supervisord is gone.
    """

    supervised: bool
    components: tuple[ComponentStatus, ...]
    leftovers: tuple[int, ...] = ()

    @property
    def healthy(self) -> bool:
        """Whether everything works."""
        return self.supervised and all(item.healthy for item in self.components)

    def only(self, names: Collection[str]) -> Status:
        """Return the status of some components."""
        some = tuple(item for item in self.components if item.name in names)
        return Status(self.supervised, some, self.leftovers)


def running_settings(settings: Settings) -> Settings:
    """Return the settings with the ports the stack was really started with, when it runs.

    `EVERGREEN_AIRFLOW_PORT=9000 ./evergreen up` is then found by a later `./evergreen trigger`.
    """
    ports = get_layout(settings.home).read_state().get("ports", {})
    known = {name: int(port) for name, port in ports.items() if name in Settings.model_fields}
    return Settings(**{**settings.model_dump(), **known}) if known else settings


def find_supervisor(layout: Layout) -> Supervisor | None:
    """Return the supervisor of a running stack; None when nobody answers."""
    path = layout.read_state().get("socket")
    supervisor = Supervisor(Path(path)) if path else None
    return supervisor if supervisor and supervisor.state() else None


def get_status(settings: Settings) -> Status:
    """Return what runs and whether it works."""
    layout = get_layout(settings.home)
    components = get_components(running_settings(settings), layout)
    supervisor = find_supervisor(layout)
    processes: dict[str, Process] = {}
    if supervisor is not None:
        try:
            processes = supervisor.processes()
        except ServiceError:  # on its way out since it answered
            processes = {}
    health = probes.check(components, processes)
    found = tuple(
        ComponentStatus(
            component,
            processes.get(component.name, Process(component.name, "STOPPED", 0, 0.0, 0.0, "")),
            health[component.name],
        )
        for component in components
    )
    orphans = () if processes else tuple(p.pid for p in leftovers.find(layout.home))
    return Status(bool(processes), found, orphans)
