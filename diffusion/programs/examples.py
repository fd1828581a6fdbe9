"""The examples of a run's data that it is measured by."""

import hashlib

import numpy as np

from diffusion import build
from diffusion.data import pipeline

NUM = 256


def data(config, stored, facts):
    """The data to measure by. Raises ValueError for data that are not the model's."""
    found = build.source(config)
    if build.shape(found) != facts.shape or found.dtype != facts.dtype:
        raise ValueError(
            f'the data are {build.shape(found)} {found.dtype}, the model is of {facts.shape} {facts.dtype}'
        )
    if facts.classes and tuple(found.classes) != facts.classes:
        raise ValueError('the classes of the data are not those that the model was trained on')
    same = config['data'].get('split') == stored['data'].get('split')
    if same and found.fingerprint != facts.fingerprint:
        raise ValueError('the data are not those of the training: name another --config.data.data_dir or --split')
    return found


def trained_on(stored, config, facts, data):
    """The data that the run was trained on, which a classifier is made of whatever it is used for."""
    if data.fingerprint == facts.fingerprint:
        return data
    place = {key: config['data'][key] for key in ('data_dir',) if key in config['data']}
    return build.source({**config, 'data': {**stored['data'], **place}})


def chosen(data, args) -> np.ndarray:
    """Which examples are measured: int64 [num]."""
    num = min(len(data), NUM) if args.num is None else args.num
    if not 1 <= num <= len(data):
        raise ValueError(f'--num={num}: there are {len(data)} examples')
    if not 0 <= args.seed < 2**31:
        raise ValueError(f'--seed={args.seed}: seeds lie in [0, 2**31)')
    return pipeline.example_ids(np.arange(num), len(data), args.seed)


def gathered(run, data, ids) -> dict:
    """The images and the conditions in use, with their places in the data set."""
    _check_told_nothing(run)
    batch = data.gather(ids)
    captions = batch.pop('caption', None)
    if run.facts.tokenizer:
        batch['tokens'] = run.facts.tokenizer.encode(captions)
    return {**run.inputs(batch), 'index': ids.astype(np.int32)}


def _check_told_nothing(run):
    """What is measured is the model without the picture that it can be told. Raises ValueError."""
    if run.conditioning and not run.conditioning.dropped:
        raise ValueError(
            f'this model was never trained without its condition ({run.config["conditioning"]["name"]}), so it has no '
            'likelihood and no samples of its own: its adherence is in metrics.jsonl'
        )


def conditions(run, data, num, seed):
    """The conditions of `num` samples: those of the examples in a random order, and again from the start where
    there are fewer; with what the protocol tells of them, and their captions, None where there are none."""
    _check_told_nothing(run)
    if not run.null:
        return {}, {'conditions': 'none'}, None
    ids, parts = pipeline.example_ids(np.arange(num), len(data), seed), []
    captions: list[str] = []
    for start in range(0, num, 1024):
        batch = data.gather(ids[start : start + 1024])
        if run.facts.tokenizer:
            batch['tokens'] = run.facts.tokenizer.encode(batch['caption'])
            captions.extend(batch['caption'])
        parts.append({name: np.asarray(batch[name]) for name in run.null})
    cond = {name: np.concatenate([part[name] for part in parts]) for name in run.null}
    mark = hashlib.sha256()
    for name in sorted(cond):
        kind = '<i4' if cond[name].dtype.kind == 'i' else '<f2'
        mark.update(name.encode() + np.ascontiguousarray(cond[name], kind).tobytes())
    told = {'conditions': ', '.join(sorted(cond)), 'distribution': "the data's", 'sha256': mark.hexdigest()[:16]}
    return cond, {**told, 'conditions of': data.fingerprint}, captions or None
