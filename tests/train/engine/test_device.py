"""What the loop asks of the device."""

import torch

from train.engine.device import compiles, copy_stream, fill, read_back

CPU = torch.device("cpu")


def test_numbers_of_the_host_become_a_tensor():
    filled = fill([True, 3, 0.5], CPU)
    assert filled.tolist() == [1, 3, 0.5] and filled.dtype == torch.float32


def test_every_evaluation_copies_on_the_same_stream(monkeypatch):
    monkeypatch.setattr(torch.cuda, "Stream", lambda _device: object())
    copy_stream.cache_clear()
    streams = [copy_stream(torch.device("cuda", number)) for number in (0, 1, 0)]
    copy_stream.cache_clear()
    assert streams[0] is streams[2] is not streams[1]


def test_a_step_is_compiled_on_cuda_unless_the_recipe_says_otherwise():
    cuda = torch.device("cuda")
    assert compiles("auto", cuda) and not compiles("auto", CPU)
    assert compiles(True, CPU) and not compiles(False, cuda)


def test_results_come_back_one_batch_late():
    given = []

    def results():
        for number in range(3):
            given.append(number)
            yield f"batch {number}", [torch.full((2,), number)]

    back = []
    for about, (values,) in read_back(results(), CPU):
        back.append((about, values.tolist(), len(given)))
    assert back == [("batch 0", [0, 0], 2), ("batch 1", [1, 1], 3), ("batch 2", [2, 2], 3)]
