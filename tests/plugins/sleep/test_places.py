"""Aliases that share an upstream are one place to the gate."""

from predawn.plugins.sleep.places import Places
from predawn.proxy.settings import Settings


def places(models, upstreams=("a", "b", "c")):
    described = [
        {"name": name, "kind": "local"} if name.startswith("local") else {"name": name, "base_url": "http://h/v1"}
        for name in upstreams
    ]
    return Places(Settings.model_validate({"upstreams": described, "models": models}))


def test_an_alias_is_at_its_upstream():
    found = places([{"name": "m", "upstream": "b"}])

    assert (found.of("m"), found.all) == ("b", {"b"})


def test_aliases_that_share_an_upstream_are_at_one_place():
    found = places(
        [
            {"name": "m", "targets": [{"upstream": "a"}, {"upstream": "b"}]},
            {"name": "n", "targets": [{"upstream": "b"}, {"upstream": "c"}]},
            {"name": "o", "upstream": "c"},
        ]
    )

    assert len({found.of("m"), found.of("n"), found.of("o"), found.place_of("b")}) == 1


def test_a_name_that_any_alias_takes_is_at_its_upstream():
    found = places([{"name": "m", "upstream": "a"}, {"name": "*", "upstream": "c"}])

    assert (found.of("whatever"), found.of("m")) == ("c", "a")
    assert found.has("whatever")
    assert found.label_of("whatever") == "other"
    assert found.names == ("m",)


def test_a_model_that_came_with_a_reload_is_a_place_of_its_own():
    found = places([{"name": "m", "upstream": "a"}])

    assert found.of("new") == "new"
    assert not found.has("new")


def test_only_the_bundled_model_is_spoken_to_tersely():
    models = [{"name": "tiny", "upstream": "local"}, {"name": "m", "upstream": "a"}]
    found = places(models, ("local", "a"))

    assert (found.style_of("tiny"), found.style_of("m"), found.style_of("unknown")) == ("terse", "full", "full")
