"""Renderings by jinja2 set up as transformers sets it up, for test/fixtures/text/templates.json.

    pip install "jinja2==3.1.*"
    python test/oracles/templates.py > test/fixtures/text/templates.json

With a folder of .jinja files as argument these are rendered instead, into a list of the same form.
"""

import json
import sys
from pathlib import Path

import jinja2
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment


class Generation(Extension):
    """`{% generation %}`, which marks what the assistant said and prints its body."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.Scope(body, lineno=line)


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def render(source, variables):
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = lambda form: NOW.strftime(form)
    return environment.from_string(source).render(**variables)


from datetime import datetime  # noqa: E402

NOW = datetime(2026, 3, 7, 14, 5, 9)

TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of a <city> & \"more\" ½",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "array", "items": {"type": "integer"}}},
            "required": ["city"],
        },
    },
}
CALL = {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "id": "abcdefghi", "function": {"name": "get_weather", "arguments": {"city": "Zürich", "days": [1, 2], "full": True}}}]}
RESULT = {"role": "tool", "name": "get_weather", "tool_call_id": "abcdefghi", "content": "{\"t\": 21}"}

CHATS = {
    "user": {"messages": [{"role": "user", "content": "  Hi! "}]},
    "system": {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Naïve \ufeffé 🙂\n\nx"}]},
    "turns": {"messages": [{"role": "user", "content": "A"}, {"role": "assistant", "content": "<think>\nhm\n</think>\n\nB"}, {"role": "user", "content": "C"}]},
    "two systems": {"messages": [{"role": "system", "content": "S"}, {"role": "system", "content": "T"}, {"role": "user", "content": "A"}]},
    "trailing assistant": {"messages": [{"role": "user", "content": "A"}, {"role": "assistant", "content": "So"}]},
    "assistant first": {"messages": [{"role": "assistant", "content": "So"}]},
    "tools": {"messages": [{"role": "user", "content": "Weather?"}], "tools": [TOOL]},
    "tool call": {"messages": [{"role": "user", "content": "Weather?"}, CALL, RESULT], "tools": [TOOL]},
    "reasoning": {"messages": [{"role": "user", "content": "A"}, {"role": "assistant", "content": "B", "reasoning_content": "R"}, {"role": "user", "content": "C"}]},
    "null content": {"messages": [{"role": "user", "content": "A"}, {**CALL, "content": None}, RESULT]},
    "no thinking": {"messages": [{"role": "user", "content": "A"}], "enable_thinking": False},
}

TEMPLATES = {
    "chatml": "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] | trim + '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    "bos, eos, alternation": "{{ bos_token }}{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Roles must alternate user/assistant') }}{% endif %}{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}{% else %}{{ m['content'] + eos_token }}{% endif %}{% endfor %}",
    "role between bars": "{% for m in messages %}{{ '<|' + m.role + '|>' + m.content + '<|end|>' }}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}",
    "thinking": """{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0].role == 'system' %}{{- messages[0].content + '\\n\\n' }}{%- endif %}
    {{- "# Tools\\n<tools>" }}
    {%- for tool in tools %}
        {{- "\\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "\\n</tools><|im_end|>\\n" }}
{%- endif %}
{%- set ns = namespace(last=messages|length - 1, found=false) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if not ns.found and message.role == "user" and message.content is string and not (message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.found = true %}
        {%- set ns.last = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- set content = message.content if message.content is string else '' %}
    {%- if message.role in ("user", "system") %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {%- set reasoning = '' %}
        {%- if message.reasoning_content is string %}
            {%- set reasoning = message.reasoning_content %}
        {%- elif '</think>' in content %}
            {%- set reasoning = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {{- '<|im_start|>' + message.role }}
        {%- if loop.index0 > ns.last and (loop.last or reasoning) %}{{- '\\n<think>\\n' + reasoning.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}{%- else %}{{- '\\n' + content }}{%- endif %}
        {%- if message.tool_calls %}
            {%- for tool_call in message.tool_calls %}
                {%- if tool_call.function %}{%- set tool_call = tool_call.function %}{%- endif %}
                {{- '\\n<tool_call>\\n{"name": "' }}{{- tool_call.name }}{{- '", "arguments": ' }}
                {%- if tool_call.arguments is string %}{{- tool_call.arguments }}{%- else %}{{- tool_call.arguments | tojson }}{%- endif %}
                {{- '}\\n</tool_call>' }}
            {%- endfor %}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {%- if loop.first or (messages[loop.index0 - 1].role != "tool") %}{{- '<|im_start|>user' }}{%- endif %}
        {{- '\\n<tool_response>\\n' }}{{- content }}{{- '\\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}{{- '<|im_end|>\\n' }}{%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}
{%- endif %}
""",
    "macro over a schema": """{%- macro show(spec) %}
{%- for key, value in spec.items() %}{{ key }}={% if value is mapping %}({{ show(value) }}){% else %}{{ value }}{% endif %};{%- endfor %}
{%- endmacro %}
{%- for tool in tools or [] %}{{ show(tool.function.parameters) }}{% endfor %}
{%- for m in messages %}{{ m.role | upper }}: {{ m.content }}
{% endfor %}""",
    "dates": "{{ strftime_now('%d %b %Y|%B %-d|%A %a %j %H:%M:%S %I %p %y %%') }}",
    "crlf": "{% for m in messages %}\r\n{{ m.role }}\r\n: {{ m.role }}\r\n{% endfor %}\r\n",
    "generation": "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}{% else %}{{ m.role }}{% endif %}{% endfor %}",
}
PROBES = [
    "{{ true }} {{ none }} {{ [1, 'a', \"it's\", none, true, 1.5] }} {{ {'a': 1, 'b': [2]} }}", "{{ 'xxaxx'.strip('x') }}|{{ 'xyaxy'.lstrip('xy') }}|{{ 'aab'.rstrip('b') }}|{{ '  a '.strip() }}|",
    "{{ '🙂a'|length }}{{ '🙂a'[0] }}{{ '🙂a'[-1] }}{{ '🙂ab'[1:] }}", "{{ 'a b  c'.rsplit(' ', 1) }}{{ 'a,b,c'.split(',', 1) }}{{ ' a  b c '.split() }}{{ ' a  b c '.split(none, 1) }}{{ ' a  b c '.rsplit(none, 1) }}",
    "{% for a, b in [(1, 2), (3, 4)] %}{{ a }}{{ b }};{% endfor %}", "{{ 'ab' * 3 }}{{ 'b' > 'a' }}{{ 'b' <= 'a' }}{{ 'a' ~ none ~ true ~ 1 }}", "{{ 'hELLO wORLD'.title() }}{{ 'hELLO'.capitalize() }}{{ 'hELLO'|capitalize }}",
    "{{ -1 % 2 }}{{ 7 // 2 }}{{ 7 / 2 }}{{ 2 ** 3 }}{{ 1 == 1.0 }}{{ 1 == '1' }}{{ none == undefined_name }}{{ [1, 2] == [1, 2] }}{{ true == 1 }}", "{{ 'a\nb\n\nc'|indent }}|{{ 'a\nb'|indent(2, true) }}|{{ 'a\n\nb'|indent(width=1, blank=true) }}|{{ 'a\n'|indent }}",
    "{{ 'a-b-c'.replace('-', '+', 1) }}{{ 'abc'.replace('', '-') }}{{ 'a-b'|replace('-', '') }}", "{{ 'abcb'.find('b') }}{{ 'abcb'.rfind('b') }}{{ 'abcb'.count('b') }}{{ 'abc'.find('x') }}{{ '🙂b'.find('b') }}",
    "{{ 'a\nb\r\nc\n'.splitlines() }}", "{{ 'prefix-x'.removeprefix('prefix-') }}{{ 'x.py'.removesuffix('.py') }}{{ '12'.isdigit() }}{{ 'ab'.isalpha() }}{{ ' '.isspace() }}{{ ''.isspace() }}", "{{ ['a', 'b']|join(', ') }}{{ ', '.join(['a', 'b']) }}{{ [1, none, true]|join('-') }}",
    "{{ 'abc'|list }}{{ 'abc'|first }}{{ 'abc'|last }}{{ 'ab'|count }}", "{% for k, v in {'items': 1, 'k': 2}.items() %}{{ k }}{{ v }}{% endfor %}{{ {'items': 1}['items'] }}", "{{ '\ufeff a \x85'|trim }}|{{ '\x1f a\u3000'.strip() }}|", "{{ {'a': [1, 2], 'b': {'c': 'é<>&'}}|tojson }}{{ {'a': [1, {}]}|tojson(indent=2) }}{{ {'b': 1, 'a': 2}|tojson(sort_keys=true) }}",
    "{% set ns = namespace(x=1) %}{% for i in range(3) %}{% set ns.x = ns.x + i %}{% if i == 1 %}{% continue %}{% endif %}{{ i }}{% endfor %}{{ ns.x }}", "{% for i in range(10) %}{% if i > 2 %}{% break %}{% endif %}{{ loop.index }}{{ loop.first }}{{ loop.last }}{{ loop.revindex }}{% endfor %}",
    "{{ 'a' if false }}|{{ undefined_name }}|{{ undefined_name is defined }}|{{ 'x' in ['x'] }}{{ 'x' not in 'xyz' }}", "{% macro f(a, b='z') %}{{ a }}{{ b }}{{ kwargs.c }}{% endmacro %}{{ f('x', c='q') }}{{ f('x', b='y') }}", "{% set x %}a{{ 1 }}b{% endset %}{{ x|upper }}", "{% for c in 'a🙂b' if c != 'a' %}{{ c }},{% endfor %}{{ dict(a=1, b='x')|tojson }}", "{{ [{'a': 1}, {'b': 2}]|selectattr('a', 'undefined')|list }}{{ [{'a': 1}, {'b': 2}]|rejectattr('a', 'undefined')|list }}", "{{ '<b>'|e }}{{ 'a'|safe }}",
    "{{ [3, 1, 2]|sort }}{{ [{'a': 1}, {'a': 2}]|map(attribute='a')|list }}{{ [{'a': 1}, {'b': 2}]|selectattr('a', 'defined')|list|length }}", "{{ 'a' + none }}", "{{ nothing.at_all }}", "{{ ''[0].text }}", "{{ none.at_all }}|{{ {}.a }}", "{{ 'a' + 1 }}", "{{ 'x'.startswith(('x', 'y')) }}{{ 'file.py'.endswith('.py') }}", "{{ (1, 2)[0] }}{{ [1, 2, 3][::-1] }}{{ [1, 2, 3][-1] }}",
    "{{ 1.0 }} {{ 0.5 }} {{ 3 | string }} {{ true | string }} {{ none | string }} {{ '5' | int + 1 }} {{ 'x' | default('y') }} {{ undefined_name | default('y') }} {{ none | default('d', true) }}", "{%- if 'a' in {'a': 1} and not false or none -%} yes {%- else -%} no {%- endif -%}",
]


def attempt(source, variables):
    try:
        return {"text": render(source, variables)}
    except Exception as error:  # what transformers would pass on
        return {"error": f"{type(error).__name__}: {error}"}


def chats(source):
    out = []
    for name, chat in CHATS.items():
        for prompt in (True, False):
            variables = {"tools": None, "documents": None, "bos_token": "<s>", "eos_token": "</s>", **chat, "add_generation_prompt": prompt}
            out.append({"chat": name, "prompt": prompt, **attempt(source, variables)})
    return out


def main():
    if len(sys.argv) > 1:
        sources = {path.name: path.read_text() for path in sorted(Path(sys.argv[1]).glob("*.jinja"))}
    else:
        sources = TEMPLATES
    out = {
        "jinja2": jinja2.__version__,
        "now": [2026, 3, 7, 14, 5, 9],
        "chats": CHATS,
        "templates": [{"name": name, "source": source, "renderings": chats(source)} for name, source in sources.items()],
        "probes": [{"source": source, **attempt(source, {})} for source in PROBES],
    }
    json.dump(out, sys.stdout, ensure_ascii=True, indent=1)


main()
