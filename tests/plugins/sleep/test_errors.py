"""What upstreams say when they refuse: short, one line, no secrets."""

from hypothesis import given
from hypothesis import strategies as st

from predawn.plugins.sleep.errors import MOST_CHARS, fit_to_keep


def test_credentials_and_the_settings_own_secrets_are_taken_out():
    said = 'invalid api_key="abcdef123" for Bearer abcd.efgh and sk-1234567890, see hunter22'

    kept = fit_to_keep(said, {"hunter22"})

    assert not any(secret in kept for secret in ("abcdef123", "abcd.efgh", "1234567890", "hunter22"))
    assert kept.startswith("invalid api_key=")


def test_a_secret_at_the_cut_is_found_whole():
    said = "x" * (MOST_CHARS - 4) + " hunter22-is-the-password"

    assert "hun" not in fit_to_keep(said, {"hunter22-is-the-password"})


@given(st.text())
def test_any_text_becomes_one_short_line(text):
    kept = fit_to_keep(text * 50)

    assert len(kept) <= MOST_CHARS
    assert kept.isprintable()
    assert fit_to_keep(kept) == kept
