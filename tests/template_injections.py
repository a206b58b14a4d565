"""Published template injections, by where they were published: data for `tests/test_sandbox.py`, never run elsewhere.

Left out are probes that only compute ({{ 7*7 }}), which are kept apart as PROBES, and payloads for other engines'
delimiters, which are plain text to Jinja.
"""

PAYLOADS_ALL_THE_THINGS = [
    # swisskyrepo/PayloadsAllTheThings, "Server Side Template Injection/Python.md" (MIT), commit 21dfd91
    "{% csrf_token %}",
    "{{ '<script>alert(3)</script>' | safe }}",
    "{% debug %}",
    "{{ messages.storages.0.signer.key }}",
    "{% include 'admin/base.html' %}",
    "{% load log %}{% get_admin_log 10 as log %}{% for e in log %}{{e.user.get_username}}{% endfor %}",
    "{{config.items()}}",
    '{% extends "layout.html" %}{% block body %}{{ user.url }}{% endblock %}',
    "{{ [].class.base.subclasses() }}",
    "{{''.class.mro()[1].subclasses()}}",
    "{{ ''.__class__.__mro__[2].__subclasses__() }}",
    "{{ self.__init__.__globals__.__builtins__ }}",
    "{% for key, value in config.iteritems() %}<dt>{{ key|e }}</dt><dd>{{ value|e }}</dd>{% endfor %}",
    "{{ ''.__class__.__mro__[2].__subclasses__()[40]('/etc/passwd').read() }}",
    '{{ config.items()[4][1].__class__.__mro__[2].__subclasses__()[40]("/tmp/flag").read() }}',
    '{{ get_flashed_messages.__globals__.__builtins__.open("/etc/passwd").read() }}',
    "{{ ''.__class__.__mro__[2].__subclasses__()[40]('/var/www/html/hello.txt', 'w').write('Hello here !') }}",
    '{{ x.__init__.__builtins__.exec("from flask import current_app, after_this_request") }}',
    "{{ self.__init__.__globals__.__builtins__.__import__('os').popen('id').read() }}",
    "{{ self._TemplateReference__context.cycler.__init__.__globals__.os.popen('id').read() }}",
    "{{ self._TemplateReference__context.joiner.__init__.__globals__.os.popen('id').read() }}",
    "{{ self._TemplateReference__context.namespace.__init__.__globals__.os.popen('id').read() }}",
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "{{ joiner.__init__.__globals__.os.popen('id').read() }}",
    "{{ namespace.__init__.__globals__.os.popen('id').read() }}",
    "{{ lipsum.__globals__[\"os\"].popen('id').read() }}",
    "{{''.__class__.mro()[1].__subclasses__()[396]('cat flag.txt',shell=True,stdout=-1).communicate()[0].strip()}}",
    "{{config.__class__.__init__.__globals__['os'].popen('ls').read()}}",
    '{% for x in ().__class__.__base__.__subclasses__() %}{% if "warning" in x.__name__ %}'
    "{{x()._module.__builtins__['__import__']('os').popen(request.args.input).read()}}{%endif%}{%endfor%}",
    "{{ ''.__class__.__mro__[2].__subclasses__()[40]('/tmp/evilconfig.cfg', 'w').write('RUNCMD = check_output') }}",
    "{{ config.from_pyfile('/tmp/evilconfig.cfg') }}",
    "{{ config['RUNCMD']('/bin/bash -c \"id\"',shell=True) }}",
    "{{ request.__class__ }}",
    '{{ request["__class__"] }}',
    "{{request|attr([request.args.usc*2,request.args.class,request.args.usc*2]|join)}}",
    '{{request|attr(["_"*2,"class","_"*2]|join)}}',
    '{{request|attr(["__","class","__"]|join)}}',
    '{{request|attr("__class__")}}',
    "{{request|attr((request.args.usc*2,request.args.class,request.args.usc*2)|join)}}",
    "{{request|attr(request.args.getlist(request.args.l)|join)}}",
    "{{request|attr(request.args.f|format(request.args.a,request.args.a,request.args.a,request.args.a))}}",
    "{{request|attr('application')|attr('\\x5f\\x5fglobals\\x5f\\x5f')|attr('\\x5f\\x5fgetitem\\x5f\\x5f')"
    "('\\x5f\\x5fbuiltins\\x5f\\x5f')|attr('\\x5f\\x5fgetitem\\x5f\\x5f')('\\x5f\\x5fimport\\x5f\\x5f')('os')|attr('popen')"
    "('id')|attr('read')()}}",
    "{{os.system('whoami')}}",
    "{%import os%}{{os.system('nslookup example.com')}}",
]

