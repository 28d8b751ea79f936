#!/usr/bin/env python3
"""Record how Python's Jinja2 renders Dockerfile templates, as data.

Needs `pip install jinja2==3.1.6`. Usage: record_templates.py > templates.json
Each case is a directory of templates, of which `Dockerfile.j2` is rendered with every set of
variables, in an environment with a loader and otherwise Jinja2's defaults.
"""
import itertools
import json
import os
import sys
import tempfile

from jinja2 import Environment, FileSystemLoader

RUNTIME = """FROM {{ base_image }}

# Settings that every build needs
ENV AGENT_ROOT=/agent \\
    PATH="/agent/bin:${PATH}"

{% macro system_packages() %}
RUN apt-get update && \\
    apt-get install -y --no-install-recommends git \\
    {%- if 'ubuntu' in base_image and (base_image.endswith(':latest') or base_image.endswith(':24.04')) -%}
    libgl1 \\
    {%- else %}
    libgl1-mesa-glx \\
    {% endif -%}
    ca-certificates && \\
    {%- if enable_browser -%}
    apt-get install -y chromium && \\
    {% endif %}
    rm -rf /var/lib/apt/lists/*

{% endmacro %}
{% macro dependencies() %}
WORKDIR /agent
RUN pip install -r requirements.txt
{% if args %}{% for name in args|sort %}
ARG {{ name }}="{{ args[name] }}"
{% endfor %}{% endif %}
{% endmacro %}
{% if build_from_scratch %}
# ==== scratch ====
{{ system_packages() }}
COPY ./code/requirements.txt /agent/
{{ dependencies() }}
{% endif %}
# Source
COPY ./code/agent /agent/agent
{% if build_from_versioned %}
{{ dependencies() }}
{% endif %}
# Extra
{% if extra_deps %}RUN {{ extra_deps }} {% endif %}
"""

