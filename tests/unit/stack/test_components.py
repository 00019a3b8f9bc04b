from include.settings import Settings
from include.stack.components import Component, get_components
from include.stack.layout import Layout


def _by_name(settings: Settings, layout: Layout) -> dict[str, Component]:
    return {component.name: component for component in get_components(settings, layout)}


def test_mlflow_without_a_login_stays_on_this_machine(layout: Layout) -> None:
    found = _by_name(Settings(home=layout.home, host="0.0.0.0"), layout)
    assert found["mlflow"].host == "127.0.0.1"
    assert found["mlflow"].command[found["mlflow"].command.index("--host") + 1] == "127.0.0.1"
    assert found["api-server"].host == "0.0.0.0"
    assert found["api-server"].url == "http://127.0.0.1:8080"


def test_nothing_serves_logs_on_all_interfaces(settings: Settings, layout: Layout) -> None:
    found = _by_name(settings, layout)
    assert "--skip-serve-logs" in found["scheduler"].command
    assert "--skip-serve-logs" in found["triggerer"].command


def test_mlflow_accepts_its_own_names_only(layout: Layout) -> None:
    command = _by_name(Settings(home=layout.home, mlflow_port=7), layout)["mlflow"].command
    hosts = command[command.index("--allowed-hosts") + 1]
    assert hosts == "127.0.0.1,127.0.0.1:7,localhost,localhost:7"


def test_who_does_not_listen_has_no_address(settings: Settings, layout: Layout) -> None:
    found = _by_name(settings, layout)
    assert [name for name, c in found.items() if c.url] == ["mlflow", "api-server", "serving"]
    assert all(bool(c.setting) == bool(c.url) for c in found.values())
