from mme_core.keys import dotted


def test_nested_and_dotted_keys_are_the_same():
    assert dotted({"a.b": 1, "a": {"b": 2, "c": {"d": []}}}) == {"a.b": 2, "a.c.d": []}
    assert dotted({"a": {}}) == {"a": {}}