CASES = {
    "runtime": {"Dockerfile.j2": RUNTIME},
    "crlf": {"Dockerfile.j2": "FROM {{ base_image }}\r\n{% if build_from_lock %}\r\nRUN a\r\n{% endif %}\r\n"},
    "trailing_newlines": {"Dockerfile.j2": "FROM {{ base_image }}\n\n\n"},
    "no_trailing_newline": {"Dockerfile.j2": "FROM {{ base_image }}"},
    "empty": {"Dockerfile.j2": ""},
    "undefined": {"Dockerfile.j2": "[{{ nothing }}][{{ nothing|default('d') }}][{{ nothing is defined }}][{% for x in nothing %}x{% endfor %}][{% if nothing %}y{% else %}n{% endif %}]"},
    "undefined_attribute": {"Dockerfile.j2": "{{ nothing.attribute }}"},
    "undefined_call": {"Dockerfile.j2": "{{ nothing() }}"},
    "missing_attribute": {"Dockerfile.j2": "[{{ args.NOTHING }}]"},
    "python_values": {"Dockerfile.j2": "{{ build_from_scratch }} {{ none }} {{ [1, 'a', true, none, 1.5] }} {{ {'a': 1} }} {{ 1.0 }} {{ 7 / 2 }} {{ 7 // 2 }} {{ 2 ** 3 }} {{ (1, 2) }} {{ 'a' ~ true ~ none ~ 1 }}"},
    "whitespace_control": {"Dockerfile.j2": "a\n  {%- if true %}\n b \n  {%- endif -%}\n c\n {#- x -#} \n d {{- ' e ' -}} \n f\n  {%+ if true %}g{% endif %}\n"},
    "comments_and_raw": {"Dockerfile.j2": "# {# gone #}\n{% raw %}${{ x }} {% if %}{% endraw %}\nRUN awk '{ print $1 }'\nRUN echo ${A} ${#B} {{ '{{' }}\n"},
    "no_escaping": {"Dockerfile.j2": "RUN echo \"<&>\" && {{ '<&>\"' }} {{ '<b>'|escape }}"},
    "loops": {"Dockerfile.j2": "{% for n, v in args|dictsort %}{{ loop.index }}/{{ loop.length }} {{ n }}={{ v }}{{ '' if loop.last else ',' }}{% else %}none{% endfor %}\n{% for i in range(3) if i != 1 %}{{ i }}{{ loop.first }}{% endfor %}"},
    "items": {"Dockerfile.j2": "{% for n, v in args.items() %}{{ n }}={{ v }};{% endfor %}{{ args }}{{ args.get('PYTHON', 'x') }}{{ args.get('NONE', 'x') }}{{ 'PYTHON' in args }}"},
    "set_and_scope": {"Dockerfile.j2": "{% set x = 1 %}{% for i in range(2) %}{% set x = i + 5 %}{% endfor %}{{ x }}{% set ns = namespace(n=0) %}{% for i in range(3) %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}{% set block %}\n captured {{ x }}\n{% endset %}{{ block|trim }}"},
    "string_methods": {"Dockerfile.j2": "{{ base_image.split(':')[0] }} {{ base_image.startswith('ubuntu') }} {{ base_image.replace(':', '_') }} {{ base_image.upper() }} {{ ' x '.strip() }} {{ base_image.split('/')|length }} {{ '-'.join(['a', 'b']) }} {{ 'a {} b'.format(1) }} {{ '%s-%d'|format('a', 3) }}"},
    "filters": {"Dockerfile.j2": "{{ 'a b'|upper }} {{ 'A'|lower }} {{ 'abc'|replace('b', 'x') }} {{ ['b', 'a']|sort|join(', ') }} {{ 'a\nb'|indent(4) }} {{ 'a\nb'|indent(2, true) }} {{ [1, 2, 3]|first }}{{ [1, 2, 3]|last }} {{ 'abc'|length }} {{ 'x'|default('y') }} {{ ''|default('y', true) }} {{ ['a', 'a']|unique|list }} {{ 'hello world'|title }} {{ 'hello'|capitalize }} {{ [3, 1]|max }} {{ [1, 2]|sum }} {{ '3'|int + 1 }} {{ '1.5'|float }} {{ [1, 2, 3, 4]|batch(2)|list }} {{ {'b': 1, 'a': 2}|dictsort }} {{ ['a', 'b']|map('upper')|join }} {{ [1, 2, 3]|select('odd')|list }} {{ 'a'|string }} {{ -3|abs }} {{ 2.5|round|int }}"},
    "tests": {"Dockerfile.j2": "{{ 1 is odd }} {{ 'a' is string }} {{ [] is sequence }} {{ none is none }} {{ 3 is divisibleby 3 }} {{ args is mapping }} {{ 'a' is in 'abc' }} {{ 1 is not defined }} {{ 'a' == 'a' and not false }} {{ 1 < 2 <= 2 }}"},
    "conditions": {"Dockerfile.j2": "{{ 'a' if build_from_scratch else 'b' }}{{ 'c' if build_from_lock }}{% if build_from == 'lock' %}L{% elif build_from == 'versioned' %}V{% else %}S{% endif %}{{ extra_deps or 'no' }}{{ extra_deps and 'yes' }}"},
    "slices": {"Dockerfile.j2": "{{ 'abcdef'[1:3] }} {{ 'abcdef'[-2:] }} {{ [1, 2, 3][::-1] }} {{ 'abc'[1] }} {{ 'abc'|reverse }} {{ 'x' * 3 }}"},
    "macros": {"Dockerfile.j2": "{% macro m(a, b='d', c=none) %}[{{ a }}|{{ b }}|{{ c }}]{% endmacro %}{{ m('x') }}{{ m('x', c='z') }}{{ m() }}{% macro w() %}<{{ caller() }}>{% endmacro %}{% call w() %}in{% endcall %}"},
    "filter_block": {"Dockerfile.j2": "{% filter upper %}run {{ 'x' }}{% endfilter %}{% with y = 2 %}{{ y }}{% endwith %}"},
    "include": {"Dockerfile.j2": "FROM x\n{% include 'parts/apt.j2' %}\n{% include 'none.j2' ignore missing %}\n{% include ['none.j2', 'parts/apt.j2'] %}\nend\n", "parts/apt.j2": "RUN apt {{ base_image }}\n"},
    "import": {"Dockerfile.j2": "{% import 'lib.j2' as lib %}{% from 'lib.j2' import add as plus, X with context %}{{ lib.add(1, 2) }}{{ plus(3, 4) }}{{ X }}{{ lib.X }}", "lib.j2": "{% macro add(a, b) %}{{ a + b }}{% endmacro %}{% set X = 'x' %}"},
    "inheritance": {"Dockerfile.j2": "{% extends 'base.j2' %}{% block body %}{{ super() }}RUN own\n{% endblock %}", "base.j2": "FROM {{ base_image }}\n{% block body %}RUN base\n{% endblock %}END\n"},
    "html_name": {"Dockerfile.j2": "{% include 'a.html' %}", "a.html": "{{ '<x>' }}"},
    "unicode": {"Dockerfile.j2": "LABEL a=\"\u00e4\u4e2d\" {{ '\u00fc'|upper }} {{ '\\u00e9' }} {{ '\u00e4'|length }}"},
    "missing_include": {"Dockerfile.j2": "{% include 'none.j2' %}"},
    "escaping_include": {"Dockerfile.j2": "{% include '../secret' %}"},
    "syntax_error": {"Dockerfile.j2": "{% if %}"},
    "unclosed": {"Dockerfile.j2": "{% if true %}x"},
    "unknown_filter": {"Dockerfile.j2": "{{ 'a'|nothing }}"},
    "unknown_tag": {"Dockerfile.j2": "{% nothing %}"},
    "type_error": {"Dockerfile.j2": "{{ 'a' + 1 }}"},
    "division_by_zero": {"Dockerfile.j2": "{{ 1 // 0 }}"},
}