HACKTRICKS = [
    # HackTricks-wiki/hacktricks, "ssti-server-side-template-injection/jinja2-ssti.md" (CC BY-NC 4.0), commit 013d91f
    "{{ config }}",
    "{{ [].__class__ }}",
    '{{ ()["__class__"] }}',
    "{{ config.__class__ }}",
    "{{ dict.__base__ }}",
    '{{ dict["__base__"] }}',
    "{{ dict.mro()[-1] }}",
    "{{ dict.__mro__[-1] }}",
    '{{ (dict|attr("__mro__"))[-1] }}',
    '{{ (dict|attr("\\x5f\\x5fmro\\x5f\\x5f"))[-1] }}',
    "{{ dict.__base__.__subclasses__() }}",
    '{{ (dict.mro()[-1]|attr("\\x5f\\x5fsubclasses\\x5f\\x5f"))() }}',
    "{% with a = dict.mro()[-1].__subclasses__() %} {{ a }} {% endwith %}",
    '{{ ((""|attr("__class__")|attr("__mro__"))[-1]|attr("__subclasses__"))() }}',
    "{% with a = config.__class__.mro()[-1].__subclasses__() %} {{ a }} {% endwith %}",
    "{{ dict.mro()[-1].__subclasses__()[276](request.args.cmd,shell=True,stdout=-1).communicate()[0].strip() }}",
    "{{ request['\\x5f\\x5fclass\\x5f\\x5f'] }}",
    "{{ request|attr(request.headers.c) }}",
    "{{ request|attr(request.query_string[2:16].decode()) }}",
    '{% with a = request["application"]["\\x5f\\x5fglobals\\x5f\\x5f"]["\\x5f\\x5fbuiltins\\x5f\\x5f"]'
    '["\\x5f\\x5fimport\\x5f\\x5f"]("os")["popen"]("ls")["read"]() %} {{ a }} {% endwith %}',
    '{%with a=request|attr("application")|attr("\\x5f\\x5fglobals\\x5f\\x5f")|attr("\\x5f\\x5fgetitem\\x5f\\x5f")'
    '("\\x5f\\x5fbuiltins\\x5f\\x5f")%}{%print(a)%}{%endwith%}',
    "{{ request.__class__.__dict__ }}",
    "{{ config.__class__.__dict__ }}",
    '{{ request.__class__._load_form_data.__globals__.__builtins__.open("/etc/passwd").read() }}',
    '{{ config.__class__.from_envvar["__globals__"]["__builtins__"]["__import__"]("os").popen("ls").read() }}',
    '{{ (config|attr("__class__")).from_envvar["__globals__"]["__builtins__"]["__import__"]("os").popen("ls") }}',
    '{{ config.__class__.from_envvar.__globals__.import_string("os").popen("ls").read() }}',
]

JINJA_ITSELF = [
    # pallets/jinja, tests/test_security.py (BSD-3-Clause), commit 04c8787, and the CVEs of its sandbox
    "{{ foo.foo() }}",
    "{{ foo._foo() }}",
    "{{ foo.__class__ }}",
    "{{ foo.func_code }}",
    "{{ foo.__class__.__subclasses__() }}",
    "{{ [].append(23) }}",
    "{{ {1:2}.clear() }}",
    "{% for item.attribute in seq %}...{% endfor %}",
    "{% for foo, bar.baz in seq %}...{% endfor %}",
    '{{ cls|attr("__subclasses__")() }}',
    '{{ "a{0.__class__}b".format(42) }}',  # CVE-2016-10745
    '{{ "a{x.__class__}b".format_map({"x":42}) }}',  # CVE-2019-10906
    '{{ ("a{0.__class__}b{1}"|safe).format(42, "<foo>") }}',
    '{{ ["a{0.__class__}b"] | map("format", 42) | join }}',  # CVE-2024-56326 keeps a reference to str.format
    '{% set f = "a{0.__class__}b".format %}{{ f(42) }}',
    '{{ "a{0.__class__}b" | attr("format") }}',  # CVE-2025-27516
    "{{ {'a': 1} | xmlattr }}",  # CVE-2024-22195, CVE-2024-34064
]

