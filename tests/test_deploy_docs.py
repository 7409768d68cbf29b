"""What `docs/deploy.md` has people write into files of other programs names what there is."""

import re
import shlex
import subprocess
from pathlib import Path

import msgspec
import pytest
import yaml  # type: ignore[import-untyped]  # comes without types

from tests.wizard_cli import PROGRAM, clean_environment
from wizard_actors import cli
from wizard_actors.cli_output import ExitStatus
from wizard_actors.config import TimeoutsConfig, WizardConfig
from wizard_actors.http_api.openapi import document
from wizard_actors.server.http_calls import PING_EVERY
from wizard_actors.server.life import PING_AFTER
from wizard_actors.server.serving import GRACE

TEXT = (Path(__file__).resolve().parent.parent / "docs" / "deploy.md").read_text(encoding="utf-8")
DOCKERFILE, UNIT, NGINX, CADDY, KUBERNETES = re.findall(r"^```text\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
[CONFIG] = re.findall(r"^```toml\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
SERVER = WizardConfig.from_toml(CONFIG, env={}).server
DRAIN = SERVER.drain_timeout
DESCRIBED = document(version="1", keyed=True)["paths"]
assert isinstance(DESCRIBED, dict)
PATHS = frozenset(DESCRIBED)
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
    """By a command without a shell, which is Python, and asks for what there is."""
    program, flag, code = re.findall(r'"([^"]*)"', re.findall(r"^    CMD (.*)$", DOCKERFILE, re.MULTILINE)[0])
    assert (program, flag) == ("python", "-c")
    compile(code, "healthcheck", "exec")
    options = instruction("CMD")
    http, websocket = (options[options.index(f"--{name}") + 1].rpartition(":")[2] for name in ("http", "websocket"))
    assert f"127.0.0.1:{http}/health/live'" in code
    assert f"EXPOSE {http} {websocket}\n" in DOCKERFILE
    assert "/health/live" in PATHS
    assert "'/src[http]'" in DOCKERFILE


def test_the_first_key_of_a_container_is_where_its_server_looks(tmp_path: Path) -> None:
    """Both mount the volume where the image's user may write, and starts; the ports are those that it serves."""
    made, ran = map(shlex.split, re.findall(r"^docker run .*$", TEXT, re.MULTILINE))
    image = made.index("IMAGE")
    folder = str(Path(re.findall(r"--home-dir (\S+) ", DOCKERFILE)[0]))
    assert made[made.index("-v") + 1] == ran[ran.index("-v") + 1] == f"wizard:{folder}"
    assert f"WORKDIR {folder}\n" in DOCKERFILE
    published = [ran[index + 1].split(":") for index, each in enumerate(ran) if each == "-p"]
    assert f"EXPOSE {' '.join(inside for _, inside in published)}\n" in DOCKERFILE
    assert float(ran[ran.index("--stop-timeout") + 1]) == DRAIN + 20
    assert ran[-1] == "IMAGE"
    (tmp_path / "wizard.toml").write_text(CONFIG)
    home = tmp_path / "home"
    home.mkdir()
    env = {**clean_environment(), "WIZARD_CONFIG": str(tmp_path / "wizard.toml")}
    done = subprocess.run([*PROGRAM, *made[image + 1 :]], check=True, cwd=home, env=env, capture_output=True)
    assert done.stdout.startswith(b"wz_")
    assert [each.name for each in home.iterdir() if not each.name.startswith(".")] == ["keys.toml"]


def test_kubernetes_asks_for_what_there_is_and_waits_for_the_end() -> None:
    """Whether it lives and is ready, at the container's port; and `preStop` is time that the server has beside its
    own.
    """
    container = yaml.safe_load(KUBERNETES)["spec"]["containers"][0]
    for probe, path in (("startup", "live"), ("liveness", "live"), ("readiness", "ready")):
        asked = container[f"{probe}Probe"]["httpGet"]
        assert asked == {"path": f"/health/{path}", "port": "http"}
        assert asked["path"] in PATHS
    options = instruction("CMD")
    assert options[options.index("--http") + 1].endswith(f":{container['ports'][0]['containerPort']}")
    [_, first] = container["lifecycle"]["preStop"]["exec"]["command"]
    assert yaml.safe_load(KUBERNETES)["spec"]["terminationGracePeriodSeconds"] - int(first) == DRAIN + 20


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
    """A ping is on its way before they give up; and they use no connection that the server is about to close."""
    websocket, http = re.findall(r"location .*?\n    }", NGINX, re.DOTALL)
    for location, silent in ((websocket, PING_AFTER), (http, PING_EVERY)):
        timeouts = [float(each) for each in re.findall(r"proxy_(?:read|send)_timeout (\d+)s;", location)]
        assert len(timeouts) == 2
        assert min(timeouts) > 2 * silent
        assert "proxy_buffering off;" in location
    assert CADDY.count("flush_interval -1") == CADDY.count("reverse_proxy") == 2
    kept = [float(each) for each in re.findall(r"keepalive(?:_timeout)? (\d+)s", NGINX + CADDY)]
    assert len(kept) == 2
    assert max(kept) < SERVER.idle_timeout


def test_proxies_let_pass_what_the_server_takes() -> None:
    """Paths that there are, and bodies that it bounds itself; answers that are not streamed take their time."""
    [prefix] = re.findall(r"location (/v1/) ", NGINX)
    assert {path for path in PATHS if path.startswith(prefix)}
    assert f"reverse_proxy {prefix}* " in CADDY
    assert re.findall(r"health_uri (.*)", CADDY)[0] in PATHS
    assert int(re.findall(r"client_max_body_size (\d+)m;", NGINX)[0]) * 2**20 == SERVER.max_message
    assert float(re.findall(r"proxy_read_timeout (\d+)s;", NGINX)[-1]) > TimeoutsConfig().total
