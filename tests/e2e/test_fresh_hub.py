"""A hub without environments: what people see first, and that it says what to do."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from tests.e2e.conftest import make_account
from tests.support.browsing import picture


@pytest.fixture(scope="module")
def student(target):
    return make_account(target, "newcomer")


def test_a_student_is_told_whom_to_ask(visit, student, pictures):
    page = visit(student)
    expect(page.get_by_text("There is no environment to start yet.")).to_be_visible()
    expect(page.get_by_text("Please ask your teacher")).to_be_visible()
    for name in ("Environments", "Permissions", "Admin"):
        expect(page.get_by_role("link", name=name, exact=True)).to_have_count(0)
    picture(page, "fresh-student", pictures)


def test_the_administrator_is_led_to_the_first_environment(visit, teacher, pictures):
    page = visit(teacher)
    expect(page.get_by_text("There is no environment to start yet.")).to_be_visible()
    page.get_by_role("link", name="Add an environment").click()
    expect(page.get_by_role("heading", name="There are no environments yet")).to_be_visible()
    expect(page.get_by_role("button", name="Add the first environment")).to_be_visible()
    picture(page, "environments-empty", pictures)
    page.get_by_role("link", name="Permissions", exact=True).click()
    expect(page.get_by_role("heading", name="There are no environments yet")).to_be_visible()