WRITE_UPS = [
    # Capture-the-flag write-ups: names put together at run time, so that no filter of words sees them
    "{{ lipsum|attr(['_','_','globals','_','_']|join)|attr('get')(['_','_','builtins','_','_']|join) }}",
    '{%print(lipsum|attr("__globals__"))|attr("__getitem__")("os")|attr("popen")("/readflag")|attr("read")()%}',
    "{% set po=dict(po=1,p=1)|join %}{% set x=(()|select|string|list|attr(po)(24)) %}{{ x }}",
    "{%set pop=dict(pop=a)|join%}{%set xhx=(lipsum|string|list)|attr(pop)(18)%}{{ xhx }}",
    "{{(lipsum|attr(request.args.g))['os'].popen(request.args.c).read()}}",
    "{%if config.update(c=request.args.c)%}{%endif%}",
    "{%set a=request.args%}{%set b=(cycler.next|attr(a.g)).os.popen(a.c)%}",
    "{{ url_for.__globals__['current_app'].config }}",
    "{{ (()|select|string) }}{{ ()|select|attr('__class__') }}",
    "{% set ns = namespace(x=0) %}{% set ns.x = 1 %}{{ ns.__class__ }}",
    "{% macro m() %}{{ caller.__globals__ }}{% endmacro %}{{ m() }}",
    "{{ [1] | map(attribute='__class__') | list }}",
    "{{ [value] | selectattr('__class__.__mro__') | list }}",
    "{{ [value] | sort(attribute='__class__') }}",
    "{{ [value] | groupby('__class__') }}",
    "{{ value | pprint }}",
    "{{ value is callable }}",
    "{% for x in foo recursive %}{{ loop(x) }}{% endfor %}",
    "{{ loop.__class__ }}",
    "{% for x in [1] %}{{ loop._iterator }}{% endfor %}",
    "{% for x in [1] %}{{ loop.cycle.__globals__ }}{% endfor %}",
    "{{ foo }}",
]

PROBES = {"{{4*4}}[[5*5]]": "16[[5*5]]", "{{7*'7'}}": "7777777", "{{ '<b>' }}": "<b>", "${7*7}": "${7*7}"}
"""Detection probes that compute and reach nothing, with what they give here."""

EXHAUSTING = [
    # ours: templates that would take all time or memory
    "{% for i in range(10 ** 9) %}{% endfor %}",
    "{{ 10 ** 10 ** 10 }}",
    "{{ 'a' * 10000000000 }}",
    "{{ 1000000000 * ['a'] }}",
    "{{ 'a' * 1000 * 1000 }}",
    "{% set a = 'aa' %}" + "{% set a = a ~ a %}" * 60 + "{{ a }}",
    "{% set a = 'aa' %}" + "{% set a = a + a %}" * 60 + "{{ a }}",
    "{% set a = [1, 1] %}" + "{% set a = [a, a] %}" * 60 + "{{ a | tojson }}",
    "{% set a = [1, 1] %}" + "{% set a = a + a %}" * 60 + "{{ a }}",
    "{% set a = {'a': 1} %}" + "{% set a = {'x': a, 'y': a} %}" * 60 + "{{ a }}",
    "{% set a = 9 %}" + "{% set a = a * a %}" * 60 + "{{ a }}",
    "{% set a %}aaaaaaaaaa{% endset %}" + "{% set a %}{{ a }}{{ a }}{% endset %}" * 60 + "{{ a }}",
    "{% set s = 'a' * 1000 %}{% for a in s %}{% for b in s %}{% for c in s %}x{% endfor %}{% endfor %}{% endfor %}",
    "{% set s = 'a' * 1000 %}{% for a in s %}{% for b in s %}{% if a == 'b' %}x{% endif %}{% endfor %}{% endfor %}",
    "{% set many = ('a' * 50000) | list %}{% for a in 'a' * 900 %}{{ 'x' if a in many[1:] }}{% endfor %}",
    "{% set many = ('a' * 50000) | list %}{% for a in 'a' * 900 %}{{ many | sort | first }}{% endfor %}",
    "{{ ('a' * 90000) | list | join('a' * 90000) }}",
    "{{ ('a' * 90000) | replace('a', 'b' * 90000) }}",
    "{{ '%999999999d' | format(1) }}",
    "{{ '%999999999d' % 1 }}",
    "{{ 5 | round(1000000000, 'ceil') }}",
    "{{ 5 | round(-1000000000) }}",
    "{{ 'a' | center(1000000000) }}",
    "{{ 'a' | indent(1000000000) }}",
    "{{ [1] | batch(1000000000, 'x') | list }}",
    "{{ 'a' | tojson(indent=1000000000) }}",
    "{{ lipsum(n=1000000) }}",
    "{{ 9" + "9" * 5000 + " }}",
    "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "{{ " + "-" * 5000 + "1 }}",
    "{{ " + "[" * 5000 + "]" * 5000 + " }}",
    "{% if a %}" * 2000 + "{% endif %}" * 2000,
    "{{ " + " ~ ".join(["'a'"] * 20000) + " }}",
    "x" * 60000,
]
