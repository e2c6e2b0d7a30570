from exporter.credentials.values import Keys, Token


def test_secrets_are_in_no_repr() -> None:
    shown = repr(Token("secret-token", 5.0)) + repr(Keys("AK1", "secret-key", "secret-token", 5.0))
    assert "secret" not in shown.replace("secret_key", "")
    assert "AK1" in shown
