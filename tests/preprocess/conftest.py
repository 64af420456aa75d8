import pytest
from small_files import write_tree


@pytest.fixture
def videos(tmp_path):
    return write_tree(tmp_path / "videos", 4)
