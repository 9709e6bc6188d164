import resource

import accelerate
import pytest
import torch
from safetensors import SafetensorError

from mars_core.fit.snapshots import Snapshot
from mars_core.fit.training_curve import Progress

ALONE = accelerate.Accelerator(cpu=True)


def learner(seed=0):
    """Two weights, of which a gradient reaches the first alone, and AdamW over them."""
    torch.manual_seed(seed)
    weights = {name: torch.nn.Parameter(torch.randn(300, 4)) for name in ("used", "unused")}
    return weights, torch.optim.AdamW(weights.values(), lr=0.1, fused=True)


def learn(weights, optimizer, steps):
    for _ in range(steps):
        weights["used"].square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.fixture
def snapshot(tmp_path):
    def make(weights, optimizer, digest="a fit"):
        return Snapshot(tmp_path / ".model.unfinished", digest, weights, optimizer, ALONE)

    return make


def test_learning_goes_on_from_a_snapshot_as_if_nothing_had_happened(snapshot):
    undisturbed = learner()
    learn(*undisturbed, 5)
    stopped, resumed = learner(), learner(seed=1)
    learn(*stopped, 3)
    snapshot(*stopped).write({"step": 3})
    assert snapshot(*resumed).read() == {"step": 3}
    learn(*resumed, 2)
    for name, weight in undisturbed[0].items():
        assert torch.equal(weight, resumed[0][name])


def test_a_snapshot_of_another_fit_is_left_alone(snapshot, caplog):
    one, other = learner(), learner(seed=1)
    learn(*one, 1)
    snapshot(*one).write({"step": 1})
    before = other[0]["used"].clone()
    assert snapshot(*other, digest="another fit").read() is None
    assert torch.equal(other[0]["used"], before)
    assert "belongs to another fit" in caplog.text


def test_a_file_that_is_missing_or_cut_short_is_no_snapshot(snapshot):
    one = learner()
    assert snapshot(*one).read() is None
    learn(*one, 1)
    snapshot(*one).write({"step": 1})
    file = snapshot(*one).file
    file.write_bytes(file.read_bytes()[:-100])
    assert snapshot(*one).read() is None


@pytest.fixture
def full_disk():
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_leaves_the_previous_snapshot(snapshot, caplog, request):
    one = learner()
    learn(*one, 1)
    snapshot(*one).write({"step": 1})
    learn(*one, 1)
    request.getfixturevalue("full_disk")
    snapshot(*one).refresh(Progress(step=2))
    assert "cannot be written, the previous snapshot stays" in caplog.text
    assert snapshot(*learner()).read() == {"step": 1}


def test_a_snapshot_that_must_be_there_is_not_missed_in_silence(snapshot, full_disk):
    with pytest.raises((OSError, SafetensorError)):
        snapshot(*learner()).write({"step": 1})


def test_a_snapshot_becomes_due_and_is_removed_at_the_end(snapshot):
    one = snapshot(*learner())
    assert not one.is_due(60.0)
    assert one.is_due(0.0)
    one.refresh(Progress(step=2))
    assert one.read()["step"] == 2
    assert not one.is_due(60.0)
    one.remove()
    assert not one.file.exists()
