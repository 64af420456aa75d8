"""A window prints the shapes of its arrays."""

from mme_core import TargetStore


def test_a_window_prints_shapes_not_numbers(demo_store):
    store = TargetStore(demo_store)
    text = repr(store.read(video=0, start=0, tubelets=2))
    assert text.startswith("Window(displacement=float32 [2, ")
    assert "spec=TargetSpec(stride=" in text and len(text) < 1000
    assert "frames=4 × bytes" in repr(store.read_coded(video=0, start=0, tubelets=2))
