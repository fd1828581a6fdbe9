"""Configs: a file of Python that returns one `ml_collections.ConfigDict`, checked against the constructors it feeds.

A config is nested exactly one level. Each section is the keyword arguments of one constructor, so the constructors'
signatures are the schema: what they do not take is refused, what the file leaves out is filled in with their
defaults, and `--config.section.key=value` is read as the annotated type.
"""

import ast
import dataclasses
import difflib
import inspect
import os
import typing
from collections.abc import Callable

import ml_collections

Config = dict[str, dict]


class ConfigError(ValueError):
    """A config that cannot be: the message names the key, what it got and what it wants."""


@dataclasses.dataclass(frozen=True)
class Section:
    """constructors: by the section's `name`, or one under '' for a section without a name; derived: arguments that
    follow from the data and are never configured; optional: whether a config may leave the section out."""

    constructors: dict[str, Callable]
    derived: frozenset[str] = frozenset()
    optional: bool = False


Schema = dict[str, Section]


def nearest(word: str, among) -> str:
    """', did you mean ...?' or a list of what there is."""
    among = list(among)
    close = difflib.get_close_matches(word, among, 1, 0.5)
    return f'did you mean {close[0]!r}?' if close else f'there are: {", ".join(sorted(among))}'


def load(path: str) -> Config:
    """The sections that get_config() of a Python file returns."""
    if not os.path.isfile(path):
        folder = os.path.dirname(path) or '.'
        there = [name for name in (os.listdir(folder) if os.path.isdir(folder) else []) if name.endswith('.py')]
        hint = nearest(os.path.basename(path), there) if there else f'there is no folder {folder!r}'
        raise ConfigError(f'no config file {path!r}: {hint}')
    namespace: dict = {'__name__': 'config', '__file__': path}
    with open(path, encoding='utf-8') as file:
        source = file.read()
    try:
        exec(compile(source, path, 'exec'), namespace)
        config = namespace['get_config']()
    except KeyError as error:
        raise ConfigError(f'{path} defines no get_config()') from error
    except Exception as error:
        raise ConfigError(f'{path} does not run: {type(error).__name__}: {error}') from error
    if not isinstance(config, ml_collections.ConfigDict):
        raise ConfigError(f'get_config() of {path} returns {type(config).__name__}, not an ml_collections.ConfigDict')
    return config.to_dict()


def resolve(config: Config, overrides: list[str], schema: Schema) -> Config:
    """The complete config: defaults filled in, every value checked; overrides: 'section.key=value'.

    An override of a section's `name` exchanges the constructor: values of the old one that the new one does not
    take go with it.
    """
    config = {name: dict(_mapping(name, values)) for name, values in config.items()}
    for name in config:
        if name not in schema:
            raise ConfigError(f'config.{name} is not a section: {nearest(name, schema)}')
    parsed = [_split(override, schema) for override in overrides]
    for section, key, value in parsed:
        if key == 'name':
            rename(config, section, value, schema)
    complete = {name: _complete(name, config.get(name), schema[name]) for name in schema}
    complete = {name: values for name, values in complete.items() if values is not None}
    for section, key, value in parsed:
        if key == 'name':
            continue
        if section not in complete:
            raise ConfigError(f'config.{section}.{key}: this config has no section {section!r}')
        known = _arguments(schema[section], section, complete[section])
        _known_key(section, key, known)
        complete[section][key] = _parse(f'config.{section}.{key}', value, known[key][0])
    return complete


def rename(config: Config, section: str, name: str, schema: Schema) -> None:
    """Exchanges the constructor of a section in place."""
    constructors = schema[section].constructors
    if '' in constructors:
        raise ConfigError(f'config.{section} takes no name')
    kept = config.get(section, {})
    if name in constructors and kept.get('name') != name:
        known = _arguments(schema[section], section, {'name': name})
        kept = {key: value for key, value in kept.items() if key in known}
    config[section] = {**kept, 'name': name}


def restore(stored: dict, schema: Schema) -> Config:
    """A config that went through JSON, with its tuples, completed with defaults of keys that are newer than it."""
    return resolve(stored, [], schema)


