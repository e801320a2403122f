"""Files of shell variables, as /etc/sysconfig and /etc/conf.d hold them: changed as text, never run."""

from __future__ import annotations

from collections.abc import Mapping


def set_variables(text: str, variables: Mapping[str, str]) -> str:
    """The text with each variable set once: in place of its last assignment, or at the end. Values are put in double
    quotes; they must hold nothing that a shell would expand there. Only a newline ends a line, as for a shell."""
    lines = text.removesuffix("\n").split("\n") if text else []
    for name, value in variables.items():
        assert not set(value) & set('"$`\\\n'), value
        at = [n for n, line in enumerate(lines) if line.lstrip().startswith(f"{name}=")]
        own = f'{name}="{value}"'
        if at:
            lines[at[-1]] = own
        else:
            lines.append(own)
    return "".join(f"{line}\n" for line in lines)
