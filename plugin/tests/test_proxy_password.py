"""The password between hub and proxy: checked quickly where it is random, slowly where somebody chose it."""

from __future__ import annotations

import secrets

import bcrypt
import pytest
from tljh_plasma.config_hook import quicken_proxy
from traitlets.config import Config


def hashed(**settings) -> str | None:
    config = Config()
    config.TraefikProxy.update(settings)
    quicken_proxy(config)
    return config.TraefikProxy.get("traefik_api_hashed_password")


def test_a_random_password_is_hashed_with_the_least_cost():
    password = secrets.token_hex(32)
    made = hashed(traefik_api_password=password)
    assert made.startswith("$2b$04$")
    assert bcrypt.checkpw(password.encode(), made.encode())
    assert not bcrypt.checkpw(password[:-1].encode(), made.encode())


@pytest.mark.parametrize("password", ["", "chosen by somebody", "x" * 63, "x" * 73, None])
def test_other_passwords_are_left_to_the_proxy(password):
    assert hashed(traefik_api_password=password) is None


def test_a_hash_of_the_administrator_stays():
    assert hashed(traefik_api_password="a" * 64, traefik_api_hashed_password="theirs") == "theirs"


def test_without_traefik_nothing_is_set():
    assert hashed() is None