def differences(old: Config, new: Config) -> dict[str, tuple]:
    """{'section.key': (old value, new value)}; None stands for a key that one side lacks."""
    keys = sorted({(section, key) for config in (old, new) for section in config for key in config[section]})
    pairs = {
        f'{section}.{key}': (old.get(section, {}).get(key), new.get(section, {}).get(key)) for section, key in keys
    }
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def construct(config: Config, section: str, schema: Schema, **derived):
    """Calls the constructor of a section with its values and what follows from the data."""
    values = {key: value for key, value in config[section].items() if key != 'name'}
    constructor = schema[section].constructors[config[section].get('name', '')]
    try:
        return constructor(**values, **derived)
    except ValueError as error:
        raise ConfigError(f'config.{section}: {error}') from error


def _mapping(name, values):
    if not isinstance(values, dict):
        raise ConfigError(f"config.{name} is {values!r}; a section is a dict of one constructor's arguments")
    return values


def _split(override, schema):
    path, equals, value = override.partition('=')
    section, dot, key = path.partition('.')
    if not equals or not dot:
        raise ConfigError(f'--config.{override}: write --config.SECTION.KEY=VALUE')
    if section not in schema:
        raise ConfigError(f'config.{path}: there is no section {section!r}; {nearest(section, schema)}')
    return section, key, value


def _arguments(section: Section, name: str, values: dict) -> dict[str, tuple]:
    """{argument: (type, default)} of the constructor that a section names."""
    if '' in section.constructors:
        constructor = section.constructors['']
    elif 'name' not in values:
        raise ConfigError(f'config.{name} needs a name: one of {", ".join(sorted(section.constructors))}')
    elif values['name'] not in section.constructors:
        chosen = values['name']
        raise ConfigError(f'config.{name}.name={chosen!r}: {nearest(str(chosen), section.constructors)}')
    else:
        constructor = section.constructors[values['name']]
    # A Flax module's own signature is its metaclass's (*args, **kwargs).
    function = constructor.__init__ if inspect.isclass(constructor) else constructor
    hints = typing.get_type_hints(function)
    known = {} if '' in section.constructors else {'name': (str, inspect.Parameter.empty)}
    for key, parameter in inspect.signature(function).parameters.items():
        if key != 'self' and key not in section.derived:
            known[key] = (hints[key], parameter.default)
    return known


def _known_key(section, key, known):
    if key not in known:
        names = [f'config.{section}.{name}' for name in known]
        raise ConfigError(f'config.{section}.{key} does not exist: {nearest(f"config.{section}.{key}", names)}')


def _complete(name, values, section):
    if values is None and section.optional:
        return None
    values = values or {}
    known = _arguments(section, name, values)
    for key in values:
        _known_key(name, key, known)
    complete = {}
    for key, (kind, default) in known.items():
        if key not in values and default is inspect.Parameter.empty:
            raise ConfigError(f'config.{name}.{key} is missing: {_describe(kind)} is wanted')
        value = values.get(key, default)
        complete[key] = _check(f'config.{name}.{key}', value, kind)
    return complete


def _describe(kind):
    if typing.get_origin(kind) is tuple:
        return f'a tuple of {typing.get_args(kind)[0].__name__}'
    return {bool: 'True or False', int: 'an int', float: 'a float', str: 'a string'}[kind]


def _check(key, value, kind):
    if typing.get_origin(kind) is tuple and isinstance(value, tuple | list):
        return tuple(_check(key, item, typing.get_args(kind)[0]) for item in value)
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise ConfigError(f'{key}={value!r} is {_describe_value(value)}; {_describe(kind)} is wanted')
    return value


def _describe_value(value):
    return f'a {type(value).__name__}' if value is not None else 'nothing'


def _parse(key, text, kind):
    """A value from the command line as its annotated type; a tuple as '1,2' or '(1, 2)'."""
    if kind is str:
        return text
    if kind == tuple[str, ...] and not text.startswith('('):
        return tuple(part.strip() for part in text.split(',') if part.strip())
    try:
        value = ast.literal_eval({'true': 'True', 'false': 'False'}.get(text.lower(), text.strip() or '()'))
    except (ValueError, SyntaxError):
        value = text
    if typing.get_origin(kind) is tuple and not isinstance(value, tuple | list):
        value = (value,)
    return _check(key, value, kind)
