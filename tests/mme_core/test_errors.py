from mme_core.errors import listed


def test_a_long_list_says_how_many_more_there_are():
    assert listed(["a", "b"]) == listed(["a", "b"], 2) == "a, b"
    assert listed(["a", "b", "c", "d"], 2) == "a, b and 2 more"