STARTS = ["scratch", "versioned", "lock"]
SIMPLE = [("debian:bookworm", "", False, {"A": "<b>", "PYTHON": "3.12"})]
FULL = list(
    itertools.product(
        ["debian:bookworm", "ubuntu:24.04", "ghcr.io/acme/ubuntu:latest"],
        ["", "pip install 'x[y]' && echo \"$HOME\""],
        [False, True],
        [{}, {"A": "b c", "PYTHON": "3.12"}],
    )
)


def variables(start, base_image, extra_deps, enable_browser, args):
    return {
        "base_image": base_image,
        "build_from": start,
        "build_from_scratch": start == "scratch",
        "build_from_versioned": start == "versioned",
        "build_from_lock": start == "lock",
        "extra_deps": extra_deps,
        "enable_browser": enable_browser,
        "platform": "linux/amd64",
        "args": args,
    }


def render(directory, values):
    try:
        environment = Environment(loader=FileSystemLoader(searchpath=directory))
        return environment.get_template("Dockerfile.j2").render(**values)
    except Exception:  # that it fails is the record
        return None


def record(name, files):
    sets = FULL if name == "runtime" else SIMPLE
    with tempfile.TemporaryDirectory() as directory:
        for path, text in files.items():
            target = os.path.join(directory, path)
            os.makedirs(os.path.dirname(target), exist_ok=True)
            with open(target, "w", newline="", encoding="utf-8") as file:
                file.write(text)
        renders = []
        for start, chosen in itertools.product(STARTS, sets):
            values = variables(start, *chosen)
            renders.append({"variables": values, "text": render(directory, values)})
    return {"name": name, "files": files, "renders": renders}


json.dump([record(*case) for case in CASES.items()], sys.stdout, indent=1)
sys.stdout.write("\n")
