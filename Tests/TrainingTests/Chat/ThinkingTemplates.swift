/// Templates that treat reasoning as published ones do, in this project's own words.
enum ThinkingTemplates {
    /// As Qwen3's: reasoning stands in the turns behind the last question alone, and the last turn gets an empty block
    /// without any; `enable_thinking=false` puts that block into the generation prompt.
    static let qwen = """
        {%- set ns = namespace(last=-1) %}
        {%- for m in messages %}
        {%- if m.role == 'user' %}
        {%- set ns.last = loop.index0 %}
        {%- endif %}
        {%- endfor %}
        {%- for m in messages %}
        {%- set content = m.content if m.content is string else '' %}
        {%- set reasoning = m.reasoning_content if m.reasoning_content is string else '' %}
        {%- if m.role == 'assistant' and '</think>' in content %}
        {%- set reasoning = content.split('</think>')[0].split('<think>')[-1].strip('\\n') %}
        {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {{- '<|im_start|>' + m.role + '\\n' }}
        {%- if m.role == 'assistant' and loop.index0 > ns.last and (loop.last or reasoning) %}
        {{- '<think>\\n' + reasoning.strip('\\n') + '\\n</think>\\n\\n' }}
        {%- endif %}
        {{- content }}
        {%- for c in m.tool_calls or [] %}
        {{- '<tool>' + c.function.name + ' ' + (c.function.arguments | tojson) + '</tool>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
        {%- endfor %}
        {%- if add_generation_prompt %}
        {{- '<|im_start|>assistant\\n' }}
        {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
        {%- endif %}
        {%- endif %}
        """

    /// As DeepSeek-R1's and its distillations': the generation prompt opens the reasoning, which no turn of a conversation
    /// has; arguments of calls are added to strings.
    static let deepSeek = """
        {%- for m in messages %}
        {%- if m.role == 'user' %}
        {{- '<s>' + m.content }}
        {%- elif m.role == 'assistant' %}
        {{- '<|im_start|>' + (m.content or '').split('</think>')[-1] }}
        {%- for c in m.tool_calls or [] %}
        {{- c.function.name + ' ' + c.function.arguments }}
        {%- endfor %}
        {{- '<|im_end|>' }}
        {%- endif %}
        {%- endfor %}
        {%- if add_generation_prompt %}
        {{- '<|im_start|><think>\\n' }}
        {%- endif %}
        """

    /// As Command R7B's: the generation prompt is written unasked, behind the last turn too, and messages that call tools
    /// leave their content out.
    static let command = """
        {%- for m in messages %}
        {{- '<s>' + ('BOT:' if m.role == 'assistant' else 'USER:') }}
        {%- if m.tool_calls %}
        {{- '<|START_THINKING|>' + (m.reasoning_content or '') + '<|END_THINKING|>' + m.tool_calls[0].function.name }}
        {%- else %}
        {{- '[' + m.content + ']' }}
        {%- endif %}
        {{- eos_token }}
        {%- endfor %}
        {{- '<s>BOT:' }}
        """

    /// As Nemotron's: the generation prompt opens the reasoning, and turns without any close it at once.
    static let nemotron = """
        {%- for m in messages %}
        {{- '<|im_start|>' + m.role + '\\n' }}
        {%- if m.role == 'assistant' %}
        {{- '<think></think>' }}
        {%- endif %}
        {{- m.content + '<|im_end|>\\n' }}
        {%- endfor %}
        {%- if add_generation_prompt %}
        {{- '<|im_start|>assistant\\n<think>\\n' }}
        {%- endif %}
        """
}
