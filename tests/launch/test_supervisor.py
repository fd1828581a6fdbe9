"""Thirty preemptions and every other mishap, on a cloud of paper: nothing is left over, nothing ever runs twice."""

import numpy as np
import pytest

from diffusion import usage
from launch import attempt
from tests.launch import conftest
from tests.launch import world as worlds

FAULTS = {
    'tpu-vm': (
        'garbage', 'silence', 'capacity', 'failed', 'made all the same', 'not deleted', 'deleted all the same',
        'half set up', 'deaf', 'not started',
    ),
    'gke': ('garbage', 'capacity', 'not deleted'),
    'slurm': ('garbage', 'silence', 'capacity', 'made all the same'),
}  # fmt: skip


def finish(simulation, rng=None, **pacing):
    """Supervises to the end; with rng its process is killed at random calls and started again."""
    for _ in range(400):
        if rng is not None and rng.random() < 0.9:
            simulation.crash = (int(rng.integers(1, 80)), bool(rng.random() < 0.5))
        try:
            return simulation.supervise(**pacing)
        except conftest.Crash:
            simulation.crash = ()
    raise AssertionError('it does not end')


def left_over(simulation):
    simulation.world.pass_time(3600.0)
    return simulation.world['things']


@pytest.mark.parametrize('target', conftest.KINDS)
@pytest.mark.parametrize('seed', [0, pytest.param(1, marks=pytest.mark.long)])
def test_thirty_preemptions_leave_no_machine_and_start_nothing_twice(simulated, target, seed):
    rng = np.random.default_rng(seed)
    simulation = simulated(target)
    times = np.cumsum(rng.exponential(1800.0, 30))
    done = []

    def strike(world):
        done.append(world['now'])
        world.preempt(warned=bool(rng.random() < 0.5))
        world['faults'][str(rng.choice(FAULTS[target]))] = int(rng.integers(1, 3))

    simulation.plan = [(float(at), strike) for at in times]
    # Even without a strike it would not be done before the last.
    simulation.world['work'] = float(times[-1])
    assert finish(simulation, rng, poll=120.0) == 0, simulation.said[-10:]
    assert len(done) == 30
    assert simulation.world['wrong'] == []
    assert left_over(simulation) == {}
    assert simulation.world['done']['toy'] >= times[-1]


def test_every_fault_alone_is_survived(simulated):
    for target, faults in FAULTS.items():
        for what in faults:
            simulation = simulated(target, name=f'toy-{what.replace(" ", "-")}-{target}')
            simulation.world['faults'][what] = 2
            assert finish(simulation, poll=120.0) == 0, (target, what, simulation.said)
            assert simulation.world['wrong'] == [] and left_over(simulation) == {}, (target, what)
            assert simulation.world['faults'][what] < 2, f'{what} has never happened'


def test_the_limit_of_hours_stops_saves_and_removes(simulated):
    simulation = simulated('tpu-vm', max_hours=2.0)
    simulation.world['work'] = 1e5
    assert finish(simulation) == 75
    assert left_over(simulation) == {}
    # What is billed beyond the limit is the time of removing, and what the look was late.
    assert 2.0 * 3600 - 60 <= simulation.world['billed'] <= 2.0 * 3600 + 120
    saved = simulation.world['done']['toy']
    assert saved > 2.0 * 3600 - 400 and saved % worlds.SAVED != 0


def test_the_limit_of_cost_counts_all_attempts_and_a_supervisor_that_was_away(simulated):
    simulation = simulated('tpu-vm', price=4.0, max_cost=8.0, max_hours=100.0)
    simulation.world['work'] = 1e5
    simulation.plan = [(3000.0, lambda world: world.preempt(False))]
    simulation.crash = (60, False)
    with pytest.raises(conftest.Crash):
        simulation.supervise()
    simulation.sleep(1800.0)  # nobody looks after it, and it is billed
    assert finish(simulation) == 75
    assert left_over(simulation) == {}
    # Machines that are being made are counted too: twice two minutes too much, never too little.
    assert 2.0 * 3600 - 300 <= simulation.world['billed'] <= 2.0 * 3600 + 120


def test_another_zone_where_the_first_has_no_room(simulated):
    simulation = simulated('tpu-vm')
    simulation.world['faults']['capacity'] = 1
    assert finish(simulation) == 0
    zones = [worlds.flags(call)['zone'] for call in simulation.world['calls'] if 'create' in call]
    assert zones == ['us-west4-a', 'us-east1-c']


def test_a_queue_that_is_too_long_is_left_for_the_next_zone(simulated, monkeypatch):
    simulation = simulated('tpu-vm')
    boot = iter([1e9, 120.0])
    make = worlds.World.make

    def slow(world, kind, zone, name, owner, state='PROVISIONING'):
        worlds.BOOT = next(boot)
        return make(world, kind, zone, name, owner, 'WAITING_FOR_RESOURCES' if worlds.BOOT > 1e6 else state)

    monkeypatch.setattr(worlds.World, 'make', slow)
    monkeypatch.setattr(worlds, 'BOOT', 120.0)
    assert finish(simulation) == 0
    assert simulation.world['wrong'] == [] and left_over(simulation) == {}
    assert any('tries the next zone' in line for line in simulation.said)


