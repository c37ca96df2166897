"""Writes what transformers renders of small expressions and of templates shaped like the well-known chat templates.

    pip install transformers jinja2
    TZ=UTC python make_jinja_fixtures.py

`expressions.json`: templates without variables worth mentioning, each with its text or the mark that Python refuses it.
`chats.json`: the chat templates below, conversations, and for each pair the text and what generation blocks wrote.
The templates are this project's own: of the shape of published ones, without their words.
"""
import datetime
import json
import pathlib

from jinja2.filters import FILTERS
from transformers.utils import chat_template_utils

HERE = pathlib.Path(__file__).parent
NOW = 1_700_000_000


class FixedTime(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls.fromtimestamp(NOW)


chat_template_utils.datetime = FixedTime

VALUES = dict(
    n=7, f=2.5, big=1e20, small=0.00001, t=True, nothing=None, s="Hello, World", e="e\u0301é🙂", sp="  a b \n c\t",
    words=["pear", "Apple", "fig", "apple"], nums=[3, 1, 2.5, 1], empty=[], d={"b": 1, "a": {"x": [1, None, True]}, "items": 5},
    rows=[{"n": "x", "v": 2, "o": True}, {"n": "Y", "v": 1}, {"n": "z", "v": 3, "o": False, "k": {"id": "q"}}],
    q="it's \"q\" \\ \n\u200b", html="<b>&'\"", html_like="a-b c(d) [e]f",
)

EXPRESSIONS = r"""
1 + 2 * 3 ** 2 - -4
2 ** 3 ** 2
2 ** -1
-2 ** 2
7 // 2, -7 // 2, 7 % -3, -7 % 3, 7.5 // 2, -7.5 % 2
7 / 2, 4 / 2
1 / 0
5 % 0
1.0, 1e3, 1e16, 1e-5, 0.1 + 0.2, big, small, 1_000
true + 1, True * 3
"a" + "b" ~ 1 ~ none ~ true ~ 1.5
"a" * 3, 2 * [1, 2]
"a" + 1
[1] + [2], (1,) + (2, 3), (1,), ()
[1] + (2,)
1 < 2 < 3, 1 < 3 < 2, 3 > 2 >= 2 != 1
"a" < "b", [1, 2] < [1, 3], "B" < "a"
1 < "a"
1 == 1.0, true == 1, "1" == 1, none == none, nope == nope, [1] == [1], {"a": 1} == {"a": 1.0}
"é" == "e\u0301"
"ell" in s, "x" not in s, 2 in [1, 2], "b" in d, 1 in {"b": 1}, "x" in nope
1 in "abc"
not 1 == 2 and not false or none
1 and "x", 0 or "y", "" or none, [] and 1
"yes" if n > 3 else "no"
"yes" if n > 30
(n if false) is defined
nope
nope.x
d.nope, d["nope"], d.a.x[1], d.b, d["items"]
d.items() | list
d.nope.deeper
words[0], words[-1], words[9] is defined, s[0], s[-1], e[1]
words[1:3], words[::-1], words[:-1], words[-2:], words[::2], s[::-1], s[2:8:2], words[5:], words[3:0:-1]
words[::0]
nums[1.0]
{"a": 1, 2: "b", none: [1, (2,)], true: {}}
[1, "a", 1.5, none, true, q, nope]
q
[html], [e], ["\u200b\x01"]
{"a": 1}.a, {"x": {"y": 2}}.x.y
{"k": 1, "k": 2}
{[1]: 2}
'single \'quoted\' \x41 \u00e9 \t|' "joined" ' strings'
"a\qb", "a\\nb"
n is defined, nope is defined, nope is undefined, n is none, nothing is none
n is number, n is integer, f is float, t is integer, t is number, t is boolean, s is number, f is integer
s is string, d is mapping, words is sequence, s is sequence, d is iterable, n is iterable, nope is sequence, d.items() is sequence
t is true, n is true, false is false, 1 is true
n is odd, 4 is even, 9 is divisibleby 3, 9 is divisibleby(2), 3.0 is odd
n is divisibleby 0
n is equalto 7, n is eq(7), n is ne 8, n is gt 3, n is lessthan 3, n is ge 7, n is not in [1, 2], n is in [7]
s is lower, "abc" is lower, "ABC1" is upper, "1" is upper, d is callable, range is callable
none is sameas none, true is sameas(true)
not n is defined, n is not defined
words is not mapping and words
s | upper, s | lower, "hELLO wORLD" | title, html_like | title, "hELLO wORLD" | capitalize, none | upper
sp | trim, "xxaxx" | trim("x"), sp | trim | length, e | length, words | length, d | length, nope | length, words | count
n | length
nope | default("x"), "" | default("x"), "" | default("x", true), none | d("y"), none | d("y", boolean=true), nope | default
words | join(", "), nums | join, rows | join("/", attribute="n"), nope | join, "abc" | join("-"), d | join
words | first, words | last, empty | first is defined, "xyz" | first, d | first, nope | first
words | sort, words | sort(case_sensitive=true), nums | sort(reverse=true), rows | sort(attribute="v") | map(attribute="n") | join
words | sort(true)
[1, "a"] | sort
words | unique | list, nums | unique | list, words | unique(true) | join
words | min, words | max, nums | max, nums | min, empty | min is defined, rows | max(attribute="v")
nums | sum, rows | sum(attribute="v"), rows | sum("v", 10), [[1], [2]] | sum(start=[])
words | sum
words | reverse | list, "abc" | reverse, (1, 2) | reverse | list, d | reverse | list
"abc" | list, d | list, range(3) | list, (1, 2) | list, d.values() | list
n | list
words | map("upper") | list, words | map("replace", "p", "P") | list, rows | map(attribute="k.id", default="-") | list
rows | map(attribute="k.id") | list
rows | map(attribute="k") | list, rows | map(attribute="n") | join
rows | selectattr("o") | map(attribute="n") | list, rows | rejectattr("o") | list | length, rows | selectattr("v", "gt", 1) | list | length
rows | selectattr("n", "equalto", "Y") | first, rows | selectattr("o", "defined") | list | length, rows | selectattr("k.id") | list | length
nums | select("odd") | list
nums | select("gt", 1) | list, nums | reject("equalto", 1) | list, ["", "a", none] | select | list
words | select("in", ["fig"]) | list, rows | selectattr("n", "in", "xY") | list | length
d | items | list, nope | items | list, d | dictsort, {"B": 1, "a": 2} | dictsort, {"b": 1, "a": 2} | dictsort(by="value", reverse=true)
{"B": 1, "a": 2} | dictsort(true)
words | batch(3) | list, words | batch(3, "-") | list, nums | slice(3) | list, nums | slice(3, 0) | list
"42" | int, "42.9" | int, "x" | int, "x" | int(5), 3.9 | int, -3.9 | int, true | int, none | int, " 12 " | int, "1_000" | int, "1e3" | int
"4.5" | float, "x" | float, 3 | float, "x" | float(1.5), "inf" | float, " 2 " | float
"abc" | string, 12 | string ~ "!", none | string, [1] | string
-3 | abs, -3.5 | abs, (0 - 4) | abs
2.675 | round(2), 2.5 | round, 3.5 | round, 42 | round, 2.12 | round(1, "ceil"), 2.19 | round(1, "floor"), 1234.5 | round(-2)
html | escape, html | e, html | safe, html | forceescape, (html | safe) is escaped, "x" | e ~ html
("<" | safe) + "<", "<" + ("<" | safe)
s | replace("l", "L"), s | replace("l", "L", 1), "aaa" | replace("", "-"), "a.b" | replace(".", ""), 12 | replace(1, "x")
"a\nb\n\nc" | indent, "a\nb\n\nc" | indent(2, true), "a\nb\n\nc" | indent(width=3, blank=true), "a\nb" | indent("> ", first=true)
"a b  c" | wordcount, "ab" | center(7), "abc" | center(6), "ab" | center(5)
d | tojson, q | tojson, e | tojson, html | tojson, nums | tojson, [] | tojson, {} | tojson, (1, 2) | tojson, big | tojson
d | tojson(indent=2), d | tojson(indent=4, sort_keys=true), d | tojson(separators=(",", ":")), e | tojson(ensure_ascii=true), [1] | tojson(indent=0)
d | tojson(indent="\t"), {1: 2, none: 3, true: 4, 1.5: 5} | tojson, d | tojson(false, 1)
nope | tojson
range(3) | tojson
rows | tojson | length
s.upper(), s.lower(), s.split(", "), s.split(), sp.split(), s.title(), "it's ok".title(), s.capitalize()
s.startswith("He"), s.endswith(("x", "ld")), s.startswith("e", 1), s.find("o"), s.rfind("o"), s.find("zz"), s.count("l"), s.index("W")
s.index("zz")
s.replace("o", "0"), s.replace("o", "0", 1), sp.strip(), sp.lstrip(), sp.rstrip(), "xxayx".strip("x"), "xxayx".lstrip("xa"), "yx".rstrip("x")
"a,b,c".split(","), "a,b,c".split(",", 1), "a,b,c".rsplit(",", 1), "a  b c".split(None, 1), "a b  c ".rsplit(None, 1), "".split(","), "".split()
"a\nb\r\nc\rd".splitlines(), "a\nb\n".splitlines(true), "a-b-c".partition("-"), "a-b-c".rpartition("-"), "abc".partition("-"), "abc".rpartition("-")
"abc".split("")
", ".join(words), "-".join("abc"), "".join([])
", ".join([1])
"prefix-x".removeprefix("prefix-"), "x.txt".removesuffix(".txt"), "x".removesuffix(""), "7".zfill(3), "-7".zfill(4), "a".ljust(3) ~ "|", "a".rjust(3, "*"), "a".center(4, ".")
"12".isdigit(), "1a".isdigit(), "ab".isalpha(), "a1".isalnum(), " ".isspace(), "".isdigit(), "ab".islower(), "AB".isupper(), "ab".isascii()
d.get("b"), d.get("zz"), d.get("zz", 9), d.keys() | list, d.values() | list | length, d.items() | length, d.keys()
[1, 2, 1].count(1), [1, 2].index(2), (3, 3).count(3)
words.append("x")
d.update({"x": 1})
d.pop("b")
range(5) | list, range(2, 8, 3) | list, range(5, 0, -2) | list, range(3)[1], range(3) | length, range(0), range(1, 3)
range(200000)
range(1, 2, 0)
dict(a=1, b="x"), dict({"z": 1}, y=2), dict([("k", 1)])
namespace(a=1).a, namespace({"b": 2}).b
namespace(_a=1)
raise_exception("no " ~ n)
strftime_now("%Y-%m-%d %H:%M %d %b %B %A")
nofunction(1)
n()
s | nofilter
s is notest
loop
(1, 2)[0], [[1, 2], [3]][0][1], d.a["x"][0]
"a" ~ "b" | upper, ("a" ~ "b") | upper, -1 | abs, n is odd and n is defined, not words is mapping
1 if 2 if 0 else 3 else 4
words | length > 3 and words[0] | length == 4
"a" in "abc" == true
[1,2,], {"a": 1,}, (1,2,)
d.a.x | join(","), d["a"].x[-1]
"\u65e5\u672c" | upper | length, "ß" | upper, "ǅ" | lower
"foo bar baz qux" | truncate(9), "foo bar baz qux" | truncate(9, true), "foo bar baz qux" | truncate(11), "foo bar baz qux" | truncate(11, false, "…", 0), "a b" | truncate(1), e | truncate(3, leeway=0)
[1, 2] | truncate(5), "abcdefghij" | truncate(3, leeway=0), "abcdefghij" | truncate(4, leeway=0), "ab cd" | truncate(length=4, end="", leeway=0)
"abc" | truncate(2)
"abc" | truncate(5, leeway=-1)
7 | truncate
s | urlencode, "a/b c&d=é" | urlencode, {"a b": "c/d", "e": 1} | urlencode, [["x", "ä"], ("y", none)] | urlencode, 1.5 | urlencode, nope | urlencode, true | urlencode
nums | urlencode
{"class": "a<b", "id": 1, "no": none, "nope": nope} | xmlattr, {} | xmlattr, {"a": html} | xmlattr(false), {"a": "<" | safe} | xmlattr
{"a b": 1} | xmlattr
words | xmlattr
html | striptags, "<p>Hi  <b>you</b></p>\n<!-- no > --> there &amp; &lt;x&gt; &#39;&#x41;" | striptags, "a < b" | striptags, "a <b" | striptags, "Q&A, x && y" | striptags, 5 | striptags
"see https://example.com/a?b=1, (www.x.org) or <http://y.net>. me@z.io mailto:a@b.co x.com ftp://q" | urlize
"https://example.com/long/path" | urlize(12), "https://a.com" | urlize(nofollow=true), "https://a.com" | urlize(target="_blank", rel="x b"), "tel:123 x:y" | urlize(extra_schemes=["tel:"]), "https://en.org/a_(b)" | urlize, "a&b <c>" | urlize
"x" | urlize(extra_schemes=["1"])
"http://127.0.0.1:80/x http://[::1]/ http://localhost www.a.b @a@b a@b a@b.c, HTTPS://UP.COM (http://a.com)." | urlize
"The quick brown fox jumps over the lazy dog" | wordwrap(10), "The quick brown fox" | wordwrap(12, wrapstring="|"), "a\n\nbb  cc\n" | wordwrap(4)
"aaaaaaaaaaaa bb" | wordwrap(5), "aaaaaaaaaaaa bb" | wordwrap(5, false), "well-known self-made x--y a-b re-co-ver" | wordwrap(6), "well-known self-made x--y" | wordwrap(6, true, "/", false), "it -- is --option 1-2 e-mail" | wordwrap(5, wrapstring="/")
"a  b   c    d" | wordwrap(3, wrapstring="/"), "" | wordwrap, "  x y" | wordwrap(3, wrapstring="/"), "extra-long-hyphenated-thing" | wordwrap(7, wrapstring="/"), s | wordwrap(width=5), e ~ e ~ e | wordwrap(4, wrapstring="/")
"x" | wordwrap(0)
5 | wordwrap
0 | filesizeformat, 1 | filesizeformat, 999 | filesizeformat, 1000 | filesizeformat, 123456789 | filesizeformat, 1536 | filesizeformat(true), "2048" | filesizeformat(binary=true), 1e30 | filesizeformat, -5 | filesizeformat, 2.9 | filesizeformat, 1e24 | filesizeformat
"x" | filesizeformat
"%s, %s!" | format(s, n), "%(a)s-%(b)05.1f" | format(a=1, b=2.25), "%d %i %5d|%-5d|%05d|%+d|% d" | format(1, 2.9, 3, 4, 5, 6, 7), "%x %X %#x %o %#o" | format(255, 255, 255, 8, 8), "%e %.2e %g %G %.3g" | format(12345.678, 0.00012, 1e10, 1e-10, 2.5)
"%r %s %5s|%-5s|%.2s" | format(q, none, "a", "b", "cde"), "%c%c %%" | format(65, "é"), "%*d|%.*f" | format(5, 1, 2, 3.14159), "%5.1f%%" | format(99.95), "no" | format, "%s" | format([1, 2]), "%.0f %.0f" | format(0.5, 1.5), "%08.3f|%+.1f" | format(-3.14159, 2), "%.3d" | format(5), "%f %F" | format(big, small), "%s" | format(nope)
"%d" | format("x")
"%s" | format
"%s" | format(1, 2)
"%s %(a)s" | format(1, a=2)
"%(b)s" | format(a=1)
"%y" | format(1)
"%" | format(1)
"%s and %s" % ("a", 2), "%d" % 3, "%(x)s" % {"x": 1}, "%s" % [1], "%s" % nope, "%5.1f" % f, "no" % {}
"%s %s" % "a"
"none" % 1
rows | groupby("n"), rows | groupby("o", default="-") | list | length, words | groupby(0) | map("first") | list
{"k": "b"}.k, [{"k": "b", "v": 1}, {"k": "A", "v": 2}, {"k": "B", "v": 3}] | groupby("k")
[{"k": "b", "v": 1}, {"k": "A", "v": 2}, {"k": "B", "v": 3}] | groupby("k", case_sensitive=true) | map(attribute="grouper") | join, [{"k": 1}, {"k": 2}, {"k": 1}] | groupby("k") | map(attribute="list") | map("length") | list
[{"k": 1}, {"v": 2}] | groupby("k", default=0), [{"a": {"b": 2}}, {"a": {"b": 1}}] | groupby("a.b") | map("first") | list
[{"k": 1}, {"k": "x"}] | groupby("k")
rows | sort(attribute="o,n") | length
[{"a": 2, "b": "x"}, {"a": 1, "b": "z"}, {"a": 1, "b": "Y"}] | sort(attribute="a,b") | map(attribute="b") | join, [{"a": 2, "b": "x"}, {"a": 1, "b": "z"}] | sort(true, attribute="a,b") | map(attribute="b") | join
(s | attr("upper"))(), d | attr("b") is defined, (d | attr("get"))("b"), namespace(x=4) | attr("x"), n | attr("nope") is defined
nope | attr("x")
d | pprint, s | pprint, nums | pprint, {"b": [1, {"z": 1, "a": (1,)}], "a": none} | pprint, [] | pprint, n | pprint
(words * 12) | pprint
{"long key number one": words * 4, "another": {"x": "word " * 20, "y": [1, 2]}, "third": "x" * 90} | pprint
"The quick brown fox jumps over the lazy dog, and then it does all of that again, twice." | pprint
["The quick brown fox jumps over the lazy dog, and then it does all of that again, twice.\nline two"] | pprint
[] | random is defined, [5] | random, "x" | random, nope | random is defined
5 | random
""".strip("\n").split("\n")

# Every filter on what a field may hold beside text, one by one as many are refused.
ARGUMENTS = {"attr": "('x')", "batch": "(2)", "groupby": "('x')", "map": "('string')", "rejectattr": "('x')", "replace": "('o', '0')", "selectattr": "('x')", "slice": "(2)"}
LISTED = {"batch", "items", "map", "reject", "rejectattr", "select", "selectattr", "slice", "unique", "reverse"}
EXPRESSIONS += [
    f"({value}) | {name}{ARGUMENTS.get(name, '')}{' | list' if name in LISTED else ''}"
    for name in sorted(set(FILTERS) - {"d", "e", "random"}) for value in ("none", "nope", "''", "0", "true", "[]", "{}", "[none]", "'a\u00df'")
]

STATEMENTS = [
    "{% for x in words %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }} {% endfor %}",
    "{% for x in words %}{{ loop.previtem }}<{{ x }}>{{ loop.nextitem }}{{ loop.previtem is defined }};{% endfor %}",
    "{% for x in empty %}a{% else %}none{% endfor %}{% for x in nope %}b{% else %}nope{% endfor %}",
    "{% for x in nums if x > 1 %}{{ loop.index }}/{{ loop.length }}:{{ x }} {% else %}-{% endfor %}",
    "{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}{% for (k, v) in d | dictsort %}{{ k }},{% endfor %}",
    "{% for k, v in nums %}{% endfor %}",
    "{% for x in words %}{% if loop.first %}{% continue %}{% endif %}{% if x == 'apple' %}{% break %}{% endif %}{{ x }}{% endfor %}",
    "{% break %}", "{% for x in words %}{% macro m() %}{% break %}{% endmacro %}{% endfor %}",
    "{% for x in words %}{{ loop.cycle('a', 'b') }}{{ loop.changed(x | length) }}{% endfor %}",
    "{% set x = 1 %}{% for i in nums %}{% set x = x + 1 %}{{ x }}{% endfor %}{{ x }}",
    "{% for i in nums %}{% set y = i %}{% endfor %}{{ y is defined }}",
    "{% if true %}{% set z = 5 %}{% endif %}{{ z }}{% if false %}{% set w = 1 %}{% endif %}{{ w is defined }}",
    "{% set ns = namespace(c=0, l=[]) %}{% for i in nums %}{% set ns.c = ns.c + i %}{% set ns.l = ns.l + [i] %}{% endfor %}{{ ns.c }} {{ ns.l }} {{ ns.zz is defined }}",
    "{% set ns = namespace() %}{% set ns._x = 1 %}", "{% set q.x = 1 %}", "{% set a.b = 1 %}",
    "{% set a, b = 1, 2 %}{{ a }}{{ b }}{% set a, b = b, a %}{{ a }}{{ b }}{% set (c, d2) = [3, 4] %}{{ c + d2 }}",
    "{% set t = 1, %}{{ t }}{% set u = (1) %}{{ u }}", "{% set x %} a {{ n }} {% endset %}[{{ x }}]{% set y | upper | trim %} abc {% endset %}[{{ y }}]",
    "{% macro m(a, b=2, c='x') %}({{ a }}|{{ b }}|{{ c }}){% endmacro %}{{ m(1) }}{{ m(1, 3) }}{{ m(1, c=n) }}{{ m() }}{{ m(b=1, a=0) }}",
    "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, 2) }}", "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(z=2) }}",
    "{% macro m(a) %}{{ a }}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 2, 3, z=4) }}{{ m(*[5, 6], **{'k': 1}) }}",
    "{% macro m() %}[{{ n }}{{ later }}]{% endmacro %}{% set later = 'L' %}{{ m() }}{% set later = 8 %}{{ m() }}",
    "{% macro m() %}{% set inner = 1 %}{{ inner }}{% endmacro %}{{ m() }}{{ inner is defined }}",
    "{% macro fact(k) %}{% if k > 1 %}{{ k }}*{{ fact(k - 1) }}{% else %}1{% endif %}{% endmacro %}{{ fact(5) }}",
    "{% macro forever(k) %}{{ forever(k) }}{% endmacro %}{{ forever(1) }}",
    "{% macro box(t) %}<{{ t }}>{{ caller() }}</>{% endmacro %}{% call box('h') %}in {{ n }}{% endcall %}",
    "{% macro each(l) %}{% for i in l %}{{ caller(i) }}{% endfor %}{% endmacro %}{% call(i) each(nums) %}[{{ i }}]{% endcall %}",
    "{% macro m() %}x{% endmacro %}{% call m() %}y{% endcall %}", "{{ (m is defined) }}{% macro m() %}{% endmacro %}{{ m is defined }}",
    "{% filter upper %}abc {{ s }}{% endfilter %}{% filter replace('a', 'b') | title %}aa ba{% endfilter %}",
    "{% with a = 1, b = 2 %}{{ a }}{{ b }}{% endwith %}{{ a is defined }}", "{% with %}x{% endwith %}",
    "{# a comment #}x{#- another -#}  y  {#- z #}\n{# end #}\n!", "{% raw %}{{ not }} {% this %}{% endraw %}!", "a {%- raw %} b {% endraw -%} c",
    "a\n  {% if true %}\n  b\n  {% endif %}\nc\n", "a\n  {%- if true -%}\n  b\n  {%- endif -%}\nc\n", "a\n  {%+ if true %}\nb{% endif +%}\nc",
    "a  {{- n -}}  b", "a\n{{ n }}\nb\n\n", "  {% set x = 1 %}  {{ x }}  ", "\t{% if 1 %}\n\n{% endif %}\r\nx\r\n{{ n }}\r\n", "x {% if 1 %}\ny{% endif %}",
    "{% if n > 8 %}a{% elif n > 6 %}b{% else %}c{% endif %}{% if nope %}1{% elif none %}2{% endif %}", "{% if n %}", "{% endif %}", "{% else %}", "{{ n", "{% if n",
    "{{ n }", "{{ 'abc }}", "{{ [1, 2 }}", "{{ (1 }}", "{{ }}", "{% set %}", "{% for x %}{% endfor %}", "{% nothing %}", "{% do x %}", "{% include 'x' %}", "{{ 1 2 }}", "{{ a b }}", "{{ n | }}",
    "{{ {'a': {'b': 1}} }}{{ {'a': {}}}}", "{{ '}}' }}{{ '%}' }}{% if '%}' == '%}' %}y{% endif %}", "{ { n } } {% raw %}{{{% endraw %}",
    "{% set g = rows | map(attribute='n') %}{{ g | list }}{{ g | list }}", "{% set g = rows | selectattr('o') %}{{ 1 if g else 2 }}{{ g | first }}{{ g | list }}",
    "{{ rows | map(attribute='n') | length }}", "{% generation %}a{% endgeneration %}b",
    "{% set j = joiner('; ') %}{{ j() }}a{{ j() }}b{{ j() }}c", "{% for a in words %}{% for b in nums %}{{ loop.index }}{% endfor %}{{ loop.index }} {% endfor %}",
    "{% for i in range(3) %}{% if i == 1 %}{% set v = 'in' %}{% endif %}{{ v is defined }}{% endfor %}", "{{ d }}{{ rows[0] }}{{ none }}{{ true }}{{ (1,) }}{{ 'x' }}",
    "{% for c in e %}{{ c }}|{% endfor %}", "{% for x in n %}{% endfor %}", "{{ words[n] }}!{{ words['x'] }}!", "{%- set x = 'a' -%}\n  {{- x }}\n", "{% if a is defined and a.b %}{% endif %}ok",
    "{% for x in [1, 2, 3] -%}\n  {{ x }}\n{%- endfor %}\n.", "{% set ns = namespace(a=namespace(b=1)) %}{{ ns.a.b }}", "{{ n if n else raise_exception('x') }}",
    "{%set x=3%}{{x}}{%if x==3%}y{%endif%}", "{{ 'a'\n 'b' }}", "{% set x = 'line\nbreak' %}{{ x }}", "{{ loop is defined }}", "{{ true.x is defined }}{{ none.x is defined }}",
]

# What Python renders and this project refuses, by a word of the error.
UNSUPPORTED = {
    "{{ '{}'.format(1) }}": "format", "{{ ('<' | safe) % 3 }}": "'%'", "{{ s.swapcase() }}": "swapcase",
    "{% for x in nums %}{{ loop }}{% endfor %}": "LoopContext", "{{ 3.14.real }}": "real", "{{ range.x }}": "x",
    "{% for x in nums recursive %}{% endfor %}": "recursive", "{% block a %}{% endblock %}": "block",
    "{{ '&copy;' | striptags }}": "copy", "{{ '%a' % s }}": "%a", "{{ 0x10 }}": "decimal",
    "{{ '\\N{DASH}' }}": "N", "{{ cycler(1, 2).next() }}": "cycler", "{{ ('<' | safe).upper() }}": "upper",
    "{{ 2 ** 70 }}": "large", "{{ rows is sameas rows }}": "sameas",
    "{{ d['a', 'b'] }}": "parts", "{{ 10 ** 30 }}": "large",
}

TEMPLATES = {
    "chatml": """{% for m in messages %}{% if loop.first and m['role'] != 'system' %}{{ '<|im_start|>system\\nBe of use.<|im_end|>\\n' }}{% endif %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>' + '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}""",
    "llama-2": """{% if messages[0]['role'] == 'system' %}{% set rest = messages[1:] %}{% set sys = messages[0]['content'] %}{% else %}{% set rest = messages %}{% set sys = false %}{% endif %}{% for m in rest %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles have to alternate') }}{% endif %}{% if loop.index0 == 0 and sys != false %}{% set content = '<<SYS>>\\n' + sys + '\\n<</SYS>>\\n\\n' + m['content'] %}{% else %}{% set content = m['content'] %}{% endif %}{% if m['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% elif m['role'] == 'assistant' %}{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}""",
    "llama-3.1": """{{- bos_token }}
{%- if custom_tools is defined %}
    {%- set tools = custom_tools %}
{%- endif %}
{%- if not date_string is defined %}
    {%- set date_string = strftime_now("%d %b %Y") %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system = messages[0]['content'] | trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{%- if builtin_tools is defined or tools is not none %}
    {{- "Environment: python\\n" }}
{%- endif %}
{%- if builtin_tools is defined %}
    {{- "Tools: " + builtin_tools | reject('equalto', 'code_interpreter') | join(", ") + "\\n\\n" }}
{%- endif %}
{{- "Today: " + date_string + "\\n\\n" }}
{%- if tools is not none %}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
        {{- "\\n\\n" }}
    {%- endfor %}
{%- endif %}
{{- system }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim + '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls | length == 1 %}
            {{- raise_exception("one call at a time") }}
        {%- endif %}
        {%- set tool_call = message.tool_calls[0].function %}
        {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}
        {%- if builtin_tools is defined and tool_call.name in builtin_tools %}
            {{- "<|python_tag|>" + tool_call.name + ".call(" }}
            {%- for arg_name, arg_val in tool_call.arguments | items %}
                {{- arg_name + '="' + arg_val ~ '"' }}
                {%- if not loop.last %}
                    {{- ", " }}
                {%- endif %}
            {%- endfor %}
            {{- ")" }}
        {%- else %}
            {{- '{"name": "' + tool_call.name + '", "parameters": ' }}
            {{- tool_call.arguments | tojson }}
            {{- "}" }}
        {%- endif %}
        {{- "<|eot_id|>" }}
    {%- elif message.role == "tool" or message.role == "ipython" %}
        {{- "<|start_header_id|>ipython<|end_header_id|>\\n\\n" }}
        {%- if message.content is mapping or message.content is iterable %}
            {{- message.content | tojson }}
        {%- else %}
            {{- message.content }}
        {%- endif %}
        {{- "<|eot_id|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
""",
    "mistral-v3": """{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- if not tools is defined %}{%- set tools = none %}{%- endif %}
{%- set user_messages = loop_messages | selectattr("role", "equalto", "user") | list %}
{%- set ns = namespace(index=0) %}
{%- for message in loop_messages %}
    {%- if not (message.role == "tool" or message.role == "tool_results" or (message.tool_calls is defined and message.tool_calls is not none)) %}
        {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}
            {{- raise_exception("user and assistant take turns") }}
        {%- endif %}
        {%- set ns.index = ns.index + 1 %}
    {%- endif %}
{%- endfor %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if tools is not none and (message == user_messages[-1]) %}
            {{- "[AVAILABLE_TOOLS] [" }}
            {%- for tool in tools %}
                {%- set tool = tool.function %}
                {{- '{"type": "function", "function": {' }}
                {%- for key, val in tool.items() if key != "return" %}
                    {%- if val is string %}{{- '"' + key + '": "' + val + '"' }}{%- else %}{{- '"' + key + '": ' + val | tojson }}{%- endif %}
                    {%- if not loop.last %}{{- ", " }}{%- endif %}
                {%- endfor %}
                {{- "}}" }}
                {%- if not loop.last %}{{- ", " }}{%- else %}{{- "]" }}{%- endif %}
            {%- endfor %}
            {{- "[/AVAILABLE_TOOLS]" }}
        {%- endif %}
        {%- if loop.last and system_message is defined %}{{- "[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]" }}{%- else %}{{- "[INST] " + message["content"] + "[/INST]" }}{%- endif %}
    {%- elif message.tool_calls is defined and message.tool_calls is not none %}
        {{- "[TOOL_CALLS] [" }}
        {%- for tool_call in message.tool_calls %}
            {%- set out = tool_call.function | tojson %}
            {{- out[:-1] }}
            {%- if not tool_call.id is defined or tool_call.id | length != 9 %}{{- raise_exception("ids of calls have nine characters") }}{%- endif %}
            {{- ', "id": "' + tool_call.id + '"}' }}
            {%- if not loop.last %}{{- ", " }}{%- else %}{{- "]" + eos_token }}{%- endif %}
        {%- endfor %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"] | trim + eos_token }}
    {%- elif message["role"] == "tool_results" or message["role"] == "tool" %}
        {%- if message.content is defined and message.content.content is defined %}{%- set content = message.content.content %}{%- else %}{%- set content = message.content %}{%- endif %}
        {{- '[TOOL_RESULTS] {"content": ' + content | string + ", " }}
        {{- '"call_id": "' + message.tool_call_id + '"}[/TOOL_RESULTS]' }}
    {%- else %}{{- raise_exception("unknown role") }}{%- endif %}
{%- endfor %}
""",
    "gemma": """{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('turns alternate') }}{% endif %}{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}{{ '<start_of_turn>' + role + '\\n' + message['content'] | trim + '<end_of_turn>\\n' }}{% endfor %}{% if add_generation_prompt %}{{'<start_of_turn>model\\n'}}{% endif %}""",
    "qwen-2.5": """{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0]['role'] == 'system' %}
        {{- messages[0]['content'] }}
    {%- else %}
        {{- 'Be of use.' }}
    {%- endif %}
    {{- "\\n\\n# Functions\\n<tools>" }}
    {%- for tool in tools %}
        {{- "\\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "\\n</tools>\\n<|im_end|>\\n" }}
{%- else %}
    {%- if messages[0]['role'] == 'system' %}
        {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}
    {%- else %}
        {{- '<|im_start|>system\\nBe of use.<|im_end|>\\n' }}
    {%- endif %}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) or (message.role == "assistant" and not message.tool_calls) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {{- '<|im_start|>' + message.role }}
        {%- if message.content %}
            {{- '\\n' + message.content }}
        {%- endif %}
        {%- for tool_call in message.tool_calls %}
            {%- if tool_call.function is defined %}
                {%- set tool_call = tool_call.function %}
            {%- endif %}
            {{- '\\n<tool_call>\\n{"name": "' }}
            {{- tool_call.name }}
            {{- '", "arguments": ' }}
            {{- tool_call.arguments | tojson }}
            {{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {%- if (loop.index0 == 0) or (messages[loop.index0 - 1].role != "tool") %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\\n<tool_response>\\n' }}
        {{- message.content }}
        {{- '\\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}
            {{- '<|im_end|>\\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
""",
    "qwen-3": """{%- set ns = namespace(looking=true, last=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.looking and message.role == "user" and message.content is string and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.looking = false %}
        {%- set ns.last = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.content is string %}{%- set content = message.content %}{%- else %}{%- set content = '' %}{%- endif %}
    {%- if message.role == "assistant" %}
        {%- set thoughts = '' %}
        {%- if message.reasoning_content is string %}
            {%- set thoughts = message.reasoning_content %}
        {%- else %}
            {%- if '</think>' in content %}
                {%- set thoughts = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
                {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
            {%- endif %}
        {%- endif %}
        {%- if loop.index0 > ns.last and (loop.last or (not loop.last and thoughts)) %}
            {{- '<|im_start|>' + message.role + '\\n<think>\\n' + thoughts.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\\n' + content }}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- else %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}""",
    "phi-3": """{% for message in messages %}{% if message['role'] == 'system' and message['content'] %}{{ '<|system|>\n' + message['content'] + '<|end|>\n' }}{% elif message['role'] == 'user' %}{{ '<|user|>\n' + message['content'] + '<|end|>\n' }}{% elif message['role'] == 'assistant' %}{{ '<|assistant|>\n' + message['content'] + '<|end|>\n' }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}""",
    "zephyr": """{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>\n' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>\n' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>\n'  + message['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}""",
    "command-r": """{{ bos_token }}{% macro call_line(calls) -%}
{%- for c in calls %}
    {"tool_name": "{{ c.function.name }}", "parameters": {{ c.function.arguments | tojson(indent=4) | indent }}}{{ "," if not loop.last else "" }}
{%- endfor %}
{%- endmacro %}{% set preamble = messages[0].content if messages[0].role | lower == 'system' else 'A preamble.' %}<|SYSTEM|>{{ preamble | trim }}{% if tools %}

{% for t in tools %}{{ '```' }}python
def {{ t.function.name }}({% for name, p in t.function.parameters.properties.items() %}{{ name }}: {{ {'string': 'str', 'number': 'float'}.get(p.type, 'Any') if p.type is string else p.type | map('upper') | join('|') }}{{ '' if name in t.function.parameters.required else ' = None' }}{% if not loop.last %}, {% endif %}{% endfor %}) -> List[Dict]:
    \"\"\"{{ t.function.description | default('nothing', true) }}\"\"\"
{{ '```' }}{% if not loop.last %}{{ '\\n\\n' }}{% endif %}{% endfor %}{% endif %}<|END|>{% for m in messages %}{% if m.role == 'system' and loop.first %}{% continue %}{% endif %}<|{{ m.role | upper }}|>{% if m.tool_calls %}Action: [{{ call_line(m.tool_calls) }}
]{% else %}{{ m.content | default('') | string | trim }}{% endif %}<|END|>{% endfor %}{{ '<|CHATBOT|>' if add_generation_prompt }}""",
    "deepseek": """{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}{% set ns = namespace(is_first=false, is_tool=false, is_output_first=true, system_prompt='') %}{%- for message in messages %}{%- if message['role'] == 'system' %}{% set ns.system_prompt = ns.system_prompt ~ message['content'] %}{%- endif %}{%- endfor %}{{ bos_token }}{{ ns.system_prompt }}{%- for message in messages %}{%- if message['role'] == 'user' %}{%- set ns.is_tool = false -%}{{ '<|User|>' + message['content'] }}{%- endif %}{%- if message['role'] == 'assistant' and message['content'] is none %}{%- set ns.is_tool = false -%}{{ '<|Assistant|>none' }}{%- endif %}{%- if message['role'] == 'assistant' and message['tool_calls'] %}{%- set ns.is_tool = false -%}{%- for tool in message['tool_calls'] %}{%- if not ns.is_first %}{{ '<|Assistant|><|calls|>' + tool['function']['name'] + '\\n' + '```json' + '\\n' + tool['function']['arguments'] | string + '\\n' + '```' }}{%- set ns.is_first = true -%}{%- else %}{{ '\\n' + tool['function']['name'] }}{%- endif %}{%- endfor %}{%- elif message['role'] == 'assistant' %}{%- if ns.is_tool %}{{ '<|outputs end|>' + message['content'] + '<|end|>' }}{%- set ns.is_tool = false -%}{%- else %}{% set content = message['content'] %}{% if '</think>' in content %}{% set content = content.split('</think>')[-1] %}{% endif %}{{ '<|Assistant|>' + content + '<|end|>' }}{%- endif %}{%- endif %}{%- if message['role'] == 'tool' %}{%- set ns.is_tool = true -%}{%- if ns.is_output_first %}{{ '<|outputs|>' + message['content'] }}{%- set ns.is_output_first = false %}{%- else %}{{ '\\n' + message['content'] }}{%- endif %}{%- endif %}{%- endfor -%}{% if ns.is_tool %}{{ '<|outputs end|>' }}{% endif %}{% if add_generation_prompt and not ns.is_tool %}{{ '<|Assistant|>' }}{% endif %}""",
    "training": """{% for message in messages %}
{% if message.role == 'assistant' %}
{{ '<|im_start|>assistant\\n' }}{% generation %}{{ message.content }}{% if message.tool_calls %}{% for c in message.tool_calls %}{{ c.function | tojson }}{% endfor %}{% endif %}{{ '<|im_end|>' }}{% endgeneration %}{{ '\\n' }}
{% else %}
{{ '<|im_start|>' ~ message.role ~ '\\n' ~ message.content ~ '<|im_end|>\\n' }}
{% endif %}
{% endfor %}
{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}""",
}

TOOL = dict(type="function", function=dict(
    name="weather", description='Tells the "weather" <now> & then, é', parameters=dict(
        type="object", properties=dict(city=dict(type="string", description="Where"), days=dict(type=["number", "null"], default=1.5)),
        required=["city"]), **{"return": dict(type="string")}))


def call(name, ident, arguments):
    return dict(id=ident, type="function", function=dict(name=name, arguments=arguments))


def turns(*texts, system=None):
    first = [dict(role="system", content=system)] if system is not None else []
    return first + [dict(role="assistant" if i % 2 else "user", content=t) for i, t in enumerate(texts)]


CALLS = [call("weather", "abcdef123", {"city": 'Bergen "N"', "days": 2, "x": 1.0, "y": True})]
CHATS = [
    dict(messages=turns("Hi")), dict(messages=turns("Hi", "Hello!", "So?"), add_generation_prompt=True),
    dict(messages=turns("  one\n", " two <b>&\" ", "three", "four\n"), date_string="1 May 2024"),
    dict(messages=turns("q", "a", system=" Be terse.\n"), add_generation_prompt=False),
    dict(messages=turns("Grüße 日本 🙂", "e\u0301\r\nx", "tab\t", system=""), add_generation_prompt=True, enable_thinking=False),
    dict(messages=turns("q", "<think>\nwhy\n</think>\n\nbecause", "r", "<think>x</think>y")),
    dict(messages=[*turns("q"), dict(role="assistant", content="a", reasoning_content="r\n"), dict(role="user", content="z")], add_generation_prompt=True),
    dict(messages=[*turns("Rain?"), dict(role="assistant", content=None, tool_calls=CALLS), dict(role="tool", name="weather", tool_call_id="abcdef123", content='{"rain": true}'), dict(role="assistant", content="Yes.")], tools=[TOOL]),
    dict(messages=[*turns("Rain?", system="S"), dict(role="assistant", content="", tool_calls=CALLS), dict(role="tool", tool_call_id="abcdef123", content="no"), dict(role="assistant", content="No."), dict(role="user", content="ok")], tools=[TOOL, TOOL], builtin_tools=["weather", "code_interpreter"], add_generation_prompt=True),
    dict(messages=[*turns("Both"), dict(role="assistant", content="Well", tool_calls=CALLS + [call("x", "short", "{}")]), dict(role="tool", tool_call_id="short", content="1"), dict(role="tool", tool_call_id="short", content="2")]),
    dict(messages=[dict(role="assistant", content="first"), dict(role="user", content="x")]),
    dict(messages=[dict(role="user", content=[dict(type="text", text="part")])]),
]


def plain(source, variables):
    try:
        return dict(text=chat_template_utils._compile_jinja_template(source).render(**variables))
    except Exception as error:
        return dict(refused=f"{type(error).__name__}: {error}"[:60])


def chat(source, row):
    row = dict(row)
    messages = [{k: v for k, v in m.items() if v is not None} for m in row.pop("messages")]
    common = dict(bos_token="<s>", eos_token="</s>", **row)
    common.setdefault("add_generation_prompt", False)
    for key in ("tools", "documents"):
        common.setdefault(key, None)
    try:
        texts, spans = chat_template_utils.render_jinja_template(
            [messages], chat_template=source, return_assistant_tokens_mask=True, **common)
    except Exception as error:
        return dict(refused=f"{type(error).__name__}: {error}"[:60])
    # Places are bytes in the fixture, as in Swift.
    return dict(text=texts[0], generated=[[len(texts[0][:i].encode()) for i in span] for span in spans[0]])


def main():
    sources = ["{{ " + line + " }}" for line in EXPRESSIONS] + STATEMENTS
    write("expressions", dict(variables=VALUES, cases=[dict(template=s, **plain(s, VALUES)) for s in sources],
        unsupported=UNSUPPORTED))
    write("chats", dict(
        templates=TEMPLATES, chats=CHATS,
        results={name: [chat(source, row) for row in CHATS] for name, source in TEMPLATES.items()}))


def write(name, value):
    (HERE / f"{name}.json").write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n")


if __name__ == "__main__":
    main()
