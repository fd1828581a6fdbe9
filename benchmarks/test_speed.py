"""What the speed benchmark makes of its measurements."""

import measuring
import page
import parts
import pytest

CEILINGS = {'products': 100e9, 'sides': {'XLA': 100e9}, 'copy': 10e9, 'others': 0.0}


def test_step_rows_hold_ratios_by_round_and_shares_of_the_ceiling():
    ours = [{'images_per_s': rate, 'flops': 1e9, 'compile_s': 10.0} for rate in (20.0, 40.0)]
    theirs = [{'images_per_s': rate, 'first_s': 1.0} for rate in (10.0, 80.0)]
    rows = {row['name']: row for row in parts._step_rows('net', {'ours': ours, 'torch.compile': theirs}, CEILINGS)}
    assert rows['net: ours / torch.compile']['values'] == [2.0, 0.5]
    assert rows['net: ours']['median'] == 30 and rows['net: ours']['note'] == '30 GFLOP/s, 30% of the ceiling'


@pytest.mark.parametrize(
    'value, others, said', [(0.06, 0.0, 'MISSED'), (0.01, 0.0, 'all targets are met'), (0.01, 1.0, 'not quiet')]
)
def test_page_says_what_is_missed_and_whether_the_machine_was_quiet(value, others, said):
    rows = [measuring.row('waiting', 'share', [value, value, 3 * value])]
    part = {'rows': rows, 'told': ['so'], 'targets': [measuring.target('waiting', value, 0.05)], 'others': others}
    report = {'ceilings': CEILINGS, 'parts': {'data': part}, 'command': 'c', 'date': 'd', 'machine': 'm'}
    assert said in page.verdict(report)
    text = page.whole(report)
    assert f'| {value:.1%} | {value:.1%} | {3 * value:.1%} |' in text
    assert ('Not to be quoted' in text) == (others > measuring.QUIET)


def test_calls_take_turns():
    order = []
    found = measuring.turns({name: lambda name=name: order.append(name) for name in 'ab'}, 0)
    assert order == list('ab' * 4) and len(found['a']) == 3  # one each to warm up
