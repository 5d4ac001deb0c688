"""The hub's service of environments over HTTP: what is sent to it, and what its answers become."""

from __future__ import annotations

import http.server
import json
import threading

import pytest
from salt.exceptions import CommandExecutionError

import plasma_environment_api as api
import plasma_hub_connection as hub_connection
from tests.unit.modules.stand_in_hub_api import TOKEN, functions_of_a_hub, make_prefix

MARKER = "T0ken-of-nobody-else"
STARTING = b"<html>The service is starting</html>"


@pytest.fixture
def functions():
    return functions_of_a_hub()


@pytest.fixture
def configure_loader_modules(functions, monkeypatch):
    monkeypatch.setattr(api, "RETRY", 0.01)
    return {api: {"__salt__": functions}, hub_connection: {"__salt__": functions}}


@pytest.fixture
def prefix(tmp_path):
    return make_prefix(tmp_path)


@pytest.fixture
def service(functions):
    """``answers`` are given in turn, the last one for ever: (status, bytes or what JSON holds); ``asked`` is noted."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self):
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            server.asked.append((self.command, self.path, body, dict(self.headers)))
            status, content = server.answers[0] if len(server.answers) == 1 else server.answers.pop(0)
            text = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_PATCH = do_DELETE = answer  # the names that http.server calls

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.answers, server.asked = [], []
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    functions["tljh_settings.show"].return_value = {"http": {"port": server.server_address[1]}}
    yield server
    server.shutdown()
    server.server_close()


def test_what_there_is_is_listed(service, prefix):
    service.answers = [(200, {"environments": [{"image": "r:v1"}]})]
    assert api.items(prefix) == [{"image": "r:v1", **api.UNKNOWN}]
    ((method, path, body, headers),) = service.asked
    assert (method, path, body) == ("GET", "/services/plasma/api/environments", None)
    assert headers["Authorization"] == f"token {TOKEN}"
    # Those are a browser's.
    assert not {"Origin", "Cookie"} & set(headers)


@pytest.mark.parametrize(
    ("base_url", "path"), [("/", "/services/"), ("/x/", "/x/services/"), ("x/y", "/x/y/services/")]
)
def test_the_base_url_is_part_of_the_address(service, prefix, functions, base_url, path):
    functions["tljh_settings.show"].return_value["base_url"] = base_url
    service.answers = [(200, {"environments": []})]
    api.items(prefix)
    assert service.asked[0][1] == f"{path}plasma/api/environments"


def test_groups_are_those_that_can_be_chosen(service, prefix):
    found = [
        {"name": name, "exists": here, "configured": known}
        for name, here, known in (("b", True, True), ("a", True, True), ("gone", False, True), ("other", True, False))
    ]
    service.answers = [(200, {"groups": found})]
    assert api.groups(prefix) == ["a", "b"]


def test_an_image_is_one_part_of_an_address(service, prefix):
    service.answers = [(202, {"image": "r:v1"})]
    assert api.change("POST", "r/../x:v1", {"commit": "a"}, part="build", prefix=prefix) == {"image": "r:v1"}
    method, path, body, headers = service.asked[0]
    assert (method, path, body) == ("POST", "/services/plasma/api/environments/r%2F..%2Fx%3Av1/build", {"commit": "a"})
    assert headers["Content-Type"] == "application/json"


def test_the_end_of_a_log(service, prefix):
    service.answers = [(200, {"lines": ["a", "b"]})]
    assert api.log_tail("r:v1", 5, prefix) == ["a", "b"]
    assert service.asked[0][1] == "/services/plasma/api/environments/r%3Av1/log/tail?lines=5"


def test_a_refusal_is_the_sentence_of_the_service(service, prefix):
    service.answers = [(400, {"status": 400, "message": "The group 'x' does not exist."})]
    with pytest.raises(CommandExecutionError) as caught:
        api.ask("POST", "environments", {"password": MARKER}, prefix=prefix)
    assert str(caught.value) == "The group 'x' does not exist."


def test_some_refusals_are_answers(service, prefix):
    service.answers = [(409, {"status": 409, "message": "In use.", "users": ["anna"]})]
    assert api.change("DELETE", "r:v1", prefix=prefix, also=(409,))["users"] == ["anna"]


@pytest.mark.parametrize(
    ("status", "answer"),
    [
        (403, {"status": 403, "message": "Forbidden"}),
        (404, {"status": 404, "message": "There is nothing here."}),
        # The hub itself, where the proxy knows no service.
        (404, b"<html>Not found</html>"),
        (302, b""),
    ],
)
def test_an_older_plugin_says_what_to_do(service, prefix, status, answer):
    service.answers = [(status, answer)]
    with pytest.raises(
        CommandExecutionError, match=r"apply the state tljh, which brings (it|the one that does)\.$"
    ) as caught:
        api.items(prefix, timeout=0.05)
    assert caught.value.older is True


def test_a_hub_without_a_token_is_an_older_one(service, prefix):
    (prefix / "state" / hub_connection.TOKEN_FILE).unlink()
    with pytest.raises(CommandExecutionError, match="of an older release or .*: apply the state tljh") as caught:
        api.items(prefix)
    assert caught.value.older is True


def test_an_environment_that_is_gone_is_no_older_plugin(service, prefix):
    service.answers = [(404, {"status": 404, "message": "There is no environment 'r:v1' (any more)."})]
    with pytest.raises(CommandExecutionError, match="There is no environment") as caught:
        api.change("DELETE", "r:v1", prefix=prefix)
    assert not hasattr(caught.value, "older")


@pytest.mark.parametrize("status", [503, 404, 502])
def test_a_service_that_starts_is_waited_for(service, prefix, status):
    service.answers = [(status, STARTING), (status, STARTING), (200, {"environments": []})]
    assert api.items(prefix) == []
    assert len(service.asked) == 3


def test_a_service_that_never_starts_is_not_waited_for_without_end(service, prefix):
    service.answers = [(503, STARTING)]
    with pytest.raises(CommandExecutionError, match=r"does not answer \(HTTP status 503\): see journalctl") as caught:
        api.items(prefix, timeout=0.05)
    assert not hasattr(caught.value, "older")


def test_without_a_hub(prefix):
    for function in (api.items, api.groups):
        assert function(prefix / "elsewhere") is None
    assert api.log_tail("r:v1", prefix=prefix / "elsewhere") == []


def test_what_is_sent_is_in_no_error_and_no_log(prefix, functions, caplog):
    functions["tljh_settings.show"].return_value = {"http": {"port": 1}}
    with pytest.raises(CommandExecutionError, match="does not answer at") as caught:
        api.ask("POST", "environments", {"password": MARKER}, prefix=prefix)
    assert MARKER not in str(caught.value) + caplog.text
