"""What `docs/deploy.md` has people write into files of other programs names what there is."""

import re
import shlex
from pathlib import Path

import msgspec
import pytest

from wizard_actors import cli
from wizard_actors.cli_output import ExitStatus
from wizard_actors.config import WizardConfig
from wizard_actors.server.life import PING_AFTER
from wizard_actors.server.serving import GRACE

TEXT = (Path(__file__).resolve().parent.parent / "docs" / "deploy.md").read_text(encoding="utf-8")
DOCKERFILE, UNIT, NGINX, CADDY = re.findall(r"^```text\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
[CONFIG] = re.findall(r"^```toml\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
DRAIN = WizardConfig.from_toml(CONFIG, env={}).server.drain_timeout
NEW_KEYS = [line.removeprefix("$ ") for line in re.findall(r"^\$ wizard .*$", TEXT, re.MULTILINE)]


def unit(setting: str) -> str:
    """Return a setting of the unit."""
    [value] = re.findall(rf"^{setting}=(.*)$", UNIT, re.MULTILINE)
    return str(value)


def instruction(name: str) -> list[str]:
    """Return a list that an instruction of the Dockerfile takes."""
    [value] = re.findall(rf"^{name} (\[.*\])$", DOCKERFILE, re.MULTILINE)
    return msgspec.json.decode(value, type=list[str])


@pytest.mark.parametrize(
    "command",
    [shlex.split(unit("ExecStart")), [*instruction("ENTRYPOINT"), *instruction("CMD")], *map(shlex.split, NEW_KEYS)],
    ids=" ".join,
)
def test_commands_and_their_flags_exist(command: list[str]) -> None:
    """The program takes them."""
    program, *tokens = command
    assert Path(program).name == "wizard"
    parsed, _, _ = cli.app.parse_args(tokens, print_error=False, exit_on_error=False)
    assert parsed is cli.serve


def test_the_container_is_checked_at_the_port_that_it_serves() -> None:
    """By a command without a shell, which is Python."""
    program, flag, code = re.findall(r'"([^"]*)"', re.findall(r"^    CMD (.*)$", DOCKERFILE, re.MULTILINE)[0])
    assert (program, flag) == ("python", "-c")
    compile(code, "healthcheck", "exec")
    port = instruction("CMD")[-1].rpartition(":")[2]
    assert f", {port})" in code
    assert f"EXPOSE {port}\n" in DOCKERFILE


def test_nobody_is_killed_while_it_stops_in_order() -> None:
    """The unit and the container have, all alike, longer than the drain, the last words, the actors and the storage."""
    seconds = [float(unit("TimeoutStopSec")), *map(float, re.findall(r"(?:stop-timeout |: )(\d+)s?[`,]", TEXT))]
    assert len(seconds) == 4
    assert set(seconds) == {DRAIN + 20}
    assert DRAIN + 20 > DRAIN + 2 * GRACE + 10


def test_paths_do_not_depend_on_where_the_server_is_started() -> None:
    """The unit, the container and whoever makes a key mean the same file, where the server may write."""
    [keys] = re.findall(r'^api_keys_file = .* of a service, all of the path: "(.*?)"', CONFIG, re.MULTILINE)
    folder = str(Path(keys).parent)
    assert Path(keys).is_absolute()
    assert folder == unit("WorkingDirectory") == f"/var/lib/{unit('StateDirectory')}"
    assert f"WORKDIR {folder}\n" in DOCKERFILE


def test_the_image_holds_nothing_of_the_folder_that_it_is_built_from() -> None:
    """Its last stage copies what is installed, and the configuration, alone."""
    stages = DOCKERFILE.split("FROM ")[1:]
    assert len(stages) == 2
    copied = re.findall(r"^(?:COPY|ADD) (.*)$", stages[-1], re.MULTILINE)
    assert copied == ["--from=build /opt/wizard /opt/wizard", "wizard.toml /etc/wizard/wizard.toml"]


def test_what_the_unit_says_of_the_program_is_so() -> None:
    """It is told how it stands, reloads at SIGHUP, and is not started again where that does not help."""
    assert unit("Type") == "notify"
    assert unit("ExecReload").endswith("kill -HUP $MAINPID")
    assert int(unit("RestartPreventExitStatus")) == ExitStatus.WRONG
    assert unit("Environment").startswith("WIZARD_CONFIG=")
    assert int(unit("LimitNOFILE")) > WizardConfig.from_toml(CONFIG, env={}).server.max_connections


def test_proxies_wait_longer_than_the_server_is_silent() -> None:
    """A ping is on its way before they give up."""
    timeouts = [float(each) for each in re.findall(r"proxy_(?:read|send)_timeout (\d+)s;", NGINX)]
    assert len(timeouts) == 2
    assert min(timeouts) > 2 * PING_AFTER
    assert "proxy_buffering off;" in NGINX
    assert "flush_interval -1" in CADDY