@pytest.mark.parametrize('lag,requests', [(300.0, 1), (2500.0, 2)])
def test_machines_that_are_not_listed_yet_are_waited_for_and_not_for_ever(simulated, monkeypatch, lag, requests):
    simulation, there = simulated('tpu-vm', zones=('us-west4-a',)), worlds.there

    def late(thing, noun, zone):
        early = simulation.now() < lag and noun == 'tpu-vm'
        return there(thing, noun, zone) and not early

    monkeypatch.setattr(worlds, 'there', late)
    assert finish(simulation) == 0
    assert sum('create' in call for call in simulation.world['calls']) == requests
    assert simulation.world['wrong'] == [] and left_over(simulation) == {}


def test_a_refusal_that_will_not_change_ends_the_job(simulated):
    simulation = simulated('tpu-vm')
    simulation.world['faults']['denied'] = 100
    assert finish(simulation) == 2
    assert 'PERMISSION_DENIED' in simulation.said[-2] and left_over(simulation) == {}
    assert sum('create' in call for call in simulation.world['calls']) == 4


def test_waits_double_up_to_the_longest(simulated):
    simulation = simulated('tpu-vm', zones=('us-west4-a',))
    simulation.world['faults']['capacity'] = 9
    assert finish(simulation, first=20.0, most=600.0) == 0
    world = simulation.world
    asked = [at for at, call in zip(world['times'], world['calls']) if 'create' in call]
    waits = np.diff(asked)
    wanted = np.minimum(20.0 * 2.0 ** np.arange(9), 600.0)
    assert len(asked) == 10 and np.all(waits >= wanted) and np.all(waits <= wanted + 30.0), waits


@pytest.mark.parametrize('target', conftest.KINDS)
def test_what_ends_with_2_is_not_started_again(simulated, target):
    simulation = simulated(target)

    def refuse(world):
        for thing in world['things'].values():
            thing['codes'] = [2] * worlds.HOSTS

    simulation.plan = [(1000.0, refuse)]
    assert finish(simulation) == 2
    assert left_over(simulation) == {} and simulation.state().attempt == 1


def test_a_fault_that_comes_back_is_given_up_after_four(simulated):
    simulation = simulated('tpu-vm')

    def fail(world):
        for thing in world['things'].values():
            if world.runs(thing):
                thing['codes'] = [70] * worlds.HOSTS

    simulation.world['work'] = 1e5
    simulation.plan = [(float(at), fail) for at in range(300, 40000, 50)]
    assert finish(simulation) == 70
    assert left_over(simulation) == {} and simulation.state().attempt == 4
    # The machines were sound: the same ones were used again.
    assert sum('create' in call for call in simulation.world['calls']) == 1


@pytest.mark.parametrize('target', conftest.KINDS)
def test_what_is_asked_to_stop_saves_and_leaves_nothing(simulated, target):
    simulation = simulated(target)
    simulation.plan = [(3000.0, lambda world: setattr(simulation, 'asked', 'SIGINT'))]
    assert finish(simulation) == 75
    assert left_over(simulation) == {}
    assert simulation.world['done']['toy'] % worlds.SAVED != 0  # all of it, not only the last checkpoint


@pytest.mark.parametrize('target', conftest.KINDS)
def test_what_somebody_else_has_made_is_left_alone(simulated, target):
    simulation = simulated(target)
    kind, zone = {'tpu-vm': ('tpu', 'us-east1-c'), 'gke': ('jobset', ''), 'slurm': ('slurm', '')}[target]
    simulation.world.make(kind, zone, 'toy', 'someone-else', 'ACTIVE')
    with pytest.raises(usage.UsageError, match='already'):
        simulation.supervise()
    assert len(simulation.world['things']) == 1
    writing = {'create', 'delete', 'sbatch', 'scancel'}
    assert not any(writing & set(call) for call in simulation.world['calls'])


@pytest.mark.parametrize('target', conftest.KINDS)
def test_a_cloud_that_gives_no_sensible_answer_is_asked_for_nothing(simulated, target):
    simulation = simulated(target)
    simulation.world['faults']['garbage'] = 100
    with pytest.raises(usage.UsageError, match='nothing was asked for'):
        simulation.supervise()
    assert len(simulation.world['calls']) <= 10 and not simulation.state().going()


def test_setting_up_that_always_fails_is_given_up(simulated):
    simulation = simulated('tpu-vm')
    simulation.world['faults']['half set up'] = 100
    assert finish(simulation) == 70
    assert 'no space left on device' in simulation.said[-1] and left_over(simulation) == {}
    assert sum('create' in call for call in simulation.world['calls']) == 4


def test_a_lost_memory_finds_its_own_again(simulated):
    simulation = simulated('tpu-vm')
    simulation.crash = (60, False)
    with pytest.raises(conftest.Crash):
        simulation.supervise()
    (simulation.folder / 'state.json').unlink()
    assert finish(simulation) == 0
    assert sum('create' in call for call in simulation.world['calls']) == 1
    assert simulation.world['wrong'] == [] and left_over(simulation) == {}


@pytest.mark.parametrize(
    'codes,kind',
    [
        ([0, 0], attempt.DONE),
        ([0, 75], attempt.SAVED),
        ([75, 75], attempt.SAVED),
        ([70, -9], attempt.KILLED),
        ([70, 70], attempt.FAILED),
        ([2, 70], attempt.FINAL),
        ([1], attempt.FINAL),
        ([127, 127], attempt.FINAL),
    ],
)
def test_what_exit_statuses_mean_together(codes, kind):
    assert attempt.verdict(codes) == kind
