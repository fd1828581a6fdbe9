"""Words come through shells as they are; secrets come through nothing but the standard input of what needs them."""

import json
import subprocess
import sys

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from diffusion import usage
from launch import job as jobs
from launch import shell

WORDS = st.lists(st.text(st.characters(exclude_characters='\0', exclude_categories=['Cs']), max_size=12), max_size=6)
NASTY = ['a b', "it's", '"', ';rm -rf /', '$(touch x)', '`id`', 'a\nb', '', '-', '~', '*', 'naïve 猫 🐈', '\\', '\x1b']
ECHO = 'import json, os, sys; print(json.dumps([os.fsencode(word).decode() for word in sys.argv[1:]]))'


def heard(*call):
    done = subprocess.run(call, capture_output=True, check=True)
    return json.loads(done.stdout)


@settings(max_examples=25, deadline=None)
@given(WORDS)
@example(NASTY)
def test_words_survive_bash_and_what_ssh_does(words):
    argv = (sys.executable, '-S', '-c', ECHO, *words)
    text = shell.quoted(argv)
    assert heard('bash', '-c', text) == words
    # ssh puts its arguments together with blanks, and the login shell of the other side reads that.
    assert heard('sh', '-c', ' '.join(['exec', *text.split(' ')])) == words
    # A shell that hands the text to another shell.
    assert heard('bash', '-c', shell.quoted(('sh', '-c', text))) == words


@settings(max_examples=50, deadline=None)
@given(WORDS)
@example(NASTY)
def test_a_spec_keeps_every_word(words):
    spec = jobs.Spec(name='a', target='local', words=('train', *words), tree='x')
    assert jobs.from_json(spec.to_json()) == spec


@pytest.mark.parametrize('word', ['a\0b', '\ud800'])
def test_what_no_program_can_be_given_is_refused(word):
    with pytest.raises(usage.UsageError, match='cannot be passed'):
        jobs.Spec(name='a', target='local', words=('train', word), tree='x')


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=50))
def test_a_name_is_safe_everywhere_or_refused(name):
    try:
        jobs.Spec(name=name, target='local', words=('train',), tree='x')
    except usage.UsageError as error:
        assert '\n' not in str(error)
    else:
        assert shell.quoted((name,)) == name and len(name) <= 40 and name == name.lower() and name.isascii()


@pytest.mark.parametrize(
    'field,value',
    [
        ('project', 'p; reboot'),
        ('image', 'x\ny'),
        ('zones', ('us-west4-a --async',)),
        ('bucket', '../b'),
        ('secrets', ('A=B',)),
        ('namespace', '-n'),
        ('max_hours', float('nan')),
        ('hosts', 0),
        ('max_cost', 5.0),
    ],
)
def test_a_field_that_cannot_be_is_one_line(field, value):
    with pytest.raises(usage.UsageError) as caught:
        jobs.Spec(**{**dict(name='a', target='local', words=('train',), tree='x'), field: value})
    assert str(caught.value).count('\n') == 0 and len(str(caught.value)) < 200


@pytest.mark.parametrize(
    'text', ['', '[]', '{"name": 3}', '{"nmae": "a"}', '{"name": "a", "target": "local", "words": "train", "tree": ""}']
)
def test_a_damaged_spec_is_refused(text):
    with pytest.raises(usage.UsageError):
        jobs.from_json(text)


def test_a_secret_is_only_in_what_the_program_reads(monkeypatch):
    monkeypatch.setenv('TOKEN', 'very secret')
    command = shell.Command(
        (sys.executable, '-S', '-c', 'import sys; print(sys.stdin.read())'), 'why', json.dumps, ('TOKEN',)
    )
    assert json.loads(shell.run(command).out) == {'TOKEN': 'very secret'}
    assert 'very secret' not in command.shown() + repr(command) and '<$TOKEN>' in command.shown()


def test_a_program_that_hangs_or_is_missing_is_a_result():
    asleep = shell.Command((sys.executable, '-S', '-c', 'import time; time.sleep(60)'), 'why', timeout=0.5)
    assert shell.run(asleep).code is None and 'did not answer within 0.5 s' in shell.run(asleep).said
    assert shell.run(shell.Command(('no-such-program',), 'why')).said == 'no-such-program is not installed here'
